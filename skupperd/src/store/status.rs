//! Status files: each resource as it was written, with its status.

use super::{Namespace, SHARED, StoreError, read_text, remove_file, write_file};
use crate::model::{Key, Kind, Status};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
};

/// The status files of a namespace and what is in them.
#[derive(Debug)]
pub struct StatusDir {
    dir: PathBuf,
    written: BTreeMap<Key, Value>,
}

impl StatusDir {
    /// Reads the status files that are there, so that times of conditions go on.
    pub fn open(namespace: &Namespace) -> Result<Self, StoreError> {
        let dir = namespace.resources();
        let mut written = BTreeMap::new();
        match fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(StoreError::new("reading directory", &dir)(e)),
            Ok(entries) => {
                for entry in entries {
                    let path = entry
                        .map_err(StoreError::new("reading directory", &dir))?
                        .path();
                    // What does not read is written anew.
                    let value = read_text(&path)
                        .ok()
                        .and_then(|t| serde_yaml::from_str(&t).ok());
                    let key = path.file_stem().and_then(|s| s.to_str()).and_then(|stem| {
                        let (kind, name) = stem.split_once('-')?;
                        Some(Key {
                            kind: Kind::parse(kind)?,
                            name: name.to_owned(),
                        })
                    });
                    if let (Some(key), Some(value)) = (key, value) {
                        written.insert(key, value);
                    }
                }
            }
        }
        Ok(Self { dir, written })
    }

    fn file(&self, key: &Key) -> PathBuf {
        self.dir.join(format!("{}-{}.yaml", key.kind, key.name))
    }

    /// Writes a resource with its status, if that is not what the file says already.
    pub fn write(
        &mut self,
        key: &Key,
        document: Value,
        status: &Status,
        now: &str,
    ) -> Result<(), StoreError> {
        let previous = self.written.get(key);
        let mut object = document;
        object["status"] = status.to_json(now, previous.and_then(|p| p.get("status")));
        if key.kind == Kind::Secret {
            // A private key stays where its owner put it.
            for part in ["data", "stringData"] {
                if let Some(data) = object.get_mut(part).and_then(Value::as_object_mut) {
                    data.remove("tls.key");
                }
            }
        }
        if previous == Some(&object) {
            return Ok(());
        }
        let path = self.file(key);
        let text = serde_yaml::to_string(&object)
            .map_err(|e| StoreError::new("encoding", &path)(io::Error::other(e)))?;
        write_file(&path, text.as_bytes(), SHARED).map_err(StoreError::new("writing", &path))?;
        self.written.insert(key.clone(), object);
        Ok(())
    }

    /// Removes the files of all other resources.
    pub fn retain(&mut self, keep: &BTreeSet<Key>) -> Result<(), StoreError> {
        let gone: Vec<Key> = self
            .written
            .keys()
            .filter(|k| !keep.contains(k))
            .cloned()
            .collect();
        for key in gone {
            let path = self.file(&key);
            match remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::new("removing", &path)(e));
                }
                _ => drop(self.written.remove(&key)),
            }
        }
        Ok(())
    }

    /// A document that says no more than what it is.
    pub fn bare(key: &Key) -> Value {
        json!({
            "apiVersion": key.kind.api_version(),
            "kind": key.kind.as_str(),
            "metadata": { "name": key.name },
        })
    }
}
