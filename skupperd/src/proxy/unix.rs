//! Servers on Unix sockets.

use crate::sys;
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    io,
    net::TcpStream,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::Path,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Interval of attempts while the queue is full: the kernel does not report when it has room.
const AGAIN: Duration = Duration::from_millis(5);

/// Connects to the server at a path, which has until `timeout` to take connections off its queue.
pub(super) async fn connect(path: &Path, timeout: Duration) -> io::Result<TcpStream> {
    let address = SockAddr::unix(path)?;
    let begin = Instant::now();
    loop {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::UNIX, kind, None)?;
        sys::leave_reserve(&socket)?;
        match socket.connect(&address) {
            // A stream socket is read, written and shut down in one way, whatever its family.
            Ok(()) => return Ok(TcpStream::from(OwnedFd::from(socket))),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if begin.elapsed() > timeout {
                    let text = "the backlog of the server is full";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                sleep(AGAIN).await;
            }
            Err(e) => return Err(explained(path, e)),
        }
    }
}

/// The system's error, with advice.
fn explained(path: &Path, error: io::Error) -> io::Error {
    let uid = sys::user();
    let text = match error.kind() {
        io::ErrorKind::PermissionDenied => match path.metadata() {
            Ok(of) => format!(
                "permission denied: the socket is of user {} and group {} with mode {:03o}, and \
                 skupperd, which is user {uid}, needs the right to write to it",
                of.uid(),
                of.gid(),
                of.mode() & 0o777
            ),
            Err(_) => format!(
                "permission denied: skupperd, which is user {uid}, needs the right to search the \
                 directories of the socket"
            ),
        },
        io::ErrorKind::NotFound => "there is no such socket".to_owned(),
        io::ErrorKind::ConnectionRefused => match path.metadata() {
            Ok(of) if of.file_type().is_socket() => "no server listens on the socket".to_owned(),
            _ => "it is not a socket".to_owned(),
        },
        // A datagram socket, or one of packets.
        _ if error.raw_os_error() == Some(nix::libc::EPROTOTYPE) => {
            "it is not a stream socket".to_owned()
        }
        _ => return error,
    };
    io::Error::new(error.kind(), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    const SOON: Duration = Duration::from_secs(5);

    async fn refused(path: &Path) -> String {
        connect(path, SOON).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn a_failed_connection_to_a_unix_socket_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        assert_eq!(refused(&path).await, "there is no such socket");
        std::fs::write(&path, "").unwrap();
        assert_eq!(refused(&path).await, "it is not a socket");
        std::fs::remove_file(&path).unwrap();
        let datagrams = UnixDatagram::bind(&path).unwrap();
        assert_eq!(refused(&path).await, "it is not a stream socket");
        drop(datagrams);
        std::fs::remove_file(&path).unwrap();
        let server = UnixListener::bind(&path).unwrap();
        connect(&path, SOON).await.unwrap();
        drop(server);
        assert_eq!(refused(&path).await, "no server listens on the socket");
    }
}
