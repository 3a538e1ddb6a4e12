//! Calls into the kernel that the standard library has no safe form for. The only module with
//! `unsafe` code.

#[cfg(feature = "ebpf")]
pub mod bpf;
mod descriptors;
mod memory;
pub mod netns;

pub use descriptors::{Descriptors, Keeper};
pub use memory::{MemoryLimit, Pressure, give_back_free_memory};

use bytes::{BufMut, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use std::{
    fs::{File, OpenOptions},
    io,
    net::IpAddr,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
    time::Duration,
};

/// Idle time before the first probe, time between probes, and their number: a dead host is noticed
/// after a minute, on clients' and servers' connections too.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

/// Time since the host started, as service managers count it.
pub fn monotonic() -> Duration {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    // The clock is there on every Linux.
    now.map(Duration::from).unwrap_or_default()
}

/// The user this process is.
pub fn user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The number of a user, if there is one of this name. May ask other hosts, as accounts are set up here.
pub fn user_named(name: &str) -> io::Result<Option<u32>> {
    let user = nix::unistd::User::from_name(name)?;
    Ok(user.map(|user| user.uid.as_raw()))
}

/// The user and the group this process is.
pub fn user_and_group() -> (u32, u32) {
    (user(), nix::unistd::getegid().as_raw())
}

/// The name that this host gives itself, when it has one.
pub fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?;
    Some(name.to_string_lossy().into_owned())
}

/// The addresses of this host's interfaces.
pub fn interface_addresses() -> impl Iterator<Item = IpAddr> {
    let addresses = nix::ifaddrs::getifaddrs().into_iter().flatten();
    addresses.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
    })
}

/// Options of every connection: no delay for small writes, and notice of a dead peer.
pub fn prepare(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)
}

/// Whether two sockets are in the same network namespace; taken for granted where the kernel (before
/// 5.14) does not say.
pub fn same_netns(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    match (netns_cookie(a), netns_cookie(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => true,
    }
}

/// Whether a directory is in a BPF file system.
pub fn is_bpffs(dir: &Path) -> bool {
    nix::sys::statfs::statfs(dir)
        .is_ok_and(|found| found.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC)
}

/// Capabilities that it takes to load and attach BPF programs and that this thread does not have.
pub fn missing_for_bpf() -> io::Result<Vec<&'static str>> {
    effective().map(missing)
}

/// The capabilities of this thread.
fn effective() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    let bad = || io::Error::other("/proc/thread-self/status names no capabilities");
    let mut lines = status.lines();
    let effective = lines.find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.map(|hex| u64::from_str_radix(hex.trim(), 16));
    effective.ok_or_else(bad)?.map_err(io::Error::other)
}

fn missing(effective: u64) -> Vec<&'static str> {
    // Numbers of linux/capability.h. Before there was CAP_BPF it took CAP_SYS_ADMIN, which still
    // stands for it and for the other.
    const SYS_ADMIN: u32 = 21;
    let has = |capability: u32| effective & (1 << capability | 1 << SYS_ADMIN) != 0;
    let needed = [("CAP_BPF", 39), ("CAP_NET_ADMIN", 12)];
    let missing = needed.iter().filter(|(_, capability)| !has(*capability));
    missing.map(|(name, _)| *name).collect()
}

/// The cookie of a socket's network namespace: a number that no other one has until the next boot.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut size = size_of::<u64>() as nix::libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes to where `cookie` is.
    let result = unsafe {
        nix::libc::getsockopt(
            socket.as_raw_fd(),
            nix::libc::SOL_SOCKET,
            nix::libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Receives into the spare capacity of `buf`, without filling it with zeros first. Returns the
/// number of bytes received; 0 is the end of the stream.
pub fn recv(fd: BorrowedFd<'_>, buf: &mut BytesMut) -> io::Result<usize> {
    let spare = buf.spare_capacity_mut();
    if spare.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "no room to receive into",
        ));
    }
    // SAFETY: the pointer and length describe memory this call may write to, borrowed for its time.
    let n = unsafe { nix::libc::recv(fd.as_raw_fd(), spare.as_mut_ptr().cast(), spare.len(), 0) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written the first n bytes of the spare capacity.
    unsafe { buf.advance_mut(n) };
    Ok(n)
}

/// Opens a file for reading. What would wait for somebody on its other side, such as a pipe, is
/// opened at once.
pub fn open_without_waiting(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY)
        .open(path)
}

/// Gives a file or directory a name that nothing has: what has it already is not replaced, not even an
/// empty directory, which others may be about to write to.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // A file system that knows no such thing.
        Err(nix::errno::Errno::EINVAL) => std::fs::rename(from, to),
        other => other.map_err(Into::into),
    }
}

/// Takes ownership of a descriptor that a system call has just returned.
pub(crate) fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass the result of a call that creates a descriptor, and keep no other copy.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A socket of the standard library: owns one descriptor and keeps it until dropped.
pub trait StdSocket: AsRawFd {}
impl StdSocket for std::net::TcpStream {}
impl StdSocket for std::net::TcpListener {}

/// Registers a non-blocking socket with this thread's runtime.
pub fn watch<T: StdSocket>(socket: T) -> io::Result<tokio::io::unix::AsyncFd<T>> {
    // SAFETY: the types that StdSocket is implemented for give out the same open descriptor for as
    // long as they live.
    unsafe { tokio::io::unix::AsyncFd::register(socket) }.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing(0), ["CAP_BPF", "CAP_NET_ADMIN"]);
        assert_eq!(missing(1 << 39 | 1 << 10), ["CAP_NET_ADMIN"]);
        assert_eq!(missing(1 << 12), ["CAP_BPF"]);
        assert!(missing(1 << 39 | 1 << 12).is_empty());
        assert!(missing(1 << 21).is_empty());
    }
}
