//! Finding manifests below a directory.

use super::StoreError;
use std::{
    collections::HashSet,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Depth of directories below the input directory.
pub(super) const MAX_DEPTH: usize = 16;
/// Manifests of one namespace.
const MAX_FILES: usize = 50_000;
/// How names of manifests end.
const ENDINGS: [&str; 3] = [".yaml", ".yml", ".json"];

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Manifests, sorted by path.
    pub(super) files: Vec<PathBuf>,
    /// Directories that could not be read, and why.
    pub(super) failed: Vec<(PathBuf, String)>,
}

/// Directories that were entered. Symbolic links make ways to come back to one.
#[derive(Debug, Default)]
pub(super) struct Visited(HashSet<(u64, u64)>);

impl Visited {
    /// False when it was entered before.
    pub(super) fn enter(&mut self, directory: &Metadata) -> bool {
        self.0.insert((directory.dev(), directory.ino()))
    }
}

/// Manifests below a directory; a missing directory has none.
pub(super) fn manifests(dir: &Path) -> Result<Found, StoreError> {
    let mut found = Found::default();
    match fs::metadata(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(e) => return Err(StoreError::io("reading directory", dir)(e)),
        Ok(top) => {
            let mut visited = Visited::default();
            visited.enter(&top);
            collect(dir, 0, &mut visited, &mut found)
                .map_err(StoreError::io("reading directory", dir))?;
        }
    }
    found.files.sort();
    Ok(found)
}

fn collect(dir: &Path, depth: usize, visited: &mut Visited, found: &mut Found) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .map(|n| n.to_string_lossy())
            .unwrap_or_default();
        if is_ignored(&name) {
            continue;
        }
        let Ok(metadata) = fs::metadata(&path) else {
            // A link to nothing, or gone since the directory was read: the first is told of when
            // it is opened.
            if is_manifest(&name) {
                found.files.push(path);
            }
            continue;
        };
        if metadata.is_dir() {
            if !visited.enter(&metadata) {
                continue;
            }
            let below = if depth < MAX_DEPTH {
                collect(&path, depth + 1, visited, found)
            } else {
                Err(io::Error::other(format!(
                    "more than {MAX_DEPTH} directories deep"
                )))
            };
            if let Err(error) = below {
                // One directory's trouble is its own.
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

/// Hidden files are ours and editors', and so are those with these marks.
pub(super) fn is_ignored(name: &str) -> bool {
    name.starts_with(['.', '#']) || name.ends_with('~')
}

/// The name is a manifest's.
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
    fn endings_directories_and_what_editors_leave() {
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
    fn links_are_followed_and_loops_end() {
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
    fn too_deep_is_told() {
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
