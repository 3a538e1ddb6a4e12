//! Calls into the kernel that the standard library has no safe form for. The only module with
//! `unsafe` code.

use bytes::{BufMut, BytesMut};
use std::{io, os::fd::{AsRawFd, BorrowedFd}};

/// Receives into the spare capacity of `buf`, without filling it with zeros first. Returns the
/// number of bytes received; 0 is the end of the stream.
pub fn recv(fd: BorrowedFd<'_>, buf: &mut BytesMut) -> io::Result<usize> {
    let spare = buf.spare_capacity_mut();
    if spare.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no room to receive into"));
    }
    // SAFETY: the pointer and length describe memory this call may write to, borrowed for its time.
    let n = unsafe {
        nix::libc::recv(fd.as_raw_fd(), spare.as_mut_ptr().cast(), spare.len(), 0)
    };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written the first n bytes of the spare capacity.
    unsafe { buf.advance_mut(n) };
    Ok(n)
}
