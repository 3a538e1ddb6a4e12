//! Why a resource cannot be applied.

use crate::{pki::PkiError, telemetry::chain};
use std::{error::Error, fmt::Display, path::Path, sync::Arc};

type ErrorSource = Arc<dyn Error + Send + Sync>;

/// The text of it is made for the status of the resource, with [`Self::text`]. Errors that read alike
/// are equal: each is logged once.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    #[error("spec.{field}")]
    Field {
        field: &'static str,
        source: ErrorSource,
    },
    #[error("spec.settings[{key}]")]
    Setting {
        key: &'static str,
        source: ErrorSource,
    },
    #[error("cannot {op} {what}")]
    Failed {
        op: &'static str,
        what: String,
        source: ErrorSource,
    },
    /// Something that others have to provide first.
    #[error("{0}")]
    Missing(String),
    #[error(transparent)]
    Pki(Arc<PkiError>),
    /// The change failed; the previous state stays in use.
    #[error("{0}; the previous version stays in use")]
    Unchanged(String),
    #[error("the daemon is stopping")]
    Stopping,
}

/// Any error, or a text.
type IntoSource = Box<dyn Error + Send + Sync>;

impl ReconcileError {
    pub(super) fn field(field: &'static str, source: impl Into<IntoSource>) -> Self {
        let source: IntoSource = source.into();
        Self::Field {
            field,
            source: source.into(),
        }
    }

    pub(super) fn setting(key: &'static str, source: impl Into<IntoSource>) -> Self {
        let source: IntoSource = source.into();
        Self::Setting {
            key,
            source: source.into(),
        }
    }

    /// `op` is a verb, as in "cannot {op} {what}".
    pub(super) fn failed(
        op: &'static str,
        what: impl Display,
        source: impl Into<IntoSource>,
    ) -> Self {
        let source: IntoSource = source.into();
        Self::Failed {
            op,
            what: what.to_string(),
            source: source.into(),
        }
    }

    /// [`Self::failed`] for a file.
    pub(super) fn file<E: Into<IntoSource>>(
        op: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::failed(op, path.display(), source)
    }

    /// With everything that caused it.
    pub(super) fn text(&self) -> String {
        chain(self)
    }
}

impl From<PkiError> for ReconcileError {
    fn from(error: PkiError) -> Self {
        Self::Pki(Arc::new(error))
    }
}

impl PartialEq for ReconcileError {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}
