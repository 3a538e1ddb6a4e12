//! Locks: one daemon for the directories, one writer for a namespace's input.

use super::{
    Layout, NamespaceDir, StoreError,
    files::{PRIVATE, make_dirs, read_text},
    format,
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Takes a lock on a file, which is made when it is missing; held until the result is dropped.
/// `wait`: until it is free; else one that is held is an error of kind `WouldBlock`.
pub fn lock(path: &Path, wait: bool) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        make_dirs(dir)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
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

/// The right to be the daemon of a layout; it ends when this is dropped, or with the process.
#[derive(Debug)]
pub struct Instance {
    _lock: File,
}

impl Layout {
    /// Lock of the one daemon.
    pub fn instance_lock(&self) -> PathBuf {
        self.state().join("instance.lock")
    }

    /// Process of the daemon of these directories, as far as can be seen.
    pub fn holder(&self) -> Option<u32> {
        let pid: u32 = read_text(&self.instance_lock()).ok()?.trim().parse().ok()?;
        // The file stays when its writer has gone, and the number may be another's by now.
        let name = read_text(Path::new(&format!("/proc/{pid}/comm"))).ok()?;
        (name.trim() == "skupperd").then_some(pid)
    }

    /// Becomes the one daemon of these directories. State that a later version has written is not
    /// touched.
    pub fn claim(&self) -> Result<Instance, StoreError> {
        let path = self.instance_lock();
        let mut file = match lock(&path, false) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                // Who holds it is a help, and no more.
                let pid = read_text(&path)
                    .ok()
                    .and_then(|text| text.trim().parse::<u32>().ok());
                let holder =
                    pid.map_or("process unknown".to_owned(), |pid| format!("process {pid}"));
                return Err(StoreError::Busy { path, holder });
            }
            Err(e) => return Err(StoreError::io("locking", &path)(e)),
        };
        format::check(self)?;
        let written = file.set_len(0).and_then(|()| file.rewind());
        written
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(StoreError::io("writing", &path))?;
        format::write(self)?;
        Ok(Instance { _lock: file })
    }
}

impl NamespaceDir {
    /// Waits until no other writer has the namespace, and takes it. It is free again when the file
    /// is dropped.
    pub(super) fn lock(&self) -> Result<File, StoreError> {
        let path = self.internal().join("lock");
        lock(&path, true).map_err(StoreError::io("locking", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r6_one_daemon_for_one_layout() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::root(root.path());
        let first = layout.claim().unwrap();
        let error = layout.claim().unwrap_err();
        let expected = format!(
            "another skupperd runs already on {} (process {})",
            layout.instance_lock().display(),
            std::process::id()
        );
        assert_eq!(error.to_string(), expected);
        drop(first);
        drop(layout.claim().unwrap());
        let other = tempfile::tempdir().unwrap();
        let _one = layout.claim().unwrap();
        let _two = Layout::root(other.path()).claim().unwrap();
    }
}
