//! What is on disk: where things are, reading them, writing them so that a crash leaves the old or
//! the new and never a part.

mod files;
mod layout;
mod status;
mod watch;

pub use files::{PRIVATE, SHARED, lock, read_text, remove_file, write_file};
pub use layout::{Layout, Namespace};
pub use status::StatusDir;
pub use watch::watch;

use crate::manifest::{Located, ManifestError, check_set, parse};
use std::{
    io,
    path::{Path, PathBuf},
};

/// What could not be done on disk.
#[derive(Debug, thiserror::Error)]
#[error("{op} {}", path.display())]
pub struct StoreError {
    /// What was being done.
    pub op: &'static str,
    /// File or directory.
    pub path: PathBuf,
    /// The system's reason.
    #[source]
    pub source: io::Error,
}

impl StoreError {
    pub(crate) fn new(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { op, path, source }
    }
}

/// The resources of a namespace.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Good ones, in order of file and line.
    pub resources: Vec<Located>,
    /// What is wrong with the others.
    pub errors: Vec<ManifestError>,
}

impl Namespace {
    /// Loads every manifest below the input directory.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded::default();
        let mut resources = Vec::new();
        for file in files::manifests(&self.input())? {
            let text = match read_text(&file) {
                Ok(text) => text,
                // Gone between listing and reading: the watcher tells again.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => {
                    loaded.errors.push(ManifestError {
                        source: file,
                        line: 1,
                        kind: None,
                        name: None,
                        field: None,
                        reason: e.to_string(),
                    });
                    continue;
                }
            };
            for document in parse(&file, &text, &self.name) {
                match document {
                    Ok(located) => resources.push(located),
                    Err(error) => loaded.errors.push(*error),
                }
            }
        }
        let (good, conflicts) = check_set(resources);
        loaded.resources = good;
        loaded.errors.extend(conflicts);
        Ok(loaded)
    }
}
