//! Accepting clients of listeners.

use crate::{sys, telemetry::Failures};
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
/// Pause after a client was refused because descriptors are short: many of them must not use up a thread.
const REFUSAL_PAUSE: Duration = Duration::from_millis(1);
/// Failures to accept, of all listeners and workers: they have one cause.
static NOT_ACCEPTED: Failures = Failures::new();

/// Accepts clients of a listener until dropped. `refused` is called now and then while clients are
/// refused for lack of descriptors.
pub(super) async fn clients(
    listener: &AsyncFd<TcpListener>,
    mut each: impl FnMut(std::net::TcpStream),
    refused: impl Fn(),
) {
    loop {
        let Ok(mut guard) = listener.readable().await else {
            return;
        };
        // A batch of connections costs one poll.
        loop {
            match accept(listener.get_ref()) {
                Ok(client) => match sys::leave_reserve(&client) {
                    Ok(()) => each(client),
                    Err(error) => {
                        sys::reset_on_close((&client).into());
                        drop(client);
                        if log(&error) {
                            refused();
                        }
                        tokio::time::sleep(REFUSAL_PAUSE).await;
                    }
                },
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
                    log(&error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    break;
                }
            }
        }
    }
}

/// Returns whether the failure was logged.
fn log(error: &io::Error) -> bool {
    let reported = NOT_ACCEPTED.count_and_report(Instant::now());
    if let Some(suppressed) = reported {
        tracing::warn!(%error, suppressed, "cannot accept client");
    }
    reported.is_some()
}

/// One system call instead of two: the accepted socket is non-blocking from the start.
fn accept(listener: &TcpListener) -> io::Result<std::net::TcpStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = accept4(listener.as_raw_fd(), flags)?;
    Ok(sys::owned(fd).into())
}
