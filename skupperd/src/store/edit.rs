//! Changes the manifests of a namespace, one document at a time.
//!
//! The command, the D-Bus interface and the redemption of tokens change input only through an
//! [`Editor`]. It replaces a document where it is, leaves every other byte of that file, and writes
//! nothing that would be invalid when read. People who edit files by hand hold no lock: their changes
//! since the files were read are seen before each write.

use super::{
    NamespaceDir, PRIVATE, SHARED, StoreError,
    files::{self, DirHandle, TEMPORARY, remove_file, write_file},
    load::NamespaceResources,
    walk,
};
use crate::{
    manifest::{LocatedResource, ManifestError, parse, validate_set},
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

/// The lock on a namespace's manifests, and their content.
#[derive(Debug)]
pub struct Editor {
    namespace: NamespaceDir,
    /// In order of path, as they were read or written last.
    manifests: BTreeMap<PathBuf, Manifest>,
    _lock: File,
}

impl NamespaceDir {
    /// Waits until no other writer has the namespace, and reads its manifests.
    pub fn edit(&self) -> Result<Editor, StoreError> {
        let lock = self.lock()?;
        // Temporary files of writers that were killed; no other writer has any under the lock.
        remove_temporary_files(&self.input_resources())?;
        let manifests = read_all(self)?;
        Ok(Editor {
            namespace: self.clone(),
            manifests,
            _lock: lock,
        })
    }
}

#[derive(Debug)]
struct Manifest {
    path: PathBuf,
    bytes: Vec<u8>,
    documents: Vec<Result<LocatedResource, ManifestError>>,
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

    /// Every document is the resource, or an invalid version of it.
    fn is_only(&self, key: &Key) -> bool {
        !self.documents.is_empty()
            && self.documents.iter().all(|document| match document {
                Ok(located) => located.key() == *key,
                Err(error) => error.key().as_ref() == Some(key),
            })
    }

    fn good(&self) -> impl Iterator<Item = &LocatedResource> {
        self.documents.iter().filter_map(|d| d.as_ref().ok())
    }
}

impl Editor {
    /// Reads the manifests as they are now.
    pub fn load(&self) -> Result<NamespaceResources, StoreError> {
        self.namespace.load()
    }

    /// The valid resources, as they were read or written last.
    pub fn resources(&self) -> impl Iterator<Item = &LocatedResource> {
        self.manifests.values().flat_map(Manifest::good)
    }

    /// Conflicts that these resources would have with each other and with those of the namespace.
    pub fn conflicts(&self, new: &[LocatedResource]) -> Result<Vec<ManifestError>, StoreError> {
        let mut all = self.load()?.resources;
        all.retain(|old| !new.iter().any(|new| new.key() == old.key()));
        all.extend(new.iter().cloned());
        Ok(validate_set(all).1)
    }

    /// Writes the document of a resource: in place of its old one, with all other bytes of that file
    /// unchanged, or else to a file of its own, `<Kind>-<name>.yaml`. Returns the file. An invalid
    /// document is an error.
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
        if let Some((manifest, range)) = holder.and_then(|m| Some((m, replaceable_range(m, &key)?)))
        {
            let bytes = replace(&manifest.bytes, range, body);
            let (path, secret) = (
                manifest.path.clone(),
                is_confidential(manifest, Some(key.kind)),
            );
            self.write(&path, bytes, secret)?;
            return Ok(path);
        }
        let own = self.namespace.resource_file(&key);
        let beside = self.manifests.get(&own).filter(|m| !m.is_only(&key));
        let bytes = match beside.filter(|m| !m.bytes.trim_ascii().is_empty()) {
            // The file of that name has other resources.
            Some(others) => append(&others.bytes, body),
            None => fresh(body),
        };
        let secret = beside.map_or(key.kind.is_confidential(), |others| {
            is_confidential(others, Some(key.kind))
        });
        let old = holder
            .map(|holder| holder.path.clone())
            .filter(|old| *old != own);
        // Written before the old one is removed: a crash in between leaves it twice.
        self.write(&own, bytes, secret)?;
        if let Some(old) = old {
            self.remove_from(&old, &key)?;
        }
        Ok(own)
    }

    /// Removes a resource from the files that it is in, with all other bytes unchanged; a file that has no
    /// other documents is removed, also if it has only an invalid version of the resource. Returns the
    /// files that were changed: none if there is no such resource.
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

    /// People who edit by hand hold no lock: their changes must not be undone.
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
        // From the end, so that the spans before it stay right.
        for span in spans.into_iter().rev() {
            bytes.drain(span);
        }
        if !manifest.is_only(key) && !parse(path, &bytes, None).is_empty() {
            let secret = is_confidential(manifest, None);
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
            Err(e) if is_unreadable(&path, &e) => {}
            Err(e) => return Err(StoreError::io("reading", &path)(e)),
        }
    }
    Ok(manifests)
}

/// A link to nothing, to itself or of others, no regular file, or removed meanwhile: it holds no resource.
fn is_unreadable(path: &Path, error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, NotFound};
    matches!(error.kind(), NotFound | InvalidInput) || (path.is_symlink() && !path.exists())
}

fn remove_temporary_files(dir: &Path) -> Result<(), StoreError> {
    let handle = match DirHandle::open(dir) {
        Ok(handle) => handle,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(StoreError::io("reading directory", dir)(e)),
    };
    let entries = fs::read_dir(handle.path()).map_err(StoreError::io("reading directory", dir))?;
    for entry in entries {
        let entry = entry.map_err(StoreError::io("reading directory", dir))?;
        let name = entry.file_name();
        if name
            .to_str()
            .is_some_and(|name| name.starts_with(TEMPORARY))
        {
            let path = dir.join(name);
            fs::remove_file(entry.path()).map_err(StoreError::io("removing", &path))?;
        }
    }
    Ok(())
}

/// Whether a file has secrets, once a resource of kind `added` is in it.
fn is_confidential(manifest: &Manifest, added: Option<Kind>) -> bool {
    let mut kinds = manifest.documents.iter().map(|document| match document {
        Ok(located) => Some(located.resource.kind()),
        // An invalid document may have any content.
        Err(error) => error.kind.as_deref().and_then(Kind::parse),
    });
    added.is_some_and(Kind::is_confidential)
        || kinds.any(|kind| kind.is_none_or(Kind::is_confidential))
}

/// Bytes of the resource's document; `None` if it cannot be replaced in place.
fn replaceable_range(manifest: &Manifest, key: &Key) -> Option<Range<usize>> {
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

fn end_line(bytes: &mut Vec<u8>) {
    if !bytes.is_empty() && !bytes.ends_with(b"\n") {
        bytes.push(b'\n');
    }
}

/// A document, which begins on a line of its own unless it is the first.
fn body_lines(body: &str, first: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 2);
    if !first && !body.starts_with(['\n', '\r']) {
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(body.as_bytes());
    end_line(&mut bytes);
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
    end_line(&mut new);
    new.extend_from_slice(b"---");
    new.extend(body_lines(body, false));
    new
}

fn fresh(body: &str) -> Vec<u8> {
    body_lines(body.trim_start_matches(['\n', '\r', '\u{feff}']), true)
}

#[cfg(test)]
mod tests;
