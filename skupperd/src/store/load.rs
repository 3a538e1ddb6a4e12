//! Reading the resources of a namespace.

use super::{
    NamespaceDir, StoreError, files,
    walk::{self, Found},
};
use crate::{
    manifest::{Located, ManifestError, parse, validate_change, validate_set},
    model::{Key, Namespace},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::Metadata,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

/// A file that changed this long ago or less may change again without its times telling: clocks of
/// file systems are coarse.
const SETTLED: Duration = Duration::from_secs(2);

/// The resources of a namespace.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Good ones, in order of file and line; then those that are held.
    pub resources: Vec<Located>,
    /// What is wrong with others, in order of file and line.
    pub errors: Vec<ManifestError>,
    /// Resources whose present form is refused, and which stay as they last were.
    pub held: BTreeMap<Key, ManifestError>,
}

impl NamespaceDir {
    /// Reads every manifest. Of what is wrong only itself is missing from the result.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        Loader::new(self.clone()).load()
    }
}

type Documents = Arc<Vec<Result<Located, ManifestError>>>;

/// Reads the manifests of a namespace again and again: files that have not changed are not read
/// again, and a resource that has become bad stays as it last was.
#[derive(Debug)]
pub struct Loader {
    namespace: NamespaceDir,
    files: HashMap<PathBuf, (Signature, Documents)>,
    good: Vec<Located>,
}

/// What changes when a file does.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Signature {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
    modified: (i64, i64),
    settled: bool,
}

impl Signature {
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
}

impl Loader {
    /// A loader that has read nothing yet.
    pub fn new(namespace: NamespaceDir) -> Self {
        Self {
            namespace,
            files: HashMap::new(),
            good: Vec::new(),
        }
    }

    /// Reads what has changed.
    ///
    /// A resource that was good and is refused now is held: it is among the resources as it was,
    /// until it is good again or gone. Where the refused document does not tell which resource it
    /// is, all that were in its file are held.
    pub fn load(&mut self) -> Result<Loaded, StoreError> {
        let Found { files, failed } = walk::manifests(&self.namespace.input_resources())?;
        let mut known = std::mem::take(&mut self.files);
        let (mut resources, mut errors) = (Vec::new(), Vec::new());
        for (dir, reason) in failed {
            errors.push(ManifestError::of_file(&Arc::from(dir), reason));
        }
        for file in files {
            let entry = known.remove(&file);
            let Some((signature, documents)) = read(&file, self.namespace.name(), entry) else {
                continue;
            };
            for document in documents.iter() {
                match document {
                    Ok(located) => resources.push(located.clone()),
                    Err(error) => errors.push(error.clone()),
                }
            }
            self.files.insert(file, (signature, documents));
        }
        let (resources, immutable) = validate_change(&self.good, resources);
        errors.extend(immutable);
        let (good, conflicts) = validate_set(resources);
        errors.extend(conflicts);
        let loaded = hold(&self.good, good, errors);
        self.good.clone_from(&loaded.resources);
        Ok(loaded)
    }
}

/// The documents of a file; none when it is gone. `known`: how it was.
fn read(
    path: &Path,
    namespace: &Namespace,
    known: Option<(Signature, Documents)>,
) -> Option<(Signature, Documents)> {
    let failed = |error: io::Error| {
        let error = ManifestError::of_file(&Arc::from(path), error.to_string());
        Arc::new(vec![Err(error)])
    };
    let never = Signature {
        device: 0,
        inode: 0,
        size: 0,
        changed: (0, 0),
        modified: (0, 0),
        settled: false,
    };
    let (file, metadata) = match files::open(path) {
        Ok(opened) => opened,
        // Removed since the directory was read. A link to nothing is there, and told of.
        Err(e) if e.kind() == io::ErrorKind::NotFound && !path.is_symlink() => return None,
        Err(e) => return Some((never, failed(e))),
    };
    let signature = Signature::of(&metadata);
    if let Some((before, documents)) = known {
        let same = Signature {
            settled: before.settled,
            ..signature.clone()
        } == before;
        if before.settled && same {
            return Some((before, documents));
        }
    }
    let documents = match files::read(file) {
        Ok(bytes) => Arc::new(parse(path, &bytes, Some(namespace))),
        Err(e) => failed(e),
    };
    Some((signature, documents))
}

fn hold(before: &[Located], good: Vec<Located>, mut errors: Vec<ManifestError>) -> Loaded {
    errors.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    let present: BTreeSet<Key> = good.iter().map(Located::key).collect();
    let mut held = BTreeMap::new();
    let mut all = good;
    for old in before.iter().filter(|old| !present.contains(&old.key())) {
        let key = old.key();
        let refused = errors.iter().find(|error| match error.key() {
            Some(refused) => refused == key,
            None => error.file == old.file,
        });
        if let Some(error) = refused {
            held.insert(key, error.clone());
            all.push(old.clone());
        }
    }
    if held.is_empty() {
        return Loaded {
            resources: all,
            errors,
            held,
        };
    }
    // What took an address in the meantime keeps it: then the old form can not stay.
    let (resources, _) = validate_set(all);
    held.retain(|key, _| resources.iter().any(|l| l.key() == *key));
    Loaded {
        resources,
        errors,
        held,
    }
}

#[cfg(test)]
mod tests;
