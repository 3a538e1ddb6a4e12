//! Single files.

use super::StoreError;
use crate::manifest::MAX_SIZE;
use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Mode of files with a private key.
pub const PRIVATE: u32 = 0o600;
/// Mode of other files.
pub const SHARED: u32 = 0o640;
/// Mode of directories we make.
const DIRECTORY: u32 = 0o700;
/// Directories below the input directory: enough for any order, an end for any loop of links.
const MAX_DEPTH: usize = 8;

/// Writes a file as a whole: to a file beside it, to disk, then over the old one.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY)
        .create(dir)?;
    let mut file = tempfile::Builder::new()
        .prefix(".skupper-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    // The umask may have taken bits away, and must not have left any.
    file.as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    file.persist(path).map_err(|e| e.error)?;
    File::open(dir)?.sync_all()
}

/// Removes a file and has that on disk.
pub fn remove_file(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Reads a text file of bounded size.
pub fn read_text(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(io::Error::other(format!(
            "file is larger than {MAX_SIZE} bytes"
        )));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("file is not UTF-8"))
}

/// Manifests below a directory, sorted by path. A missing directory has none.
pub(super) fn manifests(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut found = Vec::new();
    collect(dir, MAX_DEPTH, &mut found)?;
    found.sort();
    Ok(found)
}

fn collect(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), StoreError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(StoreError::new("reading directory", dir)(e)),
    };
    for entry in entries {
        let path = entry
            .map_err(StoreError::new("reading directory", dir))?
            .path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        // Hidden files and backups are editors' and ours.
        if name.starts_with('.') || name.ends_with('~') {
            continue;
        }
        if path.is_dir() {
            if depth > 0 {
                collect(&path, depth - 1, found)?;
            }
        } else if [".yaml", ".yml", ".json"]
            .iter()
            .any(|end| name.ends_with(end))
        {
            found.push(path);
        }
    }
    Ok(())
}

/// Takes a lock on a file; held until the result is dropped. `wait`: until it is free.
pub fn lock(path: &Path, wait: bool) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY)
            .create(dir)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(PRIVATE)
        .open(path)?;
    if wait {
        file.lock()?;
    } else {
        file.try_lock().map_err(io::Error::from)?;
    }
    Ok(file)
}
