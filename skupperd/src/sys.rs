//! System calls that the standard library has no safe form for. The only module with `unsafe` code.
//!
//! Every thread calls it. Functions are safe: what the kernel requires of an argument is ensured here.
//! Some block: `trusted_path` reads files, [`user_named`] may ask other hosts, [`netns::within`] waits for
//! a thread. [`DescriptorStore`] has a thread of its own, which talks to the service manager.
//!
//! It knows nothing of sites, and returns errors of the kernel as [`io::Error`].

mod addresses;
#[cfg(feature = "ebpf")]
pub mod bpf;
pub mod clock;
mod descriptor_reserve;
mod descriptor_store;
mod inherited_descriptors;
mod memory;
pub mod netns;
mod send_state;
pub mod trusted_path;

pub use addresses::AddressWatcher;
pub use descriptor_reserve::{lacks_descriptors, leave_reserve, reserve_descriptors};
pub use descriptor_store::DescriptorStore;
pub use inherited_descriptors::InheritedDescriptors;
pub use memory::{MemoryLimit, MemoryPressure, memory_size, return_free_memory};
pub use send_state::{SendState, send_state};

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

/// A dead peer is noticed after a minute, on connections of clients and servers too.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

/// The error of a process or user that has all the files, or instances of one kind, that it may have.
pub const TOO_MANY_FILES: i32 = nix::libc::EMFILE;

/// Time since the host started, on the clock of service managers.
pub fn monotonic() -> Duration {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    // Every Linux has this clock.
    now.map(Duration::from).unwrap_or_default()
}

/// The effective user of this process.
pub fn user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The id of a user by name. It may ask other hosts (NSS).
pub fn user_named(name: &str) -> io::Result<Option<u32>> {
    let user = nix::unistd::User::from_name(name)?;
    Ok(user.map(|user| user.uid.as_raw()))
}

/// The name of a user. It may ask other hosts (NSS).
pub fn user_name(uid: u32) -> Option<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid));
    Some(user.ok()??.name)
}

/// The effective user and group of this process.
pub fn user_and_group() -> (u32, u32) {
    (user(), nix::unistd::getegid().as_raw())
}

pub fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?;
    Some(name.to_string_lossy().into_owned())
}

pub fn interface_addresses() -> impl Iterator<Item = IpAddr> {
    let addresses = nix::ifaddrs::getifaddrs().into_iter().flatten();
    addresses.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
    })
}

/// Sets the options of every connection: no delay for small writes, and keepalive.
pub fn prepare(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)
}

/// The options of [`prepare`] and [`reset_on_close`], for connections with clients and servers, or for a
/// listening socket, whose connections inherit them. Whatever ends the process, even SIGKILL, then
/// resets its connections: a FIN would make a cut transfer look complete.
pub fn prepare_proxied(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_linger(Some(Duration::ZERO))?;
    prepare(socket)
}

/// Makes a connection end with a reset when it is closed, as a closed port does: unsent data is
/// discarded and the kernel keeps no state.
pub fn reset_on_close(socket: SockRef<'_>) {
    if let Err(error) = socket.set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "cannot reset connection");
    }
}

/// Reverts [`reset_on_close`]: the kernel sends what is unsent, and then FIN, after the socket is closed.
pub fn finish_on_close(socket: SockRef<'_>) {
    if let Err(error) = socket.set_linger(None) {
        tracing::debug!(%error, "cannot end connection in order");
    }
}

/// Whether two sockets are in the same network namespace. Before Linux 5.14 the kernel does not tell:
/// then it is assumed.
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

/// Capabilities that BPF programs need and this thread does not have.
pub fn missing_for_bpf() -> io::Result<Vec<&'static str>> {
    effective_capabilities().map(missing)
}

/// The effective capabilities of this thread, as a bit set.
fn effective_capabilities() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    let bad = || io::Error::other("/proc/thread-self/status names no capabilities");
    let mut lines = status.lines();
    let effective = lines.find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.map(|hex| u64::from_str_radix(hex.trim(), 16));
    effective.ok_or_else(bad)?.map_err(io::Error::other)
}

fn missing(effective: u64) -> Vec<&'static str> {
    // Numbers of linux/capability.h. CAP_SYS_ADMIN includes both capabilities.
    const SYS_ADMIN: u32 = 21;
    let has = |capability: u32| effective & (1 << capability | 1 << SYS_ADMIN) != 0;
    let needed = [("CAP_BPF", 39), ("CAP_NET_ADMIN", 12)];
    let missing = needed.iter().filter(|(_, capability)| !has(*capability));
    missing.map(|(name, _)| *name).collect()
}

/// The cookie of a socket's network namespace: a number that is unique until the next boot.
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

/// Receives into the spare capacity of `buf`, which need not be initialised. Returns the number of
/// bytes; 0 is the end of the stream.
pub fn recv(fd: BorrowedFd<'_>, buf: &mut BytesMut) -> io::Result<usize> {
    let spare = buf.spare_capacity_mut();
    if spare.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the receive buffer is full",
        ));
    }
    // SAFETY: the pointer and length describe memory this call may write to, borrowed for its time.
    let n = unsafe { nix::libc::recv(fd.as_raw_fd(), spare.as_mut_ptr().cast(), spare.len(), 0) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written the first n bytes of the spare capacity.
    unsafe { buf.advance_mut(n) };
    Ok(n)
}

/// Opens a file for reading without waiting for a peer, as a named pipe would.
pub fn open_without_waiting(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY)
        .open(path)
}

/// Renames a file or directory, and fails if the new name exists. rename(2) would replace even an
/// empty directory that another process is about to write to.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // The file system does not support it.
        Err(nix::errno::Errno::EINVAL) => std::fs::rename(from, to),
        other => other.map_err(Into::into),
    }
}

/// Takes ownership of a descriptor that a system call just returned. nix 0.31 returns numbers from
/// `accept4` and has no `pidfd_open`. rustix would serve these two; bpf(2) and the descriptors of
/// `libsystemd` are numbers in any case, so a second crate for system calls would not replace this.
pub(crate) fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass the result of a call that creates a descriptor, and keep no other copy.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A socket, or another type that owns one descriptor and keeps it until dropped.
pub trait StdSocket: AsRawFd {}
impl StdSocket for std::net::TcpStream {}
impl StdSocket for std::net::TcpListener {}
impl StdSocket for OwnedFd {}

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
