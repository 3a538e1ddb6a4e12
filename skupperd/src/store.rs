//! Files on disk: where they are, reading and writing them, and noticing changes.
//!
//! [`Layout`] names every path; no other room joins paths of its own. A [`Loader`] reads the manifests of
//! a namespace and keeps the last valid version of a resource that has become invalid. Input is written
//! only through an [`Editor`], which holds the namespace's lock; state is written only by the one daemon
//! that holds the [`InstanceLock`]. A [`StatusDir`] holds the statuses of a namespace, and a [`Watcher`]
//! tells the reconciler that input has changed.
//!
//! All files are written by [`write_file`]: a crash at any time leaves the old file or the new one, on
//! disk and complete. Others may write to some of the directories, and root's command works in those of
//! the daemon's user: no symbolic link of others is followed (`sys::trusted_path`). This room never
//! decides what runs; it only reports what is written, and who can write it ([`ForeignPath`]).

mod edit;
mod files;
mod format;
mod layout;
mod load;
mod lock;
mod status;
#[cfg(test)]
mod test_namespace;
mod walk;
mod watch;
mod writers;

pub use edit::Editor;
pub use files::{
    PRIVATE, PUBLIC, SHARED, append_line, read_named, read_text, remove_file, write_file, write_own,
};
pub use format::FORMAT_VERSION;
pub use layout::{CredentialKind, Layout, NamespaceDir};
pub use load::{Loader, NamespaceResources};
pub use lock::{DaemonState, InstanceLock, lock};
pub use status::{
    BatchResult, Documents, ResourceSnapshot, STOPPING, StatusBatch, StatusDir, mark_unknown,
};
pub use watch::Watcher;
pub use writers::ForeignPath;

use crate::manifest::ManifestError;
use std::{
    io,
    path::{Path, PathBuf},
};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{op} {}", path.display())]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Another daemon has these directories.
    #[error("another skupperd is already running on {} ({holder})", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// The process that holds it, as far as known.
        holder: String,
    },
    /// A later version of the program has written the state.
    #[error(
        "the state has format {found} ({}), and this version of skupperd reads up to \
         {FORMAT_VERSION}: upgrade skupperd, or remove the state",
        path.display()
    )]
    NewerFormat { path: PathBuf, found: String },
    /// There is no directory for a user's files.
    #[error("no home directory: neither XDG_DATA_HOME nor HOME names an absolute path")]
    NoHome,
    /// The document to write is not valid.
    #[error("refused: {0}")]
    Refused(Box<ManifestError>),
    /// The text to write is not one resource.
    #[error("expected one resource, found {0}")]
    NotOne(usize),
    #[error("encoding {}", path.display())]
    Encode {
        path: PathBuf,
        #[source]
        source: serde_yaml::Error,
    },
}

impl StoreError {
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { op, path, source }
    }
}
