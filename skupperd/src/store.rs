//! What is on disk: where things are, reading them, writing them so that a crash leaves the old or
//! the new and never a part, and noticing when they change.
//!
//! Input is only ever written through an [`Editor`], which holds the namespace's lock; state is only
//! written by the one daemon that holds the [`Instance`].

mod edit;
mod files;
mod format;
mod layout;
mod load;
mod lock;
mod status;
mod walk;
mod watch;

pub use edit::Editor;
pub use files::{PRIVATE, PUBLIC, SHARED, read_text, remove_file, write_file};
pub use format::FORMAT_VERSION;
pub use layout::{Given, Layout, NamespaceDir};
pub use load::{Loaded, Loader};
pub use lock::{Instance, lock};
pub use status::{Documents, Published, StatusDir};
pub use watch::{Change, Watcher};

use crate::manifest::ManifestError;
use std::{
    io,
    path::{Path, PathBuf},
};

/// What could not be done on disk.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system says no.
    #[error("{op} {}", path.display())]
    Io {
        /// What was being done.
        op: &'static str,
        /// File or directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Another daemon has these directories.
    #[error("another skupperd runs already on {} ({holder})", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, as far as known.
        holder: String,
    },
    /// A later version of the program has written the state.
    #[error(
        "{} says that the state has format {found}, and this program knows only {FORMAT_VERSION}: \
         use a newer program, or remove the state",
        path.display()
    )]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// The format it names.
        found: String,
    },
    /// There is nowhere to keep a user's files.
    #[error("no home directory: neither XDG_DATA_HOME nor HOME names an absolute path")]
    NoHome,
    /// What should be written would be refused when read.
    #[error("refused: {0}")]
    Refused(Box<ManifestError>),
    /// What should be written is not one resource.
    #[error("expected one resource, found {0}")]
    NotOne(usize),
    /// Text of YAML could not be made.
    #[error("encoding {}", path.display())]
    Encode {
        /// The file it is for.
        path: PathBuf,
        /// Reason.
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
