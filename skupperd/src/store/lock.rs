//! Locks: one daemon for a layout, one writer for a namespace's input.

use super::{
    Layout, NamespaceDir, StoreError,
    files::{PRIVATE, copy_owner, make_dirs, read_text, split},
    format,
};
use crate::sys::trusted_path::O_NOFOLLOW;
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
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
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .mode(PRIVATE)
            .custom_flags(O_NOFOLLOW);
        let file = match options.clone().create_new(true).open(dir.join(name)) {
            // Root's command may be the first one, and the daemon is another user.
            Ok(new) => copy_owner(&new, &dir.file().metadata()?).map(|()| new),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                options.open(dir.join(name))
            }
            Err(error) => Err(error),
        };
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
}

/// Whether nothing can be written on the disk.
fn is_unwritable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull
    )
}

/// What the daemon of a layout does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonState {
    /// There is no daemon.
    Absent,
    /// It has not applied all resources yet.
    Starting,
    Running,
    /// It accepts no new connections, and lets open ones end.
    Stopping,
}

impl DaemonState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "not running",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
        }
    }

    /// Parses the state of a daemon that exists.
    pub fn parse(text: &str) -> Option<Self> {
        let states = [Self::Starting, Self::Running, Self::Stopping];
        states.into_iter().find(|state| state.as_str() == text)
    }
}

/// The lock of the one daemon of a layout; held until this is dropped or the process ends.
#[derive(Debug)]
pub struct InstanceLock {
    file: File,
    path: PathBuf,
    is_writable: bool,
}

impl InstanceLock {
    /// Tells other processes the state of this one.
    pub fn set_state(&self, state: DaemonState) -> Result<(), StoreError> {
        if !self.is_writable {
            return Ok(());
        }
        record(&self.file, state).map_err(StoreError::io("writing", &self.path))
    }
}

/// All states have the same length: others read the old one or the new one.
fn record(file: &File, state: DaemonState) -> io::Result<()> {
    let text = format!("{}\n{:<8}\n", std::process::id(), state.as_str());
    file.write_all_at(text.as_bytes(), 0)
}

impl Layout {
    pub fn instance_lock(&self) -> PathBuf {
        self.state().join("instance.lock")
    }

    /// The process of this layout's daemon, if it can be determined.
    pub fn holder(&self) -> Option<u32> {
        let (pid, _) = self.recorded_daemon()?;
        is_daemon(pid).then_some(pid)
    }

    /// What this layout's daemon does. A daemon in another PID namespace is not found.
    pub fn daemon_state(&self) -> DaemonState {
        match self.recorded_daemon() {
            Some((pid, state)) if is_daemon(pid) => state,
            _ => DaemonState::Absent,
        }
    }

    /// Process and state of the last daemon, which may have ended since.
    pub fn recorded_daemon(&self) -> Option<(u32, DaemonState)> {
        let text = read_text(&self.instance_lock()).ok()?;
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        // Daemons of earlier versions write no state.
        let state = lines
            .next()
            .and_then(|line| DaemonState::parse(line.trim()));
        Some((pid, state.unwrap_or(DaemonState::Running)))
    }

    /// Becomes the one daemon of this layout. Refuses state that a later version has written. A disk that
    /// cannot be written is no reason to fail: the sites run from what is on it.
    pub fn claim(&self) -> Result<InstanceLock, StoreError> {
        let path = self.instance_lock();
        let failed = |e| StoreError::io("locking", &path)(e);
        let lock = OpenLock::open(&path).map_err(failed)?;
        match lock.lock(false) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                // The holder is for the message only.
                let daemon = self.recorded_daemon();
                let holder = daemon.map_or("process unknown".to_owned(), |(pid, _)| {
                    format!("process {pid}")
                });
                return Err(StoreError::Busy { path, holder });
            }
            Err(e) => return Err(failed(e)),
        }
        format::check(self)?;
        let written = match lock.is_writable {
            true => lock
                .file
                .set_len(0)
                .and_then(|()| record(&lock.file, DaemonState::Starting)),
            false => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        };
        let is_writable = written.is_ok();
        match written {
            Ok(()) => format::write(self)?,
            Err(error) if is_unwritable(&error) => tracing::warn!(
                dir = %self.state().display(),
                "state cannot be written; sites run from what is there, and changes are lost at the end"
            ),
            Err(error) => return Err(StoreError::io("writing", &path)(error)),
        }
        Ok(InstanceLock {
            file: lock.file,
            path,
            is_writable,
        })
    }
}

/// Whether a process is a daemon: files outlive their writers, and another process may have the number
/// by now. One that has ended stays until its parent has asked for its exit code.
fn is_daemon(pid: u32) -> bool {
    let Ok(stat) = read_text(Path::new(&format!("/proc/{pid}/stat"))) else {
        return false;
    };
    // `PID (NAME) STATE ..`; see proc_pid_stat(5).
    let Some((name, rest)) = stat.split_once('(').and_then(|(_, s)| s.rsplit_once(") ")) else {
        return false;
    };
    name == "skupperd" && !rest.starts_with(['Z', 'X'])
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
    fn the_lock_has_the_state_of_the_daemon() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::root(root.path());
        assert_eq!(layout.daemon_state(), DaemonState::Absent);
        let lock = layout.claim().unwrap();
        let me = std::process::id();
        for state in [DaemonState::Running, DaemonState::Stopping] {
            lock.set_state(state).unwrap();
            assert_eq!(layout.recorded_daemon(), Some((me, state)));
        }
        // This process is a test.
        assert_eq!(layout.daemon_state(), DaemonState::Absent);
        assert_eq!(layout.holder(), None);
        // An earlier version wrote the process only.
        std::fs::write(layout.instance_lock(), "7\n").unwrap();
        let expected = Some((7, DaemonState::Running));
        assert_eq!(layout.recorded_daemon(), expected);
    }

    #[test]
    fn a_lock_file_belongs_to_the_owner_of_its_directory() {
        use std::os::unix::fs::{MetadataExt, chown};
        let root = tempfile::tempdir().unwrap();
        // Only root can give a directory to another user; else both are this user's.
        drop(chown(root.path(), Some(65534), Some(65534)));
        let owner = std::fs::metadata(root.path()).unwrap().uid();
        let path = root.path().join("lock");
        for _ in 0..2 {
            drop(lock(&path, true).unwrap());
            assert_eq!(std::fs::metadata(&path).unwrap().uid(), owner);
        }
    }

    #[test]
    fn one_daemon_holds_a_layout() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::root(root.path());
        let first = layout.claim().unwrap();
        let error = layout.claim().unwrap_err();
        let expected = format!(
            "another skupperd is already running on {} (process {})",
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
