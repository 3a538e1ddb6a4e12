//! Status files: each resource as it was written, with its status.

use super::{
    NamespaceDir, PRIVATE, SHARED, StoreError,
    files::{read_text, remove_file, write_file},
};
use crate::{
    manifest::{redact, to_yaml},
    model::{Draft, Key, Kind, Name, Namespace, Status},
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

/// The same of all namespaces, as the daemon makes it known.
pub type Published = BTreeMap<Namespace, Documents>;

/// The status files of a namespace and what is in them. There is one of it, in the daemon.
#[derive(Debug)]
pub struct StatusDir {
    dir: PathBuf,
    written: Documents,
}

impl NamespaceDir {
    /// Resources of a kind with their status, as the daemon wrote them last.
    pub fn statuses(&self, kind: Kind) -> Result<BTreeMap<Name, Value>, StoreError> {
        let mut found = BTreeMap::new();
        for path in status_files(&self.runtime_resources())? {
            let Some(key) = key_of(&path).filter(|key| key.kind == kind) else {
                continue;
            };
            match read_value(&path) {
                Ok(value) => drop(found.insert(key.name, value)),
                // Removed since the directory was read.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(StoreError::io("reading", &path)(e)),
            }
        }
        Ok(found)
    }
}

impl StatusDir {
    /// Reads the status files that are there, so that times of conditions go on.
    pub fn open(namespace: &NamespaceDir) -> Result<Self, StoreError> {
        let dir = namespace.runtime_resources();
        let mut written = BTreeMap::new();
        for path in status_files(&dir)? {
            let Some(key) = key_of(&path) else { continue };
            // What does not read is known to be there, and differs from whatever is written.
            let value = read_value(&path).unwrap_or(Value::Null);
            written.insert(key, Arc::new(value));
        }
        Ok(Self { dir, written })
    }

    /// Writes a resource with its status, if that is not what the file says already. Of what is
    /// secret nothing is written. Gives whether the file was written.
    pub fn write(
        &mut self,
        key: &Key,
        mut document: Value,
        draft: Draft,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let path = self.dir.join(key.file_name());
        let previous = self.written.get(key);
        let before = previous.and_then(|p| Status::read(key.kind, p.get("status")?).ok());
        let generation = document
            .pointer("/metadata/generation")
            .and_then(Value::as_i64);
        // Files have no generations: every form of a resource is the first.
        let status = draft.finish(before.as_ref(), generation.unwrap_or(1), now);
        // What its file said is secret; the code of a grant is what its status is for.
        if key.kind.is_confidential() {
            redact(&mut document);
        }
        document["status"] = serde_json::to_value(&status)
            .map_err(|e| StoreError::io("encoding", &path)(e.into()))?;
        if previous.is_some_and(|p| **p == document) && path.exists() {
            return Ok(false);
        }
        let text = to_yaml(&document).map_err(|source| StoreError::Encode {
            path: path.clone(),
            source,
        })?;
        let mode = if key.kind.is_confidential() {
            PRIVATE
        } else {
            SHARED
        };
        write_file(&path, text.as_bytes(), mode).map_err(StoreError::io("writing", &path))?;
        // Numbers and nulls as they will be read again.
        self.written.insert(key.clone(), Arc::new(document));
        Ok(true)
    }

    /// What was written, and is there.
    pub fn documents(&self) -> &Documents {
        &self.written
    }

    /// Removes the files of all other resources.
    pub fn retain(&mut self, keep: &BTreeSet<Key>) -> Result<(), StoreError> {
        let gone: Vec<Key> = self
            .written
            .keys()
            .filter(|k| !keep.contains(*k))
            .cloned()
            .collect();
        for key in gone {
            let path = self.dir.join(key.file_name());
            match remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("removing", &path)(e));
                }
                _ => drop(self.written.remove(&key)),
            }
        }
        Ok(())
    }

    /// A document that says no more than what it is of.
    pub fn bare(key: &Key, namespace: &Namespace) -> Value {
        json!({
            "apiVersion": key.kind.api_version(),
            "kind": key.kind.as_str(),
            "metadata": { "name": key.name, "namespace": namespace },
        })
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

/// What a file named `<Kind>-<name>.yaml` is of; files of other names are not ours.
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
