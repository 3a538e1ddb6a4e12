//! Changes to a resource that keep what they do not speak of.

use super::{Outcome, edit, invalid};
use crate::{
    manifest::{parse, to_yaml},
    model::Kind,
    store::NamespaceDir,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Merges a change into what there is, as RFC 7386 has it: null takes a field away.
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

/// Writes a resource whole, over the one of its name if there is one. Gives the file.
pub fn create(namespace: &NamespaceDir, document: &Value) -> Outcome<PathBuf> {
    let text = check(namespace, document)?;
    let written = edit::apply(namespace, Path::new("-"), &text)?;
    let path = written.into_iter().next().map(|(_, path)| path);
    path.ok_or_else(|| invalid("there is no resource in the document"))
}

/// The text of a resource that would be read without complaint.
pub fn check(namespace: &NamespaceDir, document: &Value) -> Outcome<String> {
    let text = to_yaml(document)?;
    for read in parse(Path::new("-"), text.as_bytes(), Some(namespace.name())) {
        read.map_err(|e| invalid(format!("refused: {e}")))?;
    }
    Ok(text)
}

/// Changes a resource: `change` is merged into it, and everything else stays as it was written. Gives
/// the file, or nothing where there is no such resource.
pub fn update(
    namespace: &NamespaceDir,
    kind: Kind,
    name: &str,
    change: &Value,
) -> Outcome<Option<PathBuf>> {
    // What says which resource it is, and what it was told by the daemon, is not for changing.
    if let Some(field) = change.as_object().and_then(|c| {
        c.keys()
            .find(|f| !["metadata", "spec"].contains(&f.as_str()))
    }) {
        return Err(invalid(format!("{field}: can not be changed")));
    }
    let mut editor = namespace.edit()?;
    let Some(found) = edit::find(namespace, kind, name)? else {
        return Ok(None);
    };
    let mut document = (*found.document).clone();
    merge(&mut document, change);
    if document["metadata"]["name"] != *name {
        return Err(invalid("metadata.name: can not be changed"));
    }
    if kind == Kind::MultiKeyListener && strategy(&document) != strategy(&found.document) {
        return Err(invalid(
            "spec.strategy: strategy cannot be changed; delete the resource and create it anew",
        ));
    }
    sensible(namespace, kind, &document, change)?;
    check(namespace, &document)?;
    Ok(Some(edit::write(&mut editor, &document)?))
}

/// Kinds of strategy that a document names.
fn strategy(document: &Value) -> [bool; 2] {
    ["priority", "weighted"].map(|kind| document["spec"]["strategy"][kind].is_object())
}

/// What no document says by itself and nobody can mean.
fn sensible(namespace: &NamespaceDir, kind: Kind, document: &Value, change: &Value) -> Outcome<()> {
    let credentials = change
        .pointer("/spec/tlsCredentials")
        .and_then(Value::as_str);
    match (kind, credentials) {
        (Kind::Site, _) => edge_without_access(document),
        (Kind::Link, Some(name)) if edit::find(namespace, Kind::Secret, name)?.is_none() => {
            Err(invalid(format!("there is no Secret {name:?}")))
        }
        _ => Ok(()),
    }
}

/// A site that links to others only has no access for links.
pub fn edge_without_access(site: &Value) -> Outcome<()> {
    let access = site.pointer("/spec/linkAccess").and_then(Value::as_str);
    if site["spec"]["edge"] == true && !matches!(access, None | Some("none" | "")) {
        let text = "an edge site has no link access: name --edge or --enable-link-access";
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
    fn a_change_keeps_what_it_does_not_speak_of() {
        let mut value = json!({"spec": {"a": 1, "b": {"c": 2, "d": 3}, "e": "x"}});
        merge(
            &mut value,
            &json!({"spec": {"b": {"c": 5}, "e": null, "f": {"g": 1}}}),
        );
        let expected = json!({"spec": {"a": 1, "b": {"c": 5, "d": 3}, "f": {"g": 1}}});
        assert_eq!(value, expected);
    }

    #[test]
    fn a_change_is_of_one_resource_and_makes_sense() {
        let root = tempfile::tempdir().unwrap();
        let namespace = Layout::root(root.path()).namespace(&Namespace::default_namespace());
        let site = json!({
            "apiVersion": "skupper.io/v2alpha1", "kind": "Site", "metadata": {"name": "a"},
            "spec": {"linkAccess": "default", "settings": {"x": "y"}},
        });
        create(&namespace, &site).unwrap();
        let refused = |change: Value| {
            let done = update(&namespace, Kind::Site, "a", &change);
            done.unwrap_err().to_string()
        };
        assert_eq!(refused(json!({"kind": "Link"})), "kind: can not be changed");
        let renamed = json!({"metadata": {"name": "b"}});
        assert_eq!(refused(renamed), "metadata.name: can not be changed");
        assert!(refused(json!({"spec": {"edge": true}})).contains("an edge site has no link"));
        assert!(
            update(&namespace, Kind::Site, "b", &json!({}))
                .unwrap()
                .is_none()
        );
        let change = json!({"spec": {"linkAccess": "none"}});
        update(&namespace, Kind::Site, "a", &change)
            .unwrap()
            .unwrap();
        let found = edit::find(&namespace, Kind::Site, "a").unwrap().unwrap();
        let expected = json!({"linkAccess": "none", "settings": {"x": "y"}});
        assert_eq!(found.document["spec"], expected);
    }
}
