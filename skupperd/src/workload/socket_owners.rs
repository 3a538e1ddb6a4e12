//! The executables that have a socket open, from /proc.
//!
//! The kernel shows the open files of a process only to its own user and to root: a service without
//! that right finds nothing here.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

/// Time between scans for sockets whose processes were not found.
const RESCAN: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct SocketOwners {
    /// Executables by the inode of the socket; empty when no process was found.
    known: HashMap<u32, Vec<String>>,
    scanned: Option<Instant>,
}

impl SocketOwners {
    /// Scans all processes if a socket is unknown.
    pub(super) fn load(&mut self, inodes: impl Iterator<Item = u32>) {
        let inodes: HashSet<u32> = inodes.collect();
        self.known.retain(|inode, _| inodes.contains(inode));
        let new = inodes.iter().any(|n| !self.known.contains_key(n));
        let unknown = self.known.values().any(Vec::is_empty);
        let due = self.scanned.is_none_or(|at| at.elapsed() >= RESCAN);
        if !(new || (unknown && due)) {
            return;
        }
        self.scanned = Some(Instant::now());
        self.known = inodes.iter().map(|n| (*n, Vec::new())).collect();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let processes = processes.filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        });
        for process in processes.map(|entry| entry.path()) {
            // Other users' processes cannot be read, and some have ended since.
            let Ok(exe) = fs::read_link(process.join("exe")) else {
                continue;
            };
            let exe = exe.to_string_lossy();
            let exe = exe.strip_suffix(" (deleted)").unwrap_or(&exe);
            for socket in sockets_of(&process.join("fd")).unwrap_or_default() {
                if let Some(executables) = self.known.get_mut(&socket)
                    && !executables.iter().any(|known| known == exe)
                {
                    executables.push(exe.to_owned());
                }
            }
        }
    }

    /// The executables that have a socket open; empty when unknown.
    pub(super) fn executables(&self, inode: u32) -> &[String] {
        self.known
            .get(&inode)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }
}

/// Inodes of the sockets that a process has open. `descriptors`: its directory /proc/PID/fd.
pub(super) fn sockets_of(descriptors: &Path) -> io::Result<Vec<u32>> {
    let links = fs::read_dir(descriptors)?.flatten();
    let socket = |entry: fs::DirEntry| {
        let link = fs::read_link(entry.path()).ok()?;
        let number = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        number.parse().ok()
    };
    Ok(links.filter_map(socket).collect())
}
