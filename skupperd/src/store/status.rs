//! Status files: each resource as its user wrote it, with its status.
//!
//! The reconciler writes them, the command and D-Bus read them. A file is written only if its content
//! changes, so that watchers of the directory see changes only.

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
    /// What the files should have; readers in this process need no file.
    documents: Documents,
    /// Files that have something else, or that should be gone.
    outdated: BTreeSet<Key>,
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
            documents,
            outdated: BTreeSet::new(),
        })
    }

    /// Sets a resource with its status, without secrets, and writes its file unless that has this content
    /// already. Returns whether it was written. After an error the document counts all the same, and the
    /// next call writes the file.
    pub fn write(
        &mut self,
        key: &Key,
        mut document: Value,
        draft: StatusDraft,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let path = self.dir.join(key.file_name());
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
        document["status"] = serde_json::to_value(&status)
            .map_err(|e| StoreError::io("encoding", &path)(e.into()))?;
        let is_same = previous.is_some_and(|p| **p == document);
        if is_same && !self.outdated.contains(key) && path.exists() {
            return Ok(false);
        }
        let text = to_yaml(&document).map_err(|source| StoreError::Encode {
            path: path.clone(),
            source,
        })?;
        self.documents.insert(key.clone(), Arc::new(document));
        self.outdated.insert(key.clone());
        let mode = if key.kind.is_confidential() {
            PRIVATE
        } else {
            SHARED
        };
        write_file(&path, text.as_bytes(), mode).map_err(StoreError::io("writing", &path))?;
        self.outdated.remove(key);
        Ok(true)
    }

    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// Removes all resources but those in `keep`, with their files. After an error the next call removes
    /// the files that are left.
    pub fn retain(&mut self, keep: &BTreeSet<Key>) -> Result<(), StoreError> {
        let gone = self.documents.extract_if(.., |key, _| !keep.contains(key));
        self.outdated.extend(gone.map(|(key, _)| key));
        let mut result = Ok(());
        for key in self.outdated.clone().difference(keep) {
            let path = self.dir.join(key.file_name());
            match remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    result = result.and(Err(StoreError::io("removing", &path)(e)));
                }
                _ => drop(self.outdated.remove(key)),
            }
        }
        result
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
