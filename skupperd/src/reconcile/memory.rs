//! What the daemon remembers of a namespace from one run to the next: the site's identity, ports that
//! it chose, and names of its certificates.

use super::error::ReconcileError;
use crate::store::{NamespaceDir, SHARED, read_text, write_file};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Version of the file; a later one is left alone.
const VERSION: u32 = 1;

/// Read on first need.
pub(super) struct Memory {
    path: PathBuf,
    record: Option<MemoryFile>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct MemoryFile {
    version: u32,
    site_id: String,
    /// Ports by what they are for, such as `<access>/<role>`.
    #[serde(default)]
    ports: BTreeMap<String, u16>,
    /// Names that the certificate of each link access has had: links that were given out dial them.
    #[serde(default)]
    names: BTreeMap<String, BTreeSet<String>>,
}

impl Memory {
    pub(super) fn new(namespace: &NamespaceDir) -> Self {
        Self {
            path: namespace.internal().join("site.json"),
            record: None,
        }
    }

    /// The identity from earlier runs; the first time `uid`, or else a new one.
    pub(super) fn site_id(&mut self, uid: Option<&str>) -> Result<String, ReconcileError> {
        Ok(self.load(uid)?.site_id.clone())
    }

    /// A port that was chosen in this run or an earlier one.
    pub(super) fn port(&mut self, of: &str) -> Result<Option<u16>, ReconcileError> {
        Ok(self.load(None)?.ports.get(of).copied())
    }

    /// Like [`Self::port`]; makes no file where no site was ever started.
    pub(super) fn known_port(&self, of: &str) -> Option<u16> {
        self.record.as_ref()?.ports.get(of).copied()
    }

    pub(super) fn keep_port(&mut self, of: &str, port: u16) -> Result<(), ReconcileError> {
        if self.load(None)?.ports.get(of) == Some(&port) {
            return Ok(());
        }
        self.change(|record| {
            record.ports.insert(of.to_owned(), port);
        })
    }

    /// Adds names of a link access; all that it ever had.
    pub(super) fn keep_names(
        &mut self,
        access: &str,
        more: impl IntoIterator<Item = String>,
    ) -> Result<BTreeSet<String>, ReconcileError> {
        let mut names = self
            .load(None)?
            .names
            .get(access)
            .cloned()
            .unwrap_or_default();
        let before = names.len();
        names.extend(more);
        if names.len() > before {
            self.change(|record| {
                record.names.insert(access.to_owned(), names.clone());
            })?;
        }
        Ok(names)
    }

    /// Writes a change first: what could not be written is not remembered either, so that the next call
    /// tries again.
    fn change(&mut self, change: impl FnOnce(&mut MemoryFile)) -> Result<(), ReconcileError> {
        let mut changed = self.load(None)?.clone();
        change(&mut changed);
        write(&self.path, &changed)?;
        self.record = Some(changed);
        Ok(())
    }

    fn load(&mut self, uid: Option<&str>) -> Result<&mut MemoryFile, ReconcileError> {
        let record = match self.record.take() {
            Some(record) => record,
            // What exists is not written: the disk may be full or read-only.
            None => match self.read()? {
                Some(record) => record,
                None => {
                    let record = MemoryFile {
                        version: VERSION,
                        site_id: uid.map_or_else(new_id, str::to_owned),
                        ports: BTreeMap::new(),
                        names: BTreeMap::new(),
                    };
                    write(&self.path, &record)?;
                    record
                }
            },
        };
        Ok(self.record.insert(record))
    }

    /// The record on disk, if there is one.
    fn read(&self) -> Result<Option<MemoryFile>, ReconcileError> {
        let record = match read_text(&self.path) {
            Ok(text) => serde_json::from_str::<MemoryFile>(&text)
                .map_err(ReconcileError::file("read", &self.path))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(ReconcileError::file("read", &self.path)(e)),
        };
        if record.version > VERSION {
            let text = format!(
                "it has version {}, and this daemon reads version {VERSION}",
                record.version
            );
            return Err(ReconcileError::file("read", &self.path)(text));
        }
        Ok(Some(record))
    }
}

fn write(path: &Path, record: &MemoryFile) -> Result<(), ReconcileError> {
    let text =
        serde_json::to_string_pretty(record).map_err(ReconcileError::file("encode", path))?;
    write_file(path, text.as_bytes(), SHARED).map_err(ReconcileError::file("write", path))
}

/// A random identity, in the form of a UUID.
pub(super) fn new_id() -> String {
    let mut bytes = [0; 16];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        // The system has no randomness: time still distinguishes sites.
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        bytes = now.as_nanos().to_be_bytes();
    }
    uuid::Builder::from_random_bytes(bytes)
        .into_uuid()
        .to_string()
}
