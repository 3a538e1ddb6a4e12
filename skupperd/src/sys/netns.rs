//! Other network namespaces: entering them, and passing the sockets made there between processes.

use super::owned;
use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns},
    sys::{
        socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg},
        statfs::{NSFS_MAGIC, fstatfs, statfs},
    },
};
use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
    thread,
};

/// Most descriptors of one message (`SCM_MAX_FD` is 253).
pub const MAX_DESCRIPTORS: usize = 128;

/// Whether this process may enter other network namespaces.
pub fn may_enter() -> bool {
    // From linux/capability.h.
    const SYS_ADMIN: u64 = 1 << 21;
    super::effective_capabilities().is_ok_and(|has| has & SYS_ADMIN != 0)
}

/// Opens a namespace. The file is first found without opening it, and what was found is opened: opening a
/// device could have an effect, and another file could take the path meanwhile.
pub fn open(path: &Path) -> io::Result<File> {
    let found = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)?;
    if fstatfs(&found)?.filesystem_type() != NSFS_MAGIC {
        return Err(io::Error::other("not a network namespace"));
    }
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

/// Whether a path is a namespace. It does not open the file.
pub fn is_namespace(path: &Path) -> io::Result<bool> {
    Ok(statfs(path)?.filesystem_type() == NSFS_MAGIC)
}

/// Runs `run` in a network namespace, on a thread of its own: no other thread changes its namespace.
pub fn within<T: Send>(netns: BorrowedFd<'_>, run: impl FnOnce() -> T + Send) -> io::Result<T> {
    let thread = || {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        Ok(run())
    };
    thread::scope(|scope| {
        let entered = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, thread)?;
        let panicked = |_| io::Error::other("the thread in the network namespace panicked");
        entered.join().map_err(panicked)?
    })
}

/// A pidfd: it stays with its process even when the PID is reused.
pub fn process(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: a system call with two numbers, which gives a descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0);
    Ok(owned(fd.ok_or_else(io::Error::last_os_error)?))
}

/// Whether the process of a pidfd has ended.
pub fn has_ended(process: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(process, PollFlags::POLLIN)];
    // An error means that there is no such process.
    !matches!(poll(&mut polled, PollTimeout::ZERO), Ok(0))
}

/// Sends a message with descriptors.
pub fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &[][..] } else { &rights[..] };
    let parts = [IoSlice::new(bytes)];
    sendmsg::<UnixAddr>(
        socket.as_raw_fd(),
        &parts,
        rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Receives a message into `buf`; its length and its descriptors.
pub fn receive(socket: &impl AsFd, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut room = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(buf)];
    let message = recvmsg::<UnixAddr>(
        socket.as_fd().as_raw_fd(),
        &mut parts,
        Some(&mut room),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            descriptors.extend(raw.into_iter().map(owned));
        }
    }
    if message
        .flags
        .intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC)
    {
        return Err(Errno::EMSGSIZE.into());
    }
    Ok((message.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{sys::stat::Mode, unistd::mkfifo};
    use std::os::unix::fs::symlink;

    /// A FIFO was opened, and a device could be.
    #[test]
    fn what_is_no_namespace_is_not_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let (fifo, link) = (dir.path().join("fifo"), dir.path().join("link"));
        mkfifo(&fifo, Mode::S_IRWXU).expect("a fifo");
        symlink(&fifo, &link).expect("a link");
        for path in [&fifo, &link, Path::new("/dev/null"), dir.path()] {
            // Opened, a FIFO without a writer would block.
            let error = open(path).expect_err("no namespace");
            assert_eq!(error.to_string(), "not a network namespace");
        }
        open(Path::new("/proc/self/ns/net")).expect("a namespace");
        let other = open(Path::new("/proc/self/ns/pid")).expect("a namespace");
        // Of another kind: it is not entered.
        within(other.as_fd(), || ()).expect_err("no network namespace");
    }
}
