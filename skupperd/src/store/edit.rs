//! Changing the manifests of a namespace.

use super::{
    NamespaceDir, PRIVATE, SHARED, StoreError,
    files::{self, TEMPORARY, remove_file, write_file},
    load::Loaded,
    walk,
};
use crate::{
    manifest::{Located, ManifestError, parse, validate_set},
    model::{Key, Kind},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The right to change a namespace's manifests. Writers take turns: whoever has it sees what the one
/// before has done.
#[derive(Debug)]
pub struct Editor {
    namespace: NamespaceDir,
    /// All manifests, in order, as they were when this began and as it has changed them.
    manifests: BTreeMap<PathBuf, Manifest>,
    _lock: File,
}

impl NamespaceDir {
    /// Waits for the right to change the manifests, and reads them.
    pub fn edit(&self) -> Result<Editor, StoreError> {
        let lock = self.lock()?;
        // What writers left that died; nobody else writes now.
        sweep(&self.input_resources())?;
        let manifests = read_all(self)?;
        Ok(Editor {
            namespace: self.clone(),
            manifests,
            _lock: lock,
        })
    }
}

/// A file and its documents.
#[derive(Debug)]
struct Manifest {
    path: PathBuf,
    bytes: Vec<u8>,
    documents: Vec<Result<Located, ManifestError>>,
}

impl Manifest {
    fn new(namespace: &NamespaceDir, path: PathBuf, bytes: Vec<u8>) -> Self {
        let documents = parse(&path, &bytes, Some(namespace.name()));
        Self {
            path,
            bytes,
            documents,
        }
    }

    fn has(&self, key: &Key) -> bool {
        self.good().any(|l| l.key() == *key)
    }

    /// Every document is the resource, or a form of it that is refused.
    fn is_only(&self, key: &Key) -> bool {
        !self.documents.is_empty()
            && self.documents.iter().all(|document| match document {
                Ok(located) => located.key() == *key,
                Err(error) => error.key().as_ref() == Some(key),
            })
    }

    fn good(&self) -> impl Iterator<Item = &Located> {
        self.documents.iter().filter_map(|d| d.as_ref().ok())
    }
}

impl Editor {
    /// Reads the manifests as they are now.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        self.namespace.load()
    }

    /// What would be wrong with the namespace if these resources were written: conflicts with others
    /// there and with each other.
    pub fn conflicts(&self, new: &[Located]) -> Result<Vec<ManifestError>, StoreError> {
        let mut all = self.load()?.resources;
        all.retain(|old| !new.iter().any(|new| new.key() == old.key()));
        all.extend(new.iter().cloned());
        Ok(validate_set(all).1)
    }

    /// Writes a resource, given as its document. Where it is already in some file, its document there
    /// is replaced and others in that file stay to the byte; otherwise it gets a file of its own,
    /// `<Kind>-<name>.yaml`. Gives the file.
    ///
    /// What would be refused when read is not written.
    pub fn write_resource(&mut self, document: &str) -> Result<PathBuf, StoreError> {
        let mut parsed = parse(
            Path::new("-"),
            document.as_bytes(),
            Some(self.namespace.name()),
        );
        let resource = match (parsed.pop(), parsed.len()) {
            (Some(Ok(located)), 0) => located,
            (Some(Err(error)), 0) => return Err(StoreError::Refused(Box::new(error))),
            (last, before) => return Err(StoreError::NotOne(before + usize::from(last.is_some()))),
        };
        let key = resource.key();
        let body = document.get(resource.body.clone()).unwrap_or(document);
        self.read_again_if_changed(&key)?;
        let holder = self.manifests.values().find(|manifest| manifest.has(&key));
        if let Some((manifest, range)) = holder.and_then(|m| Some((m, replaceable(m, &key)?))) {
            let bytes = replace(&manifest.bytes, range, body);
            let (path, secret) = (
                manifest.path.clone(),
                confidential(manifest, Some(key.kind)),
            );
            self.write(&path, bytes, secret)?;
            return Ok(path);
        }
        let own = self.namespace.resource_file(&key);
        let beside = self.manifests.get(&own).filter(|m| !m.is_only(&key));
        let bytes = match beside.filter(|m| !m.bytes.trim_ascii().is_empty()) {
            // Somebody keeps others in the file of that name: they stay.
            Some(others) => append(&others.bytes, body),
            None => fresh(body),
        };
        let secret = beside.map_or(key.kind.is_confidential(), |others| {
            confidential(others, Some(key.kind))
        });
        let old = holder
            .map(|holder| holder.path.clone())
            .filter(|old| *old != own);
        // The new before the old goes: who dies in between leaves it there twice.
        self.write(&own, bytes, secret)?;
        if let Some(old) = old {
            self.remove_from(&old, &key)?;
        }
        Ok(own)
    }

    /// Removes a resource from whatever file it is in; other documents of that file stay to the byte,
    /// and a file without any is removed. Gives the files that were changed: none when there is no
    /// such resource.
    ///
    /// A file that holds nothing but a refused form of the resource is removed too.
    pub fn remove_resource(&mut self, key: &Key) -> Result<Vec<PathBuf>, StoreError> {
        self.read_again_if_changed(key)?;
        let holders = self
            .manifests
            .values()
            .filter(|m| m.has(key) || m.is_only(key));
        let paths: Vec<PathBuf> = holders.map(|manifest| manifest.path.clone()).collect();
        for path in &paths {
            self.remove_from(path, key)?;
        }
        Ok(paths)
    }

    /// People who edit by hand take no turns: what they have changed meanwhile is not undone.
    fn read_again_if_changed(&mut self, key: &Key) -> Result<(), StoreError> {
        let own = self.namespace.resource_file(key);
        let mut concerned = self
            .manifests
            .values()
            .filter(|m| m.has(key) || m.path == own);
        let changed = concerned.any(|m| read(&m.path).ok().as_ref() != Some(&m.bytes));
        if changed || (own.exists() && !self.manifests.contains_key(&own)) {
            self.manifests = read_all(&self.namespace)?;
        }
        Ok(())
    }

    fn write(&mut self, path: &Path, bytes: Vec<u8>, secret: bool) -> Result<(), StoreError> {
        let old = fs::symlink_metadata(path)
            .ok()
            .filter(fs::Metadata::is_file);
        let mode = match old {
            _ if secret => PRIVATE,
            Some(old) => old.permissions().mode() & 0o777,
            None => SHARED,
        };
        write_file(path, &bytes, mode).map_err(StoreError::io("writing", path))?;
        let manifest = Manifest::new(&self.namespace, path.to_owned(), bytes);
        self.manifests.insert(path.to_owned(), manifest);
        Ok(())
    }

    /// Takes the documents of a resource out of a file.
    fn remove_from(&mut self, path: &Path, key: &Key) -> Result<(), StoreError> {
        let Some(manifest) = self.manifests.get(path) else {
            return Ok(());
        };
        let mut bytes = manifest.bytes.clone();
        let spans: Vec<Range<usize>> = manifest
            .good()
            .filter(|l| l.key() == *key)
            .map(|l| l.span.clone())
            .collect();
        // From the end: what comes before keeps its place.
        for span in spans.into_iter().rev() {
            bytes.drain(span);
        }
        if !manifest.is_only(key) && !parse(path, &bytes, None).is_empty() {
            let secret = confidential(manifest, None);
            return self.write(path, bytes, secret);
        }
        remove_file(path).map_err(StoreError::io("removing", path))?;
        self.manifests.remove(path);
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    files::open(path).and_then(|(file, _)| files::read(file))
}

fn read_all(namespace: &NamespaceDir) -> Result<BTreeMap<PathBuf, Manifest>, StoreError> {
    let mut manifests = BTreeMap::new();
    for path in walk::manifests(&namespace.input_resources())?.files {
        match read(&path) {
            Ok(bytes) => {
                manifests.insert(path.clone(), Manifest::new(namespace, path, bytes));
            }
            // What can not be read can not be what is looked for.
            Err(e) if is_unreadable(&path, &e) => {}
            Err(e) => return Err(StoreError::io("reading", &path)(e)),
        }
    }
    Ok(manifests)
}

/// A link to nothing or to itself, what is no plain file, or gone since the directory was read.
fn is_unreadable(path: &Path, error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, NotFound};
    matches!(error.kind(), NotFound | InvalidInput) || (path.is_symlink() && !path.exists())
}

