//! What is wrong with a document.

use crate::model::{Kind, Name, Namespace};
use std::{fmt, path::Path, sync::Arc};

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// File, or `-` for standard input.
    pub file: Arc<Path>,
    /// Line of the field, or of the document when the field has none, from 1.
    pub line: u32,
    /// Kind, as far as known; it may be one that does not exist.
    pub kind: Option<String>,
    /// Name, as far as known.
    pub name: Option<String>,
    /// Path of the field, such as `spec.roles[1].name`.
    pub field: Option<String>,
    /// What is wrong with it. Holds nothing secret.
    pub reason: String,
    /// The document is of another API, such as a Deployment beside a Connector.
    pub is_other_api: bool,
}

impl ManifestError {
    /// Of a file as a whole.
    pub fn of_file(file: &Arc<Path>, reason: impl Into<String>) -> Self {
        Self {
            file: Arc::clone(file),
            line: 1,
            kind: None,
            name: None,
            field: None,
            reason: reason.into(),
            is_other_api: false,
        }
    }

    /// Kind and name of the resource, when both are known and valid.
    pub fn key(&self) -> Option<crate::model::Key> {
        let kind = Kind::parse(self.kind.as_deref()?)?;
        Some(crate::model::Key {
            kind,
            name: Name::new(self.name.clone()?).ok()?,
        })
    }

    /// What is known, by name, for structured logs; what is not known is left out.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("file", self.file.display().to_string()),
            ("line", self.line.to_string()),
            ("reason", self.reason.clone()),
        ];
        let known = [
            ("kind", &self.kind),
            ("name", &self.name),
            ("field", &self.field),
        ];
        fields.extend(known.into_iter().filter_map(|(k, v)| Some((k, v.clone()?))));
        fields
    }

    pub fn log(&self, namespace: &Namespace) {
        tracing::error!(
            namespace = namespace.as_str(),
            file = %self.file.display(),
            line = self.line,
            kind = self.kind,
            name = self.name,
            field = self.field,
            error = %self.reason,
            "invalid document"
        );
    }
}

impl std::error::Error for ManifestError {}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file.display(), self.line)?;
        match (&self.kind, &self.name) {
            (Some(kind), Some(name)) => write!(f, "{kind} {name}: ")?,
            (Some(kind), None) => write!(f, "{kind}: ")?,
            _ => {}
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.reason)
    }
}
