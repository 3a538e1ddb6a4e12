//! Reads the resources of a namespace.
//!
//! A [`Loader`] belongs to one namespace of the reconciler and is asked again after every change. An
//! invalid document costs only itself, and a resource that was valid before stays as it was until its
//! document is valid again or gone.

use super::{
    ForeignPath, NamespaceDir, StoreError, files,
    walk::{self, ManifestFiles},
    writers,
};
use crate::{
    manifest::{LocatedResource, ManifestError, parse, validate_change, validate_set},
    model::{Key, Namespace},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::Metadata,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// A file may change again within this time without a change of its timestamps, which are coarse.
const SETTLED: Duration = Duration::from_secs(2);

/// A file that is written in place is taken for complete after this time without a change. Until then
/// documents that it has lost may still be on their way: a shell truncates before it writes, and a full
/// disk or a slow connection lets a long time pass in between.
const WRITTEN: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Default)]
pub struct NamespaceResources {
    /// Valid ones in order of file and line, then those that are stale.
    pub resources: Vec<LocatedResource>,
    /// In order of file and line.
    pub errors: Vec<ManifestError>,
    /// Resources whose current document is invalid, and of which the last valid version stays.
    pub stale: BTreeMap<Key, ManifestError>,
    /// Set when others than root and this process' user and group run the namespace.
    pub foreign: Option<ForeignPath>,
}

impl NamespaceDir {
    /// Reads every manifest.
    pub fn load(&self) -> Result<NamespaceResources, StoreError> {
        Loader::new(self.clone()).load()
    }
}

type FileDocuments = Arc<Vec<Result<LocatedResource, ManifestError>>>;

/// Reads the manifests of a namespace repeatedly; files that have not changed are not read again.
#[derive(Debug)]
pub struct Loader {
    namespace: NamespaceDir,
    files: HashMap<PathBuf, KnownFile>,
    good: Vec<LocatedResource>,
}

/// A file as it was read last.
#[derive(Clone, Debug)]
struct KnownFile {
    signature: FileSignature,
    documents: FileDocuments,
    /// When it was first seen like this.
    since: Instant,
    /// Some of `documents` are no longer in the file, which may not be complete.
    incomplete: bool,
}

/// Metadata that changes when a file does.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FileSignature {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
    modified: (i64, i64),
    settled: bool,
}

impl FileSignature {
    fn of(metadata: &Metadata) -> Self {
        let seconds = u64::try_from(metadata.ctime()).unwrap_or_default();
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let age = SystemTime::now()
            .duration_since(changed)
            .unwrap_or_default();
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            settled: age > SETTLED,
        }
    }

    fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether all that the file system says of two states of a file is the same.
    fn is_of_same_content(&self, other: &Self) -> bool {
        let settled = other.settled;
        Self {
            settled,
            ..self.clone()
        } == *other
    }
}

impl Loader {
    pub fn new(namespace: NamespaceDir) -> Self {
        Self {
            namespace,
            files: HashMap::new(),
            good: Vec::new(),
        }
    }

    /// Reads the files that have changed, and returns all resources.
    ///
    /// A resource that was valid and is invalid now is stale: its last valid version stays among the
    /// resources. If an invalid document does not tell which resource it is, all resources that were in
    /// its file are stale.
    pub fn load(&mut self) -> Result<NamespaceResources, StoreError> {
        let ManifestFiles {
            files,
            failed,
            foreign,
        } = walk::manifests(&self.namespace.input_resources())?;
        let mut foreign = self.namespace.foreign_directory().or(foreign);
        let mut known = std::mem::take(&mut self.files);
        let (mut resources, mut errors) = (Vec::new(), Vec::new());
        for (dir, reason) in failed {
            errors.push(ManifestError::of_file(&Arc::from(dir), reason));
        }
        for file in files {
            let entry = known.remove(&file);
            let Some(read) = read(&file, self.namespace.name(), entry, &mut foreign) else {
                continue;
            };
            for document in read.documents.iter() {
                match document {
                    Ok(located) => resources.push(located.clone()),
                    Err(error) => errors.push(error.clone()),
                }
            }
            self.files.insert(file, read);
        }
        let (resources, immutable) = validate_change(&self.good, resources);
        errors.extend(immutable);
        let (good, conflicts) = validate_set(resources);
        errors.extend(conflicts);
        let loaded = NamespaceResources {
            foreign,
            ..hold_previous(&self.good, good, errors)
        };
        self.good.clone_from(&loaded.resources);
        Ok(loaded)
    }

