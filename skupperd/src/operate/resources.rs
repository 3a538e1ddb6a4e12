//! Reading resources, writing them, removing them.

use super::{OperateError, OperateResult, invalid};
use crate::{
    manifest::{
        LocatedResource, MAX_FILE_SIZE, ManifestError, expand_lists, parse, to_yaml,
        validate_change,
    },
    model::{Key, Kind, Name, Namespace, Secret, Spec},
    store::{Editor, Layout, NamespaceDir},
};
use serde_json::Value;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// All resources of the namespace, or all errors. Invalid ones of the kinds `but` are left out.
pub(super) fn valid_resources(
    namespace: &NamespaceDir,
    but: &[Kind],
) -> OperateResult<Vec<LocatedResource>> {
    let loaded = namespace.load()?;
    let counted = loaded.errors.iter().filter(|error| {
        let kind = error.kind.as_deref().and_then(Kind::parse);
        !kind.is_some_and(|kind| but.contains(&kind))
    });
    let lines: Vec<String> = counted.map(ToString::to_string).collect();
    if lines.is_empty() {
        Ok(loaded.resources)
    } else {
        Err(OperateError::Invalid(lines))
    }
}

/// The valid resources of a kind.
pub fn desired(namespace: &NamespaceDir, kind: Kind) -> OperateResult<Vec<LocatedResource>> {
    let loaded = namespace.load()?.resources.into_iter();
    Ok(loaded.filter(|l| l.resource.kind() == kind).collect())
}

/// The valid resource of a kind and name.
pub fn find(
    namespace: &NamespaceDir,
    kind: Kind,
    name: &str,
) -> OperateResult<Option<LocatedResource>> {
    let mut wanted = desired(namespace, kind)?.into_iter();
    Ok(wanted.find(|l| *l.resource.name() == *name))
}

/// The credentials that the user wrote in a Secret of this name.
pub(super) fn user_secret<'a>(resources: &'a [LocatedResource], name: &Name) -> Option<&'a Secret> {
    let mut named = resources.iter().filter(|l| l.resource.name() == name);
    named.find_map(|l| l.resource.user_secret())
}

/// Writes a resource to the file that has it, or to a new one. Returns the file.
pub fn write(editor: &mut Editor, document: &Value) -> OperateResult<PathBuf> {
    Ok(editor.write_resource(&to_yaml(document)?)?)
}

/// Removes a resource from the file that has it. False: it does not exist.
pub fn remove(editor: &mut Editor, kind: Kind, name: &str) -> OperateResult<bool> {
    // No resource has an invalid name.
    let Ok(name) = Name::new(name) else {
        return Ok(false);
    };
    Ok(!editor.remove_resource(&Key { kind, name })?.is_empty())
}

/// Deletes resources of a namespace, one after the other, with one look at its files.
pub struct Deleter(Editor);

impl Deleter {
    /// Waits until no other writer has the namespace.
    pub fn new(namespace: &NamespaceDir) -> OperateResult<Self> {
        Ok(Self(namespace.edit()?))
    }

    /// Removes a resource from the file that has it, and with a link its credentials if nothing else uses
    /// them. Returns what was removed; empty if the resource does not exist.
    pub fn delete(&mut self, kind: Kind, name: &str) -> OperateResult<Vec<Key>> {
        // No resource has an invalid name.
        let Ok(name) = Name::new(name) else {
            return Ok(Vec::new());
        };
        let key = Key { kind, name };
        let credentials = self.0.resources().find_map(|l| match &l.resource.spec {
            Spec::Link(link) if l.key() == key => Some(link.tls_credentials.clone()),
            _ => None,
        });
        if self.0.remove_resource(&key)?.is_empty() {
            return Ok(Vec::new());
        }
        let mut removed = vec![key];
        let Some(credentials) = credentials else {
            return Ok(removed);
        };
        let uses = |spec: &Spec| match spec {
            Spec::Link(l) => l.tls_credentials == credentials,
            Spec::Listener(l) => l.tls_credentials.as_ref() == Some(&credentials),
            Spec::MultiKeyListener(l) => l.tls_credentials.as_ref() == Some(&credentials),
            Spec::Connector(c) => c.tls_credentials.as_ref() == Some(&credentials),
            Spec::RouterAccess(a) => a.tls_credentials == credentials,
            _ => false,
        };
        let used = self.0.resources().any(|l| uses(&l.resource.spec));
        let key = Key {
            kind: Kind::Secret,
            name: credentials,
        };
        if !used && !self.0.remove_resource(&key)?.is_empty() {
            removed.push(key);
        }
        Ok(removed)
    }
}

/// Deletes one resource, as [`Deleter::delete`] does.
pub fn delete(namespace: &NamespaceDir, kind: Kind, name: &str) -> OperateResult<Vec<Key>> {
    Deleter::new(namespace)?.delete(kind, name)
}

