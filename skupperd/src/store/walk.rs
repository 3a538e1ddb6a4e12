//! Finds the manifests below a directory.

use super::{
    StoreError,
    files::DirHandle,
    writers::{ForeignPath, foreign},
};
use crate::sys::trusted_path::find;
use std::{
    collections::HashSet,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Most levels of directories below the input directory.
pub(super) const MAX_DEPTH: usize = 16;
/// Most manifests of one namespace.
const MAX_FILES: usize = 50_000;
const ENDINGS: [&str; 3] = [".yaml", ".yml", ".json"];

#[derive(Debug, Default)]
pub(super) struct ManifestFiles {
    /// Sorted by path.
    pub(super) files: Vec<PathBuf>,
    /// Directories that could not be read, and why.
    pub(super) failed: Vec<(PathBuf, String)>,
    /// A directory that others can write to.
    pub(super) foreign: Option<ForeignPath>,
}

/// Directories that were entered: symbolic links can lead back to one. Those above the first one are
/// never entered: everything on the host may be below them.
#[derive(Debug)]
pub(super) struct VisitedDirs {
    entered: HashSet<(u64, u64)>,
    above: HashSet<(u64, u64)>,
}

impl VisitedDirs {
    pub(super) fn below(top: &Path) -> Self {
        let top = top.canonicalize();
        let above = top.iter().flat_map(|top| top.ancestors().skip(1));
        let above = above.filter_map(|dir| Some(identity(&fs::metadata(dir).ok()?)));
        Self {
            entered: HashSet::new(),
            above: above.collect(),
        }
    }

    /// Whether it is above the first one.
    fn is_above(&self, directory: &Metadata) -> bool {
        self.above.contains(&identity(directory))
    }

    /// False if it was entered before, or must not be.
    pub(super) fn enter(&mut self, directory: &Metadata) -> bool {
        !self.is_above(directory) && self.entered.insert(identity(directory))
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Manifests below a directory; a missing directory has none.
pub(super) fn manifests(dir: &Path) -> Result<ManifestFiles, StoreError> {
    let mut found = ManifestFiles::default();
    let failed = || StoreError::io("reading directory", dir);
    match DirHandle::open(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(e) => return Err(failed()(e)),
        Ok(top) => {
            let mut visited = VisitedDirs::below(dir);
            visited.enter(&top.file().metadata().map_err(failed())?);
            collect((dir, &top), 0, &mut visited, &mut found).map_err(failed())?;
        }
    }
    found.files.sort();
    Ok(found)
}

fn collect(
    (dir, open): (&Path, &DirHandle),
    depth: usize,
    visited: &mut VisitedDirs,
    found: &mut ManifestFiles,
) -> io::Result<()> {
    if found.foreign.is_none() {
        found.foreign = foreign(dir, open.file());
    }
    for entry in fs::read_dir(open.path())? {
        let name = entry?.file_name();
        let path = dir.join(&name);
        let name = name.to_string_lossy();
        if is_ignored(&name) {
            continue;
        }
        let metadata = match find(&path).and_then(|file| file.metadata()) {
            Ok(metadata) => metadata,
            // A link to nothing or of others, which is reported when it is opened, or removed meanwhile.
            Err(_) if is_manifest(&name) => {
                found.files.push(path);
                continue;
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::InvalidInput {
                    found.failed.push((path, error.to_string()));
                }
                continue;
            }
        };
        if metadata.is_dir() {
            if visited.is_above(&metadata) {
                let reason = "a link to a directory above that of the manifests is not followed";
                found.failed.push((path, reason.to_owned()));
                continue;
            }
            if !visited.enter(&metadata) {
                continue;
            }
            let below = if depth < MAX_DEPTH {
                DirHandle::open(&path)
                    .and_then(|open| collect((&path, &open), depth + 1, visited, found))
            } else {
                Err(io::Error::other(format!(
                    "more than {MAX_DEPTH} directories deep"
                )))
            };
            if let Err(error) = below {
                // The directories beside it are read all the same.
                found.failed.push((path, error.to_string()));
            }
        } else if is_manifest(&name) {
            if found.files.len() >= MAX_FILES {
                return Err(io::Error::other(format!("more than {MAX_FILES} manifests")));
            }
            found.files.push(path);
        }
    }
    Ok(())
}

/// Hidden files, and temporary and backup files of editors.
pub(super) fn is_ignored(name: &str) -> bool {
    name.starts_with(['.', '#']) || name.ends_with('~')
}

pub(super) fn is_manifest(name: &str) -> bool {
    ENDINGS.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn found(root: &Path) -> Vec<String> {
        let files = manifests(root).unwrap().files;
        files
            .iter()
            .map(|f| f.strip_prefix(root).unwrap().display().to_string())
            .collect()
    }

    #[test]
    fn manifests_are_found_by_their_endings_and_temporary_files_are_not() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("sub/deep")).unwrap();
        fs::create_dir_all(root.path().join(".git")).unwrap();
        let files = [
            "b.yaml",
            "a.yml",
            "c.json",
            "sub/deep/d.yaml",
            ".hidden.yaml",
            "b.yaml~",
            "#b.yaml#",
            "#e.yaml",
            ".b.yaml.swp",
            "4913",
            "b.yaml.bak",
            "notes.txt",
            ".git/x.yaml",
        ];
        for file in files {
            fs::write(root.path().join(file), "").unwrap();
        }
        assert_eq!(
            found(root.path()),
            ["a.yml", "b.yaml", "c.json", "sub/deep/d.yaml"]
        );
        assert!(found(&root.path().join("missing")).is_empty());
    }

    #[test]
    fn links_are_followed_and_their_loops_end() {
        let root = tempfile::tempdir().unwrap();
        let (tree, outside) = (root.path().join("tree"), root.path().join("outside"));
        fs::create_dir_all(tree.join("sub")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("o.yaml"), "").unwrap();
        symlink(outside.join("o.yaml"), tree.join("link.yaml")).unwrap();
        symlink(&outside, tree.join("dir")).unwrap();
        symlink(&tree, tree.join("sub/up")).unwrap();
        symlink("self.yaml", tree.join("self.yaml")).unwrap();
        symlink("nowhere", tree.join("dangling.yaml")).unwrap();
        let names = found(&tree);
        assert_eq!(
            names,
            ["dangling.yaml", "dir/o.yaml", "link.yaml", "self.yaml"]
        );
    }

    #[test]
    fn a_link_to_a_directory_above_is_reported_and_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("namespace/resources");
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join("a.yaml"), "").unwrap();
        fs::write(root.path().join("b.yaml"), "").unwrap();
        for (link, target) in [("root", Path::new("/")), ("up", root.path())] {
            symlink(target, tree.join(link)).unwrap();
        }
        let found = manifests(&tree).unwrap();
        assert_eq!(found.files, [tree.join("a.yaml")]);
        let failed: Vec<&PathBuf> = found.failed.iter().map(|(path, _)| path).collect();
        assert_eq!(failed.len(), 2, "{failed:?}");
    }

    #[test]
    fn directories_that_are_too_deep_are_reported() {
        let root = tempfile::tempdir().unwrap();
        let mut deep = root.path().to_owned();
        for _ in 0..MAX_DEPTH + 2 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("x.yaml"), "").unwrap();
        fs::write(root.path().join("y.yaml"), "").unwrap();
        let found = manifests(root.path()).unwrap();
        assert_eq!((found.files.len(), found.failed.len()), (1, 1));
    }
}