    /// Whether a file may still be being written: it has to be read again within seconds.
    pub fn awaits_writers(&self) -> bool {
        self.files.values().any(|file| file.incomplete)
    }
}

/// The documents of a file; `None` if it is gone. `known` is what was read of it before. `foreign` becomes
/// the file when others can write to it.
fn read(
    path: &Path,
    namespace: &Namespace,
    known: Option<KnownFile>,
    foreign: &mut Option<ForeignPath>,
) -> Option<KnownFile> {
    let failed = |error: io::Error| {
        let error = ManifestError::of_file(&Arc::from(path), error.to_string());
        Arc::new(vec![Err(error)])
    };
    let never = FileSignature {
        device: 0,
        inode: 0,
        size: 0,
        changed: (0, 0),
        modified: (0, 0),
        settled: false,
    };
    let (file, metadata) = match files::open(path) {
        Ok(opened) => opened,
        // Removed meanwhile. A link to nothing exists, and is reported.
        Err(e) if e.kind() == io::ErrorKind::NotFound && !path.is_symlink() => return None,
        Err(e) => {
            return Some(KnownFile {
                signature: never,
                documents: failed(e),
                since: Instant::now(),
                incomplete: false,
            });
        }
    };
    if foreign.is_none() {
        *foreign = writers::foreign(path, &file);
    }
    let signature = FileSignature::of(&metadata);
    let mut since = Instant::now();
    if let Some(before) = &known
        && signature.is_of_same_content(&before.signature)
    {
        if before.signature.settled && !before.incomplete {
            return known;
        }
        since = before.since;
    }
    let documents = match files::read(file) {
        Ok(bytes) => Arc::new(parse(path, &bytes, Some(namespace))),
        Err(e) => failed(e),
    };
    let mut read = KnownFile {
        signature,
        documents,
        since,
        incomplete: false,
    };
    if let Some(before) = known {
        read.keep_lost(&before);
    }
    Some(read)
}

impl KnownFile {
    /// Keeps the resources of the file as it was before that it has lost, if it may not be complete. A
    /// file that has taken the place of another is complete.
    fn keep_lost(&mut self, before: &Self) {
        if !self.signature.is_same_file(&before.signature) || self.since.elapsed() >= WRITTEN {
            return;
        }
        // Errors keep resources by their own rules.
        if self.documents.iter().any(Result::is_err) {
            return;
        }
        let keys = |documents: &FileDocuments| -> BTreeSet<Key> {
            documents
                .iter()
                .flatten()
                .map(LocatedResource::key)
                .collect()
        };
        let present = keys(&self.documents);
        let lost = before.documents.iter().flatten();
        let lost: Vec<_> = lost.filter(|old| !present.contains(&old.key())).collect();
        if !lost.is_empty() {
            let lost = lost.into_iter().cloned().map(Ok);
            let documents = self.documents.iter().cloned().chain(lost).collect();
            self.documents = Arc::new(documents);
            self.incomplete = true;
        }
    }
}

fn hold_previous(
    before: &[LocatedResource],
    good: Vec<LocatedResource>,
    mut errors: Vec<ManifestError>,
) -> NamespaceResources {
    errors.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    let present: BTreeSet<Key> = good.iter().map(LocatedResource::key).collect();
    let mut stale = BTreeMap::new();
    let mut all = good;
    for old in before.iter().filter(|old| !present.contains(&old.key())) {
        let key = old.key();
        let refused = errors.iter().find(|error| match error.key() {
            Some(refused) => refused == key,
            // A document of another API was no resource before either.
            None => error.file == old.file && !error.is_other_api,
        });
        if let Some(error) = refused {
            stale.insert(key, error.clone());
            all.push(old.clone());
        }
    }
    if stale.is_empty() {
        return NamespaceResources {
            resources: all,
            errors,
            stale,
            foreign: None,
        };
    }
    // A resource that has taken the address meanwhile keeps it: then the old version cannot stay.
    let (resources, _) = validate_set(all);
    stale.retain(|key, _| resources.iter().any(|l| l.key() == *key));
    NamespaceResources {
        resources,
        errors,
        stale,
        foreign: None,
    }
}

#[cfg(test)]
mod tests;
