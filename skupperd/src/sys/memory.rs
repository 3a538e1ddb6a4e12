//! Memory that this process may have: the limits of its cgroups (version 2), and how near they are.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Whether memory is short; copies share it.
#[derive(Clone, Debug, Default)]
pub struct Pressure(Arc<AtomicBool>);

impl Pressure {
    /// Nothing new is to be begun.
    pub fn is_high(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Says whether memory is short by now. True when that is a change.
    pub fn set(&self, high: bool) -> bool {
        self.0.swap(high, Ordering::Relaxed) != high
    }
}

/// A cgroup with a limit: reaching it ends the process, not only what wanted more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    dir: PathBuf,
    /// The limit in bytes.
    pub limit: u64,
}

/// Where cgroups of version 2 are: alone, or beside those of version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

impl MemoryLimit {
    /// Limits of this process's cgroup and of those around it. None where nobody has set any, or where
    /// limits are version 1's.
    pub fn of_process() -> Vec<Self> {
        let Ok(text) = fs::read_to_string("/proc/self/cgroup") else {
            return Vec::new();
        };
        let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::/")) else {
            return Vec::new();
        };
        MOUNTS
            .iter()
            .flat_map(|mount| Self::along(Path::new(mount), Path::new(path)))
            .collect()
    }

    fn along(mount: &Path, path: &Path) -> Vec<Self> {
        let limit = |dir: PathBuf| {
            let text = fs::read_to_string(dir.join("memory.max")).ok()?;
            let limit = text.trim().parse().ok()?;
            Some(Self { dir, limit })
        };
        // The last one is the root, which has no limit.
        let groups = path.ancestors().filter(|p| *p != Path::new(""));
        groups.filter_map(|p| limit(mount.join(p))).collect()
    }

    /// Bytes that count towards the limit and that the kernel can not take back. Files can be read
    /// again; what it holds for the process itself, half of what connections take, counts.
    pub fn used(&self) -> io::Result<u64> {
        let current = fs::read_to_string(self.dir.join("memory.current"))?;
        let current: u64 = current.trim().parse().map_err(io::Error::other)?;
        let stat = fs::read_to_string(self.dir.join("memory.stat"))?;
        let files = ["active_file", "inactive_file"].map(|key| {
            let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
            let found = lines.find(|(name, _)| *name == key);
            found.and_then(|(_, n)| n.parse::<u64>().ok()).unwrap_or(0)
        });
        Ok(current.saturating_sub(files.iter().sum()))
    }
}

/// Has the allocator give back to the kernel what is free in the middle of its heaps: after a crowd of
/// connections that is most of them, and it counts towards a limit for as long as it is kept.
pub fn give_back_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and locks what it works on.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_found_around_the_process_and_files_do_not_count() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("system.slice/skupperd.service");
        fs::create_dir_all(&inner).unwrap();
        let write = |dir: &Path, name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
        write(&inner, "memory.max", "1000\n");
        write(&inner, "memory.current", "900\n");
        write(
            &inner,
            "memory.stat",
            "anon 500\ninactive_file 100\nactive_file 50\n",
        );
        write(inner.parent().unwrap(), "memory.max", "max\n");
        write(root.path(), "memory.max", "7\n");
        let path = Path::new("system.slice/skupperd.service");
        let found = MemoryLimit::along(root.path(), path);
        let [limit] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(limit.limit, 1000);
        assert_eq!(limit.used().unwrap(), 750);
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_is_free_between_things_in_use_is_given_back() {
        // The second field: pages that the process has in memory.
        let pages = || {
            let text = fs::read_to_string("/proc/self/statm").unwrap();
            text.split(' ').nth(1).unwrap().parse::<u64>().unwrap()
        };
        let mut blocks: Vec<_> = (0..64 * 1024).map(|_| Box::new([1u8; 1024])).collect();
        let full = pages();
        let mut number = 0;
        blocks.retain(|_| {
            number += 1;
            number % 1024 == 0
        });
        let kept = pages();
        give_back_free_memory();
        let after = pages();
        // Of 64 MiB; a page has 64 KiB at most.
        assert!(after < full / 2 && after < kept, "{full} {kept} {after}");
        assert!(blocks.iter().all(|block| block[1023] == 1));
    }

    #[test]
    fn pressure_is_shared_and_told_when_it_changes() {
        let one = Pressure::default();
        let other = one.clone();
        assert!(!one.set(false) && one.set(true) && !one.set(true));
        assert!(other.is_high());
    }
}