pub fn namespaces(layout: &Layout) -> OperateResult<Vec<Namespace>> {
    let found = layout.namespaces()?;
    Ok(found.iter().map(|n| n.name().clone()).collect())
}

/// Removes a namespace: its resources, its state and its keys. False: it does not exist.
pub fn remove_namespace(namespace: &NamespaceDir) -> OperateResult<bool> {
    Ok(namespace.remove()?)
}

/// The rank of a kind: resources are applied in this order.
fn apply_order(kind: Kind) -> usize {
    let place = Kind::ALL.iter().position(|k| *k == kind);
    place.unwrap_or(Kind::ALL.len())
}

/// Resources and errors of one text.
pub struct ParsedText<'a> {
    /// What the positions of the resources are of: lists are replaced by their items.
    pub text: Cow<'a, str>,
    /// In the order in which they are applied.
    pub resources: Vec<LocatedResource>,
    /// Documents of other APIs.
    pub ignored: Vec<ManifestError>,
}

/// The resources of a text, or all errors. `path`: of the file, or `-`.
pub fn parse_documents<'a>(
    namespace: &NamespaceDir,
    path: &Path,
    text: &'a str,
) -> OperateResult<ParsedText<'a>> {
    if text.len() as u64 > MAX_FILE_SIZE {
        let text = format!("{}: larger than {MAX_FILE_SIZE} bytes", path.display());
        return Err(invalid(text));
    }
    let text = expand_lists(text);
    let (mut resources, mut ignored, mut bad) = (Vec::new(), Vec::new(), Vec::new());
    for document in parse(path, text.as_bytes(), Some(namespace.name())) {
        match document {
            Ok(located) => resources.push(located),
            Err(error) if error.is_other_api => ignored.push(error),
            Err(error) => bad.push(error.to_string()),
        }
    }
    if !bad.is_empty() {
        return Err(nothing_changed(&bad));
    }
    if resources.is_empty() {
        let text = format!("{}: contains no Skupper resource", path.display());
        return Err(invalid(text));
    }
    resources.sort_by_key(|l| apply_order(l.resource.kind()));
    Ok(ParsedText {
        text,
        resources,
        ignored,
    })
}

fn nothing_changed(lines: &[String]) -> OperateError {
    OperateError::Failed(format!("{}\nnothing was changed", lines.join("\n")))
}

/// What applying a resource did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyEffect {
    Added,
    Changed,
    /// The resource was the same before: no file was written.
    Unchanged,
}

impl ApplyEffect {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        let effects = [Self::Added, Self::Changed, Self::Unchanged];
        effects.into_iter().find(|effect| effect.as_str() == text)
    }
}

/// A resource that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedResource {
    pub key: Key,
    /// The manifest with the resource.
    pub file: PathBuf,
    pub effect: ApplyEffect,
}

/// What to do with a resource that exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Replace,
    /// Its name is taken: an error, and nothing is changed.
    Refuse,
}

/// Applies the resources of a text: all of them, or none.
pub fn apply(
    namespace: &NamespaceDir,
    path: &Path,
    text: &str,
    existing: Existing,
) -> OperateResult<Vec<AppliedResource>> {
    let ParsedText {
        text, resources, ..
    } = parse_documents(namespace, path, text)?;
    let mut editor = namespace.edit()?;
    let loaded = editor.load()?.resources;
    let before: BTreeMap<Key, &LocatedResource> = loaded.iter().map(|l| (l.key(), l)).collect();
    if existing == Existing::Refuse {
        let taken = resources.iter().map(LocatedResource::key);
        let taken = taken.filter(|key| before.contains_key(key));
        let lines: Vec<String> = taken
            .map(|key| format!("{key} exists already in namespace {}", namespace.name()))
            .collect();
        if !lines.is_empty() {
            return Err(nothing_changed(&lines));
        }
    }
    let (resources, mut refused) = validate_change(&loaded, resources);
    refused.extend(editor.conflicts(&resources)?);
    if !refused.is_empty() {
        let lines: Vec<String> = refused.iter().map(ToString::to_string).collect();
        return Err(nothing_changed(&lines));
    }
    let mut done = Vec::new();
    for located in &resources {
        let key = located.key();
        let (file, effect) = match before.get(&key) {
            // The resource too: the document of a Secret does not have its content.
            Some(old) if old.document == located.document && old.resource == located.resource => {
                (old.file.to_path_buf(), ApplyEffect::Unchanged)
            }
            old => {
                let document = text.get(located.body.clone()).unwrap_or_default();
                let effect = match old {
                    Some(_) => ApplyEffect::Changed,
                    None => ApplyEffect::Added,
                };
                (editor.write_resource(document)?, effect)
            }
        };
        done.push(AppliedResource { key, file, effect });
    }
    Ok(done)
}
