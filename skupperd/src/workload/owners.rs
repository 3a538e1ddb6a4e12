//! Which executables have a socket open.
//!
//! Only who may look into a process is told: root of all, others of their own. A service without
//! such rights finds nothing here.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

/// Time between looks for sockets whose processes were not found.
const PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Owners {
    /// Executables by the number of the socket; none where nobody was found.
    known: HashMap<u32, Vec<String>>,
    looked: Option<Instant>,
}

impl Owners {
    /// Looks through all processes if there are sockets that are not known yet.
    pub(super) fn know(&mut self, inodes: impl Iterator<Item = u32>) {
        let inodes: HashSet<u32> = inodes.collect();
        self.known.retain(|inode, _| inodes.contains(inode));
        let new = inodes.iter().any(|n| !self.known.contains_key(n));
        let unknown = self.known.values().any(Vec::is_empty);
        let due = self.looked.is_none_or(|at| at.elapsed() >= PAUSE);
        let look = new || (unknown && due);
        if !look {
            return;
        }
        self.looked = Some(Instant::now());
        self.known = inodes.iter().map(|n| (*n, Vec::new())).collect();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let processes = processes.filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        });
        for process in processes.map(|entry| entry.path()) {
            // Those of others can not be read, and some have ended meanwhile.
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

    /// Executables that have a socket open; none where that is not known.
    pub(super) fn of(&self, inode: u32) -> &[String] {
        self.known
            .get(&inode)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }
}

/// Numbers of the sockets that a process has open, from its directory of descriptors.
pub(super) fn sockets_of(descriptors: &Path) -> io::Result<Vec<u32>> {
    let links = fs::read_dir(descriptors)?.flatten();
    let socket = |entry: fs::DirEntry| {
        let link = fs::read_link(entry.path()).ok()?;
        let number = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        number.parse().ok()
    };
    Ok(links.filter_map(socket).collect())
}
