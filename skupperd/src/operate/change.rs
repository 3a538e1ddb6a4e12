//! Creating and changing resources. A change keeps all fields that it does not name.

use super::{
    OperateError, OperateResult, invalid,
    resources::{self, Existing},
};
use crate::{
    manifest::{parse, to_yaml},
    model::Kind,
    store::NamespaceDir,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Merges a change into a document (RFC 7386): null removes a field.
pub fn merge(into: &mut Value, change: &Value) {
    let Some(fields) = change.as_object() else {
        *into = change.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(serde_json::Map::new());
    }
    for (name, change) in fields {
        match (change, into.as_object_mut()) {
            (Value::Null, Some(object)) => drop(object.remove(name)),
            _ => merge(&mut into[name], change),
        }
    }
}

/// Writes a whole resource. Returns the file.
pub fn create(
    namespace: &NamespaceDir,
    document: &Value,
    existing: Existing,
) -> OperateResult<PathBuf> {
    let text = check(namespace, document)?;
    let written = resources::apply(namespace, Path::new("-"), &text, existing);
    let written = written.map_err(|error| match error {
        OperateError::Failed(text) => OperateError::Failed(without_positions(&text)),
        invalid @ OperateError::Invalid(_) => invalid,
    })?;
    let path = written.into_iter().next().map(|applied| applied.file);
    path.ok_or_else(|| invalid("the document has no resource"))
}

/// The text of a resource, checked as the daemon checks what it reads.
pub fn check(namespace: &NamespaceDir, document: &Value) -> OperateResult<String> {
    let text = to_yaml(document)?;
    for read in parse(Path::new("-"), text.as_bytes(), Some(namespace.name())) {
        read.map_err(|e| invalid(without_positions(&e.to_string())))?;
    }
    Ok(text)
}

/// Errors of a document that a command makes, without the file and the line that they begin with.
pub fn without_positions(errors: &str) -> String {
    let lines = errors.lines().map(|line| {
        let rest = line
            .strip_prefix("-:")
            .and_then(|rest| rest.split_once(": "));
        rest.map_or(line, |(_, rest)| rest)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Merges `change` into a resource. Returns the file; none if the resource does not exist.
pub fn update(
    namespace: &NamespaceDir,
    kind: Kind,
    name: &str,
    change: &Value,
) -> OperateResult<Option<PathBuf>> {
    // Kind and status are not part of what a user can change.
    if let Some(field) = change.as_object().and_then(|c| {
        c.keys()
            .find(|f| !["metadata", "spec"].contains(&f.as_str()))
    }) {
        return Err(invalid(format!("{field}: cannot be changed")));
    }
    let mut editor = namespace.edit()?;
    let Some(found) = resources::find(namespace, kind, name)? else {
        return Ok(None);
    };
    let mut document = (*found.document).clone();
    merge(&mut document, change);
    if document["metadata"]["name"] != *name {
        return Err(invalid("metadata.name: cannot be changed"));
    }
    if kind == Kind::MultiKeyListener && strategy(&document) != strategy(&found.document) {
        return Err(invalid(
            "spec.strategy: strategy cannot be changed; delete the resource and create it again",
        ));
    }
    check_change(namespace, kind, &document, change)?;
    check(namespace, &document)?;
    Ok(Some(resources::write(&mut editor, &document)?))
}

/// Which strategies a document has: priority, weighted.
fn strategy(document: &Value) -> [bool; 2] {
    ["priority", "weighted"].map(|kind| document["spec"]["strategy"][kind].is_object())
}

/// Checks that need more than the document itself.
fn check_change(
    namespace: &NamespaceDir,
    kind: Kind,
    document: &Value,
    change: &Value,
) -> OperateResult<()> {
    let credentials = change
        .pointer("/spec/tlsCredentials")
        .and_then(Value::as_str);
    match (kind, credentials) {
        (Kind::Site, _) => edge_without_access(document),
        (Kind::Link, Some(name)) if resources::find(namespace, Kind::Secret, name)?.is_none() => {
            Err(invalid(format!(
                "secret {name} does not exist in namespace {}",
                namespace.name()
            )))
        }
        _ => Ok(()),
    }
}

/// Checks that an edge site does not accept links.
pub fn edge_without_access(site: &Value) -> OperateResult<()> {
    let access = site.pointer("/spec/linkAccess").and_then(Value::as_str);
    if site["spec"]["edge"] == true && !matches!(access, None | Some("none" | "")) {
        let text = "an edge site accepts no links: use either --edge or --enable-link-access";
        return Err(invalid(text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Namespace, store::Layout};
    use serde_json::json;

    #[test]
    fn a_change_keeps_fields_that_it_does_not_name() {
        let mut value = json!({"spec": {"a": 1, "b": {"c": 2, "d": 3}, "e": "x"}});
        merge(
            &mut value,
            &json!({"spec": {"b": {"c": 5}, "e": null, "f": {"g": 1}}}),
        );
        let expected = json!({"spec": {"a": 1, "b": {"c": 5, "d": 3}, "f": {"g": 1}}});
        assert_eq!(value, expected);
    }

    #[test]
    fn a_change_of_kind_name_or_to_an_edge_with_access_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let namespace = Layout::root(root.path()).namespace(&Namespace::default_namespace());
        let site = json!({
            "apiVersion": "skupper.io/v2alpha1", "kind": "Site", "metadata": {"name": "a"},
            "spec": {"linkAccess": "default", "settings": {"x": "y"}},
        });
        create(&namespace, &site, Existing::Refuse).unwrap();
        let refused = |change: Value| {
            let done = update(&namespace, Kind::Site, "a", &change);
            done.unwrap_err().to_string()
        };
        assert_eq!(refused(json!({"kind": "Link"})), "kind: cannot be changed");
        let renamed = json!({"metadata": {"name": "b"}});
        assert_eq!(refused(renamed), "metadata.name: cannot be changed");
        assert!(refused(json!({"spec": {"edge": true}})).contains("an edge site accepts no links"));
        assert!(
            update(&namespace, Kind::Site, "b", &json!({}))
                .unwrap()
                .is_none()
        );
        let change = json!({"spec": {"linkAccess": "none"}});
        update(&namespace, Kind::Site, "a", &change)
            .unwrap()
            .unwrap();
        let found = resources::find(&namespace, Kind::Site, "a")
            .unwrap()
            .unwrap();
        let expected = json!({"linkAccess": "none", "settings": {"x": "y"}});
        assert_eq!(found.document["spec"], expected);
    }
}
