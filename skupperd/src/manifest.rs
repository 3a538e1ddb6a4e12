//! Manifests: YAML or JSON documents to validated resources.
//!
//! A file is split into documents ([`split`]). Each is parsed once, into a bounded tree in which every
//! node knows its line ([`tree`]); from that come raw fields, all optional and none unknown ([`raw`],
//! read by [`fields`]), and from these [`crate::model`] types ([`convert`]). Only the last leave this
//! module. [`validate_set`] checks the resources of a namespace against each other. Every error names
//! file, line, resource and field, and quotes nothing secret.

mod access;
mod attached;
mod checks;
mod convert;
mod document;
mod encode;
mod error;
mod field_error;
mod fields;
mod lines;
mod list;
mod multikey;
mod node;
mod raw;
mod scalar;
pub mod schema;
mod secret;
mod set;
pub mod settings;
mod split;
mod syntax;
mod tree;

pub use encode::{document_of, to_yaml};
pub use error::ManifestError;
pub use list::expand_lists;
pub use secret::redact;
pub use set::{validate_change, validate_set};

use crate::model::{Key, Namespace, Resource};
use lines::FieldLines;
use serde_json::Value;
use std::{ops::Range, path::Path, sync::Arc};

/// Longest file read, in bytes: some thousand Secrets.
pub const MAX_FILE_SIZE: u64 = 8 * 1024 * 1024;
/// Longest document, in bytes: what Kubernetes stores at most.
pub const MAX_DOCUMENT_SIZE: usize = 1536 * 1024;

/// Where the fields of a resource are.
#[derive(Clone, Debug, PartialEq)]
enum KnownLines {
    Lines(Arc<FieldLines>),
    /// Of a Secret only the line of the name is kept: the names of its parts may be secret too.
    Name(usize),
}

/// A resource and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct LocatedResource {
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
    field_lines: KnownLines,
}

impl LocatedResource {
    pub fn key(&self) -> Key {
        self.resource.key()
    }

    /// Line of a field such as `spec.roles[1].name`, or of its nearest parent.
    pub fn line_of(&self, field: &str) -> usize {
        match &self.field_lines {
            KnownLines::Lines(lines) => {
                let line = lines.line_of(field);
                line.map_or(self.line, |line| self.first + line)
            }
            KnownLines::Name(line) => *line,
        }
    }

    /// Where it is, as messages put it: `file:line`.
    pub fn position(&self) -> String {
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
) -> Vec<Result<LocatedResource, ManifestError>> {
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
