//! Locks: one daemon for a layout, one writer for a namespace's input.

use super::{
    Layout, NamespaceDir, StoreError,
    files::{PRIVATE, make_dirs, read_text, split},
    format,
};
use crate::sys::trusted_path::O_NOFOLLOW;
use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Locks a file, which is made if it is missing, until the result is dropped. If another process holds
/// the lock, this waits, or without `wait` fails with `WouldBlock`.
pub fn lock(path: &Path, wait: bool) -> io::Result<File> {
    let opened = OpenLock::open(path)?;
    opened.lock(wait)?;
    Ok(opened.file)
}

struct OpenLock {
    file: File,
    is_writable: bool,
}

impl OpenLock {
    /// Opens a lock file. On a disk that cannot be written that is the file as it is, or its directory if
    /// it is missing.
    fn open(path: &Path) -> io::Result<Self> {
        let (dir, name) = split(path)?;
        let dir = make_dirs(dir)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(PRIVATE)
            .custom_flags(O_NOFOLLOW)
            .open(dir.join(name));
        match file {
            Ok(file) => Ok(Self {
                file,
                is_writable: true,
            }),
            Err(error) if is_unwritable(&error) => {
                let existing = OpenOptions::new()
                    .read(true)
                    .custom_flags(O_NOFOLLOW)
                    .open(dir.join(name));
                Ok(Self {
                    file: existing.or_else(|_| File::open(dir.path()))?,
                    is_writable: false,
                })
            }
            Err(error) => Err(error),
        }
    }

    fn lock(&self, wait: bool) -> io::Result<()> {
        if wait {
            self.file.lock()
        } else {
            self.file.try_lock().map_err(io::Error::from)
        }
    }

    fn write_pid(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{}", std::process::id())
    }
}

/// Whether nothing can be written on the disk.
fn is_unwritable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull
    )
}

/// The lock of the one daemon of a layout; held until this is dropped or the process ends.
#[derive(Debug)]
pub struct InstanceLock {
    _lock: File,
}

impl Layout {
    pub fn instance_lock(&self) -> PathBuf {
        self.state().join("instance.lock")
    }

    /// The process of this layout's daemon, if it can be determined.
    pub fn holder(&self) -> Option<u32> {
        let pid: u32 = read_text(&self.instance_lock()).ok()?.trim().parse().ok()?;
        // The file outlives its writer, and another process may have the number by now.
        let name = read_text(Path::new(&format!("/proc/{pid}/comm"))).ok()?;
        (name.trim() == "skupperd").then_some(pid)
    }

    /// Becomes the one daemon of this layout. Refuses state that a later version has written. A disk that
    /// cannot be written is no reason to fail: the sites run from what is on it.
    pub fn claim(&self) -> Result<InstanceLock, StoreError> {
        let path = self.instance_lock();
        let failed = |e| StoreError::io("locking", &path)(e);
        let mut lock = OpenLock::open(&path).map_err(failed)?;
        match lock.lock(false) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                // The holder is for the message only.
                let pid = read_text(&path)
                    .ok()
                    .and_then(|text| text.trim().parse::<u32>().ok());
                let holder =
                    pid.map_or("process unknown".to_owned(), |pid| format!("process {pid}"));
                return Err(StoreError::Busy { path, holder });
            }
            Err(e) => return Err(failed(e)),
        }
        format::check(self)?;
        let written = if lock.is_writable {
            lock.write_pid()
        } else {
            Err(io::ErrorKind::ReadOnlyFilesystem.into())
        };
        match written {
            Ok(()) => format::write(self)?,
            Err(error) if is_unwritable(&error) => tracing::warn!(
                dir = %self.state().display(),
                "state cannot be written; sites run from what is there, and changes are lost at the end"
            ),
            Err(error) => return Err(StoreError::io("writing", &path)(error)),
        }
        Ok(InstanceLock { _lock: lock.file })
    }
}

impl NamespaceDir {
    /// Waits for the lock of the namespace's input; held until the file is dropped.
    pub(super) fn lock(&self) -> Result<File, StoreError> {
        let path = self.internal().join("lock");
        lock(&path, true).map_err(StoreError::io("locking", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_daemon_holds_a_layout() {
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
