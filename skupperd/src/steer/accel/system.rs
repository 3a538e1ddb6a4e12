//! System requirements of acceleration, and the loaded programs.

use super::{AHEAD, AccelerationUnavailable, HopTotals, Programs, Rules, STREAK, diag};
use crate::{
    steer::{bind_range::Network, bpf::BpfError},
    sys,
};
use aya::util::KernelVersion;
use parking_lot::{Mutex, MutexGuard};
use skupper_ebpf::hop::{Tuple, lane_state};
use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

/// The oldest kernel that passes the tests. Counting unread bytes needs 6.13; kernels in between
/// have bugs that were fixed later.
const KERNEL: KernelVersion = KernelVersion::new(6, 18, 0);

pub(super) struct LoadedPrograms {
    programs: Mutex<Programs>,
    /// Directions that the daemon returned to TCP; the programs count their own.
    left: AtomicU64,
}

/// Whether the system meets the requirements, as far as that is known without trying.
pub(super) fn possible() -> Result<(), AccelerationUnavailable> {
    let missing = sys::missing_for_bpf()?;
    if !missing.is_empty() {
        return Err(AccelerationUnavailable::Missing(missing.join(", ")));
    }
    let kernel = KernelVersion::current().map_err(io::Error::other)?;
    if kernel < KERNEL {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        return Err(AccelerationUnavailable::Kernel(release.trim().to_owned()));
    }
    cgroups().map(drop)
}

/// Mount point of the cgroup v2 hierarchy.
fn cgroups() -> Result<PathBuf, AccelerationUnavailable> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let found = mounts.lines().find_map(mounted);
    found
        .map(PathBuf::from)
        .ok_or(AccelerationUnavailable::NoCgroup)
}

/// The mount point in a line of mountinfo, if it is the root of cgroup v2.
fn mounted(line: &str) -> Option<String> {
    let (mount, system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, mount_point) = (fields.next()?, fields.next()?);
    let is_root = system.starts_with("cgroup2 ") && root == "/";
    // mountinfo escapes blanks.
    is_root.then(|| mount_point.replace("\\040", " "))
}

/// Loads the programs for all connections of this network namespace.
pub(super) fn start() -> Result<LoadedPrograms, AccelerationUnavailable> {
    // A new socket is in the namespace of its thread.
    let here = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let rules = Rules {
        netns: sys::netns_cookie(here.as_fd())?,
        ahead: AHEAD,
        streak: STREAK,
        directions: Rules::BOTH,
        fault: false,
    };
    // The kernel supports the query if it answers that the socket does not exist.
    let nowhere = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match diag::unread(nowhere(1), nowhere(2)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let cgroup = File::open(cgroups()?)?;
    Ok(LoadedPrograms {
        programs: Mutex::new(Programs::load(cgroup.as_fd(), rules)?),
        left: AtomicU64::new(0),
    })
}

impl LoadedPrograms {
    fn programs(&self) -> MutexGuard<'_, Programs> {
        self.programs.lock()
    }

    pub(super) fn totals(&self) -> Result<HopTotals, AccelerationUnavailable> {
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

    /// Sets whether connections to a port are accelerated; `None` removes the entry.
    pub(super) fn listen(
        &self,
        to: Network,
        port: u16,
        on: Option<bool>,
    ) -> Result<(), AccelerationUnavailable> {
        let mut programs = self.programs();
        let done: Result<(), BpfError> = match on {
            Some(on) => programs.listen(to.address(), to.bits(), port, on),
            None => programs.unlisten(to.address(), to.bits(), port),
        };
        Ok(done?)
    }

    pub(super) fn connecting(&self, cookie: u64) -> Result<(), AccelerationUnavailable> {
        Ok(self.programs().connecting(cookie)?)
    }

    pub(super) fn has_read(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        bytes: u64,
    ) -> Result<(), AccelerationUnavailable> {
        Ok(self.programs().has_read(Tuple::of(from, to), bytes)?)
    }

    pub(super) fn return_to_tcp(
        &self,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<(), AccelerationUnavailable> {
        self.programs().return_to_tcp(Tuple::of(from, to))?;
        self.left.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether bytes of a socket may bypass TCP.
    pub(super) fn is_short(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let lane = self.programs().direction_of(Tuple::of(from, to));
        lane.is_some_and(|lane| lane.state != lane_state::TCP)
    }

    pub(super) fn is_taken_up(&self, at: SocketAddr, from: SocketAddr) -> bool {
        self.programs().direction_of(Tuple::of(at, from)).is_some()
    }

    /// Registered sockets of other programs: their address, and that of the daemon's end.
    pub(super) fn taken_up(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let programs = self.programs();
        let theirs = programs.sockets().into_iter().filter(|tuple| {
            let lane = programs.direction_of(*tuple);
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
