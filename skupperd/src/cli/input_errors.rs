//! Errors of input files, for commands that show more than one resource: a document that is no resource
//! has no status.

use super::{Failure, show, target::CommandTarget};
use crate::model::Namespace;
use serde_json::{Value, json};

/// The errors of a namespace that none of these documents shows as its status.
pub(super) fn hidden(
    target: &CommandTarget,
    namespace: &Namespace,
    shown: &[&Value],
) -> Result<Vec<Value>, Failure> {
    let errors = target.input_errors(namespace)?.into_iter();
    let is_shown = |kind: &Option<String>, name: &Option<String>| {
        shown.iter().any(|document| {
            // An invalid document has only a status; a valid one of that name has its place.
            document.get("spec").is_none()
                && document["kind"].as_str() == kind.as_deref()
                && document["metadata"]["name"].as_str() == name.as_deref()
        })
    };
    let errors = errors.filter(|error| !is_shown(&error.kind, &error.name));
    let value = |error: crate::manifest::ManifestError| {
        json!({
            "file": error.file.display().to_string(),
            "line": error.line,
            "kind": error.kind,
            "name": error.name,
            "field": error.field,
            "reason": error.reason,
            "text": error.to_string(),
        })
    };
    Ok(errors.map(value).collect())
}

/// The errors as lines below a heading; empty without any.
pub(super) fn section(errors: &[Value]) -> String {
    if errors.is_empty() {
        return String::new();
    }
    let mut text = "\nErrors in input files:\n".to_owned();
    for error in errors {
        text.push_str(&show::text(error, "/text"));
        text.push('\n');
    }
    text
}
