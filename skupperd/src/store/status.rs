//! Status files: each resource as its user wrote it, with its status.
//!
//! The reconciler sets them ([`StatusDir`]), the command and D-Bus read them. A file is written only if
//! its content changes, so that watchers of the directory see changes only.
//!
//! Files are written in batches on other threads ([`StatusBatch`]), one batch of a namespace at a time: a
//! disk that stalls holds up no one who sets a status. What waits for the disk is a set of keys, so it
//! takes no more memory than the documents do.

use super::{
    NamespaceDir, PRIVATE, SHARED, StoreError,
    files::{read_text, remove_file, write_file},
};
use crate::{
    manifest::{redact, to_yaml},
    model::{ConditionStatus, Key, Kind, Name, Namespace, Phase, Status, StatusDraft},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Resources of a namespace with their statuses.
pub type Documents = BTreeMap<Key, Arc<Value>>;

/// Resources of all namespaces with their statuses, as the daemon publishes them.
pub type ResourceSnapshot = BTreeMap<Namespace, Documents>;

/// The status files of a namespace, and their content. The daemon has one for each namespace.
#[derive(Debug)]
pub struct StatusDir {
    dir: PathBuf,
    /// The directory of the resources.
    input: PathBuf,
    /// What the files should have; readers in this process need no file.
    documents: Documents,
    /// Files that have something else, or that should be gone, and are in no batch.
    outdated: BTreeSet<Key>,
    /// Files of the batch that is being written. No other one is taken meanwhile.
    in_batch: BTreeSet<Key>,
}

/// Status files to write and to remove.
#[derive(Debug)]
pub struct StatusBatch {
    dir: PathBuf,
    input: PathBuf,
    /// `None`: the file is removed.
    files: Vec<(Key, Option<Arc<Value>>)>,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub struct BatchResult {
    /// Files that could not be written or removed.
    failed: BTreeSet<Key>,
    /// The first error.
    pub error: Option<StoreError>,
}

impl StatusBatch {
    /// Writes the files. One that cannot be written holds up no other.
    pub fn write(self) -> BatchResult {
        let mut result = BatchResult::default();
        for (key, document) in self.files {
            let path = self.dir.join(key.file_name());
            let done = match document {
                // The namespace was removed meanwhile: its directories must not be made again.
                Some(_) if !self.input.exists() => Ok(()),
                Some(document) => write_document(&path, key.kind, &document),
                None => match remove_file(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => {
                        Err(StoreError::io("removing", &path)(e))
                    }
                    _ => Ok(()),
                },
            };
            if let Err(error) = done {
                result.failed.insert(key);
                result.error.get_or_insert(error);
            }
        }
        result
    }
}

fn write_document(path: &Path, kind: Kind, document: &Value) -> Result<(), StoreError> {
    let text = to_yaml(document).map_err(|source| StoreError::Encode {
        path: path.to_owned(),
        source,
    })?;
    let mode = match kind.is_confidential() {
        true => PRIVATE,
        false => SHARED,
    };
    write_file(path, text.as_bytes(), mode).map_err(StoreError::io("writing", path))
}

impl NamespaceDir {
    /// Resources of a kind with the status that the daemon wrote last.
    pub fn statuses(&self, kind: Kind) -> Result<BTreeMap<Name, Value>, StoreError> {
        let mut found = BTreeMap::new();
        for path in status_files(&self.runtime_resources())? {
            let Some(key) = key_of(&path).filter(|key| key.kind == kind) else {
                continue;
            };
            match read_value(&path) {
                Ok(value) => drop(found.insert(key.name, value)),
                // Removed meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(StoreError::io("reading", &path)(e)),
            }
        }
        Ok(found)
    }
}

impl StatusDir {
    /// Reads the existing status files, so that conditions keep their transition times.
    pub fn open(namespace: &NamespaceDir) -> Result<Self, StoreError> {
        let dir = namespace.runtime_resources();
        let mut documents = BTreeMap::new();
        for path in status_files(&dir)? {
            let Some(key) = key_of(&path) else { continue };
            // An unreadable file is remembered with a value that differs from any document.
            let value = read_value(&path).unwrap_or(Value::Null);
            documents.insert(key, Arc::new(value));
        }
        Ok(Self {
            dir,
            input: namespace.input_resources(),
            documents,
            outdated: BTreeSet::new(),
            in_batch: BTreeSet::new(),
        })
    }

    /// Sets a resource with its status, without secrets. Its file is outdated unless it has this content
    /// already.
    pub fn set(&mut self, key: &Key, mut document: Value, draft: StatusDraft, now: Timestamp) {
        let previous = self.documents.get(key);
        let before = previous.and_then(|p| Status::read(key.kind, p.get("status")?).ok());
        let generation = document
            .pointer("/metadata/generation")
            .and_then(Value::as_i64);
        // Files have no generation: every version of a resource counts as the first.
        let status = draft.finish(before.as_ref(), generation.unwrap_or(1), now);
        // Before the status is set: that of a grant has the code on purpose.
        if key.kind.is_confidential() {
            redact(&mut document);
        }
        document["status"] = json!(status);
        let is_same = previous.is_some_and(|p| **p == document);
        if is_same && (self.in_batch.contains(key) || self.dir.join(key.file_name()).exists()) {
            return;
        }
        self.documents.insert(key.clone(), Arc::new(document));
        self.outdated.insert(key.clone());
    }

    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// Forgets all resources but those in `keep`; their files are outdated.
    pub fn retain(&mut self, keep: &BTreeSet<Key>) {
        let gone = self.documents.extract_if(.., |key, _| !keep.contains(key));
        self.outdated.extend(gone.map(|(key, _)| key));
    }

    /// The outdated files, to be written; `None` while there are none or another batch is being written.
    pub fn take_batch(&mut self) -> Option<StatusBatch> {
        if self.outdated.is_empty() || !self.in_batch.is_empty() {
            return None;
        }
        self.in_batch = std::mem::take(&mut self.outdated);
        let file = |key: &Key| (key.clone(), self.documents.get(key).cloned());
        Some(StatusBatch {
            dir: self.dir.clone(),
            input: self.input.clone(),
            files: self.in_batch.iter().map(file).collect(),
        })
    }

    /// The batch is written. Files that failed are outdated again.
    pub fn finish_batch(&mut self, result: &BatchResult) {
        self.in_batch.clear();
        self.outdated.extend(result.failed.iter().cloned());
    }

    /// A document that only identifies its resource.
    pub fn minimal_document(key: &Key, namespace: &Namespace) -> Value {
        json!({
            "apiVersion": key.kind.api_version(),
            "kind": key.kind.as_str(),
            "metadata": { "name": key.name, "namespace": namespace },
        })
    }
}

/// Message of a status while the daemon drains connections.
pub const STOPPING: &str = "skupperd is stopping and accepts no new connections";

/// Replaces the state of a document by one that is not known, for this reason. An invalid document keeps
/// its error, which does not depend on a daemon.
pub fn mark_unknown(document: &mut Value, reason: &str) {
    let refused = document.get("spec").is_none();
    let Some(status) = document.get_mut("status") else {
        return;
    };
    if refused && status["status"] == Phase::Error.as_str() {
        return;
    }
    status["status"] = json!(Phase::Pending);
    status["message"] = json!(reason);
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        condition["status"] = json!(ConditionStatus::Unknown);
        condition["reason"] = json!(Phase::Pending);
        condition["message"] = json!(reason);
    }
}

fn status_files(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(StoreError::io("reading directory", dir)(e)),
    };
    let paths = entries.map(|entry| entry.map(|e| e.path()));
    paths
        .collect::<io::Result<_>>()
        .map_err(StoreError::io("reading directory", dir))
}

/// The resource of a file named `<Kind>-<name>.yaml`; `None` for other names.
fn key_of(path: &Path) -> Option<Key> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".yaml")?;
    let (kind, name) = stem.split_once('-')?;
    Some(Key {
        kind: Kind::parse(kind)?,
        name: Name::new(name).ok()?,
    })
}

fn read_value(path: &Path) -> io::Result<Value> {
    serde_yaml::from_str(&read_text(path)?)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests;
