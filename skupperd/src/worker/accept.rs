//! Accepting clients of listeners.

use crate::telemetry::Failures;
use nix::sys::socket::{SockFlag, accept4};
use std::{
    io,
    net::TcpListener,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};
use tokio::io::unix::AsyncFd;

/// Pause after the system refused to accept: out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Failures to accept, of all listeners and workers: they have one cause.
static NOT_ACCEPTED: Failures = Failures::new();

/// Accepts clients of a listener until dropped.
pub(super) async fn clients(
    listener: &AsyncFd<TcpListener>,
    mut each: impl FnMut(std::net::TcpStream),
) {
    loop {
        let Ok(mut guard) = listener.readable().await else {
            return;
        };
        // A batch of connections costs one poll.
        loop {
            match accept(listener.get_ref()) {
                Ok(client) => each(client),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    guard.clear_ready();
                    break;
                }
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => {
                    if let Some(suppressed) = NOT_ACCEPTED.count_and_report(Instant::now()) {
                        tracing::warn!(%error, suppressed, "cannot accept client");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    break;
                }
            }
        }
    }
}

/// One system call instead of two: the accepted socket is non-blocking from the start.
fn accept(listener: &TcpListener) -> io::Result<std::net::TcpStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = accept4(listener.as_raw_fd(), flags)?;
    Ok(crate::sys::owned(fd).into())
}
