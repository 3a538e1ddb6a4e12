//! What acceleration needs of the system, and the programs once they are loaded.

use super::{AHEAD, HopTotals, NotAccelerated, Programs, Rules, STREAK, diag};
use crate::{
    steer::{bpf::BpfError, place::Network},
    sys,
};
use aya::util::KernelVersion;
use skupper_ebpf::hop::{Tuple, way};
use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// The oldest kernel that this was shown to be right on. It takes 6.13 for the counting of what waits
/// at a socket; those in between have faults that were mended later.
const KERNEL: KernelVersion = KernelVersion::new(6, 18, 0);

/// The loaded programs.
pub(super) struct Kernel {
    programs: Mutex<Programs>,
    /// Directions that were left here, and not by the programs.
    left: AtomicU64,
}

/// Whether this system has all that is needed, as far as that shows without trying.
pub(super) fn possible() -> Result<(), NotAccelerated> {
    let missing = sys::missing_for_bpf()?;
    if !missing.is_empty() {
        return Err(NotAccelerated::Missing(missing.join(", ")));
    }
    let kernel = KernelVersion::current().map_err(io::Error::other)?;
    if kernel < KERNEL {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        return Err(NotAccelerated::Kernel(release.trim().to_owned()));
    }
    cgroups().map(drop)
}

/// Where the unified hierarchy of cgroups is mounted.
fn cgroups() -> Result<PathBuf, NotAccelerated> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let found = mounts.lines().find_map(mounted);
    found.map(PathBuf::from).ok_or(NotAccelerated::NoCgroup)
}

/// The place of a mount, if it is the root of the unified hierarchy.
fn mounted(line: &str) -> Option<String> {
    let (mount, system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, place) = (fields.next()?, fields.next()?);
    let is_root = system.starts_with("cgroup2 ") && root == "/";
    // The only blanks of a path are written like this.
    is_root.then(|| place.replace("\\040", " "))
}

/// Loads the programs for all connections of this network namespace.
pub(super) fn start() -> Result<Kernel, NotAccelerated> {
    // Sockets have the namespace of their thread.
    let here = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let rules = Rules {
        netns: sys::netns_cookie(here.as_fd())?,
        ahead: AHEAD,
        streak: STREAK,
        ways: Rules::BOTH,
        fault: false,
    };
    // What waits unread can be asked: of a socket that there is not, the kernel says just that.
    let nowhere = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match diag::unread(nowhere(1), nowhere(2)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let cgroup = File::open(cgroups()?)?;
    Ok(Kernel {
        programs: Mutex::new(Programs::load(cgroup.as_fd(), rules)?),
        left: AtomicU64::new(0),
    })
}

impl Kernel {
    fn programs(&self) -> MutexGuard<'_, Programs> {
        let programs = self.programs.lock();
        programs.unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn totals(&self) -> Result<HopTotals, NotAccelerated> {
        let hops = self.programs().hops();
        let read = hops.read()?;
        Ok(HopTotals {
            messages: read.messages,
            bytes: read.bytes,
            sockets: read.sockets,
            bulk: read.bulk + self.left.load(Ordering::Relaxed),
            late: read.late,
        })
    }

    /// Sets whether connections to a port are accelerated; with none it is forgotten.
    pub(super) fn listen(
        &self,
        to: Network,
        port: u16,
        on: Option<bool>,
    ) -> Result<(), NotAccelerated> {
        let mut programs = self.programs();
        let done: Result<(), BpfError> = match on {
            Some(on) => programs.listen(to.address(), to.bits(), port, on),
            None => programs.unlisten(to.address(), to.bits(), port),
        };
        Ok(done?)
    }

    pub(super) fn connecting(&self, cookie: u64) -> Result<(), NotAccelerated> {
        Ok(self.programs().connecting(cookie)?)
    }

    pub(super) fn has_read(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        bytes: u64,
    ) -> Result<(), NotAccelerated> {
        Ok(self.programs().has_read(Tuple::of(from, to), bytes)?)
    }

    pub(super) fn leave(&self, from: SocketAddr, to: SocketAddr) -> Result<(), NotAccelerated> {
        self.programs().leave(Tuple::of(from, to))?;
        self.left.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether bytes of a socket may go the short way.
    pub(super) fn is_short(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let lane = self.programs().lane(Tuple::of(from, to));
        lane.is_some_and(|lane| lane.way != way::TCP)
    }

    pub(super) fn is_taken_up(&self, at: SocketAddr, from: SocketAddr) -> bool {
        self.programs().lane(Tuple::of(at, from)).is_some()
    }

    /// The sockets of other programs, by their own address and that of our end.
    pub(super) fn taken_up(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let programs = self.programs();
        let theirs = programs.sockets().into_iter().filter(|tuple| {
            let lane = programs.lane(*tuple);
            lane.is_some_and(|lane| lane.ours == 0)
        });
        theirs.map(|tuple| tuple.addresses()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::mounted;

    #[test]
    fn the_unified_hierarchy_is_found_where_it_is_mounted() {
        let whole =
            "35 24 0:30 / /sys/fs/cgroup ro,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(mounted(whole).unwrap(), "/sys/fs/cgroup");
        let beside = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        assert_eq!(mounted(beside).unwrap(), "/sys/fs/cgroup/unified");
        let older = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd";
        assert_eq!(mounted(older), None);
        let part = "41 31 0:38 /a.slice /mnt rw,relatime - cgroup2 cgroup2 rw";
        assert_eq!(mounted(part), None);
    }
}
