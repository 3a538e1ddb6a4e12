//! Manifests: YAML or JSON documents to validated resources.
//!
//! Three stages: a document becomes a bounded tree ([`value`]), then raw fields that are all optional
//! and none unknown ([`raw`]), then [`crate::model`] types ([`convert`]). Only the last leave this
//! module. [`validate_set`] looks at the resources of a namespace together. Every error names file,
//! line, resource and field, and never holds what is secret.

mod access;
mod attached;
mod convert;
mod document;
mod encode;
mod error;
mod locate;
mod multikey;
mod raw;
pub mod schema;
mod secret;
mod set;
mod split;
mod value;

pub use encode::{document_of, to_yaml};
pub use error::ManifestError;
pub use secret::redact;
pub use set::{NETNS, validate_change, validate_set};

use crate::model::{Key, Namespace, Resource};
use serde_json::Value;
use std::{ops::Range, path::Path, sync::Arc};

/// Longest file read, in bytes: some thousand Secrets.
pub const MAX_FILE_SIZE: u64 = 8 * 1024 * 1024;
/// Longest document, in bytes: what Kubernetes stores at most.
pub const MAX_DOCUMENT_SIZE: usize = 1536 * 1024;

/// How fields of a resource are found.
#[derive(Clone, Debug, PartialEq)]
enum Places {
    /// In the text.
    Text(Arc<str>),
    /// The text is secret: only the line of the name is known.
    Name(usize),
}

/// A resource and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// The resource.
    pub resource: Resource,
    /// The document as it was written, with fields that mean nothing here; of a Secret without what
    /// is secret.
    pub document: Arc<Value>,
    /// File, or `-` for standard input.
    pub file: Arc<Path>,
    /// Line of the file where the document begins, from 1.
    pub line: usize,
    /// Bytes of the document with the separator before it.
    pub span: Range<usize>,
    /// Bytes of the document alone.
    pub body: Range<usize>,
    /// Line where the body begins, with what is blank.
    first: usize,
    places: Places,
}

impl Located {
    /// Kind and name.
    pub fn key(&self) -> Key {
        self.resource.key()
    }

    /// Line of the file where a field such as `spec.roles[1].name` stands, or its nearest parent.
    pub fn line_of(&self, field: &str) -> usize {
        match &self.places {
            Places::Text(text) => {
                locate::line_of(text, field).map_or(self.line, |n| self.first + n)
            }
            Places::Name(line) => *line,
        }
    }

    /// Where it is, as messages put it: `file:line`.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }
}

/// Reads all documents of a manifest; a bad one does not keep the others back. Documents without
/// anything in them are passed over.
///
/// `namespace`: the one that resources must be of, or say nothing about; without it each may name
/// its own.
pub fn parse(
    file: &Path,
    bytes: &[u8],
    namespace: Option<&Namespace>,
) -> Vec<Result<Located, ManifestError>> {
    let file: Arc<Path> = Arc::from(file);
    if bytes.len() as u64 > MAX_FILE_SIZE {
        return vec![Err(ManifestError::of_file(
            &file,
            format!("file is larger than {MAX_FILE_SIZE} bytes"),
        ))];
    }
    split::documents(bytes)
        .into_iter()
        .map(|part| document::read(&file, bytes, &part, namespace))
        .collect()
}