fn sweep(dir: &Path) -> Result<(), StoreError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(StoreError::io("reading directory", dir)(e)),
    };
    for entry in entries {
        let path = entry
            .map_err(StoreError::io("reading directory", dir))?
            .path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        if name.starts_with(TEMPORARY) {
            remove_file(&path).map_err(StoreError::io("removing", &path))?;
        }
    }
    Ok(())
}

/// A file with something secret in it, after `added` was.
fn confidential(manifest: &Manifest, added: Option<Kind>) -> bool {
    let mut kinds = manifest.documents.iter().map(|document| match document {
        Ok(located) => Some(located.resource.kind()),
        // What is refused may hold anything.
        Err(error) => error.kind.as_deref().and_then(Kind::parse),
    });
    added.is_some_and(Kind::is_confidential)
        || kinds.any(|kind| kind.is_none_or(Kind::is_confidential))
}

/// Bytes of the resource's document, where another text can take their place.
fn replaceable(manifest: &Manifest, key: &Key) -> Option<Range<usize>> {
    if manifest.path.extension().is_some_and(|end| end == "json") {
        return None;
    }
    let body = manifest.good().find(|l| l.key() == *key)?.body.clone();
    let rest = manifest.bytes.get(body.end..)?;
    let separated = rest.is_empty() || rest.starts_with(b"---") || rest.starts_with(b"...");
    let before = manifest.bytes.get(..body.start)?;
    let begins = before.is_empty() || before.ends_with(b"\n---") || before == b"---";
    (separated && begins).then_some(body)
}

fn line_end(bytes: &mut Vec<u8>) {
    if !bytes.is_empty() && !bytes.ends_with(b"\n") {
        bytes.push(b'\n');
    }
}

/// A document that begins on a line of its own, when something is before it.
fn body_lines(body: &str, first: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 2);
    if !first && !body.starts_with(['\n', '\r']) {
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(body.as_bytes());
    line_end(&mut bytes);
    bytes
}

fn replace(bytes: &[u8], range: Range<usize>, body: &str) -> Vec<u8> {
    let (before, after) = (bytes.get(..range.start), bytes.get(range.end..));
    let mut new = before.unwrap_or_default().to_vec();
    new.extend(if new.is_empty() {
        fresh(body)
    } else {
        body_lines(body, false)
    });
    new.extend_from_slice(after.unwrap_or_default());
    new
}

fn append(bytes: &[u8], body: &str) -> Vec<u8> {
    let mut new = bytes.to_vec();
    line_end(&mut new);
    new.extend_from_slice(b"---");
    new.extend(body_lines(body, false));
    new
}

fn fresh(body: &str) -> Vec<u8> {
    body_lines(body.trim_start_matches(['\n', '\r', '\u{feff}']), true)
}

#[cfg(test)]
mod tests;
