//! Memory limits of this process: those of its control groups (version 2), and how much is used.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Whether memory is short; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryPressure(Arc<AtomicBool>);

impl MemoryPressure {
    /// While true, new connections are refused.
    pub fn is_high(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns whether this is a change.
    pub fn set(&self, high: bool) -> bool {
        self.0.swap(high, Ordering::Relaxed) != high
    }
}

/// A control group with a limit. Exceeding it kills the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    dir: PathBuf,
    /// The limit in bytes.
    pub limit: u64,
}

/// Mount points of version 2: alone, or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

impl MemoryLimit {
    /// Limits of this process's control group and of those around it. Limits of version 1 are ignored.
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
        // Without the root, which has no limit.
        let groups = path.ancestors().filter(|p| *p != Path::new(""));
        groups.filter_map(|p| limit(mount.join(p))).collect()
    }

    /// Bytes in use that the kernel cannot reclaim: without file pages, but with kernel memory, which
    /// is half of what connections need.
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

/// Bytes of memory that this process may use: those of its least limit, or of this host.
pub fn memory_size() -> u64 {
    let limits = MemoryLimit::of_process();
    let least = limits.iter().map(|limit| limit.limit).min();
    let host = || total_of_host(&fs::read_to_string("/proc/meminfo").ok()?);
    least.or_else(host).unwrap_or(0)
}

fn total_of_host(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Returns free memory in the middle of the allocator's heaps to the kernel. After many connections
/// have ended that is most of the heap, and it counts towards the limit until returned.
pub fn return_free_memory() {
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
    fn limits_of_outer_groups_apply_and_file_pages_do_not_count() {
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
    fn free_memory_between_blocks_in_use_is_returned() {
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
        return_free_memory();
        let after = pages();
        // Of 64 MiB; a page has 64 KiB at most.
        assert!(after < full / 2 && after < kept, "{full} {kept} {after}");
        assert!(blocks.iter().all(|block| block[1023] == 1));
    }

    #[test]
    fn the_memory_of_the_host_is_known() {
        let text = "MemTotal:       16303428 kB\nMemFree:        1 kB\n";
        assert_eq!(total_of_host(text), Some(16_303_428 * 1024));
        assert_eq!(total_of_host("MemFree: 1 kB\n"), None);
        assert!(memory_size() > 0);
    }

    #[test]
    fn pressure_is_shared_and_set_reports_changes() {
        let one = MemoryPressure::default();
        let other = one.clone();
        assert!(!one.set(false) && one.set(true) && !one.set(true));
        assert!(other.is_high());
    }
}
