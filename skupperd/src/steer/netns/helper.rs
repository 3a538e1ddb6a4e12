//! The helper that opens sockets in network namespaces for a daemon without CAP_SYS_ADMIN, and requests
//! to it: one request per connection, answered with descriptors.

use super::{MAX_SOCKETS, make, make_descriptors};
use crate::{model::Netns, sys};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

/// Socket of the helper (`skupperd-netns.socket`).
const HELPER: &str = "/run/skupperd-netns.sock";
/// Timeout of a request to the helper, which the service manager starts on demand.
const ANSWER: Duration = Duration::from_secs(10);
/// Maximum size of a request in bytes.
const MESSAGE: usize = 64 * 1024;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HelperRequest {
    pub(super) target: String,
    pub(super) addrs: Vec<SocketAddr>,
    pub(super) workers: usize,
    /// Request descriptors for steering instead of bound sockets.
    #[serde(default)]
    pub(super) entrance: bool,
}

/// The reply of the helper, before it sends descriptors.
#[derive(Debug, Serialize, Deserialize)]
enum HelperReply {
    Sockets(usize),
    Error(String),
}

/// Asks the helper for descriptors. `count`: the expected number, if known.
pub(super) fn ask(
    target: &Netns,
    request: &HelperRequest,
    count: Option<usize>,
) -> Result<Vec<OwnedFd>, String> {
    let request_descriptors = || {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.cloexec(), None)?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.set_write_timeout(Some(ANSWER))?;
        socket.connect(&SockAddr::unix(HELPER)?)?;
        exchange(&socket, request, count)
    };
    let reason =
        |e: io::Error| format!("{target}: no CAP_SYS_ADMIN, and cannot reach {HELPER}: {e}");
    request_descriptors().map_err(reason)?
}

fn exchange(
    socket: &Socket,
    request: &HelperRequest,
    wanted: Option<usize>,
) -> io::Result<Result<Vec<OwnedFd>, String>> {
    sys::netns::send(socket.as_fd(), &serde_json::to_vec(request)?, &[])?;
    let mut buf = vec![0; MESSAGE];
    let (length, _) = sys::netns::receive(socket, &mut buf)?;
    let count = match serde_json::from_slice(buf.get(..length).unwrap_or_default())? {
        HelperReply::Error(error) => return Ok(Err(error)),
        HelperReply::Sockets(n) if n > MAX_SOCKETS || wanted.is_some_and(|wanted| n != wanted) => {
            return Err(io::Error::other("unexpected reply"));
        }
        HelperReply::Sockets(n) => n,
    };
    let mut sockets = Vec::new();
    while sockets.len() < count {
        let (_, descriptors) = sys::netns::receive(socket, &mut buf)?;
        if descriptors.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        sockets.extend(descriptors);
    }
    Ok(Ok(sockets))
}

/// The helper: serves one request on this socket.
pub fn serve(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut buf = vec![0; MESSAGE];
    let (length, _) = sys::netns::receive(&socket, &mut buf)?;
    let made = serde_json::from_slice::<HelperRequest>(buf.get(..length).unwrap_or_default())
        .map_err(|e| e.to_string())
        .and_then(|request| {
            let target: Netns = request.target.parse()?;
            let per_worker = match request.entrance {
                // Two families, with room for the namespace and the netlink socket.
                true => 4,
                false => request.addrs.len(),
            };
            if per_worker.saturating_mul(request.workers) > MAX_SOCKETS {
                return Err("too many sockets".to_owned());
            }
            if request.entrance {
                return make_descriptors(&target, request.workers);
            }
            let made = make(&target, &request.addrs, request.workers)?;
            Ok(made.into_iter().map(OwnedFd::from).collect())
        });
    let sockets = match made {
        Ok(sockets) => sockets,
        Err(error) => {
            return sys::netns::send(
                socket,
                &serde_json::to_vec(&HelperReply::Error(error))?,
                &[],
            );
        }
    };
    let answer = serde_json::to_vec(&HelperReply::Sockets(sockets.len()))?;
    sys::netns::send(socket, &answer, &[])?;
    for some in sockets.chunks(sys::netns::MAX_DESCRIPTORS) {
        let some: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
        sys::netns::send(socket, &[0], &some)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_reports_invalid_requests() {
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let helper = std::thread::spawn(move || serve(theirs.as_fd()));
        let request = HelperRequest {
            target: "pid:4194303".to_owned(),
            addrs: vec!["127.0.0.1:1".parse().unwrap()],
            workers: 1,
            entrance: false,
        };
        let error = exchange(&ours, &request, Some(1)).unwrap().unwrap_err();
        assert!(error.starts_with("pid:4194303: "), "{error}");
        helper.join().unwrap().unwrap();
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        sys::netns::send(ours.as_fd(), b"{", &[]).unwrap();
        serve(theirs.as_fd()).unwrap();
        let mut buf = [0; 1024];
        let (length, _) = sys::netns::receive(&ours, &mut buf).unwrap();
        assert!(buf[..length].starts_with(b"{\"Error\":"));
    }
}
