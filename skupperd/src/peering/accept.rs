//! Accepting: links of other routers, and AMQP clients.
//!
//! Peers are unknown until the handshake is over. A peer whose ClientHello is not there after two seconds is
//! dropped. There is a limit for one address, and one for all; one connection more ends the oldest
//! without a ClientHello, or else the oldest. So idle connections keep no peer out.

use crate::{
    amqp::connection::Config,
    link::handshake::{self, Security},
    messages::{AcceptPort, CoreEvent, CoreSender},
    sys::prepare,
    telemetry::{self, Failures},
};
use nix::sys::socket::{MsgFlags, recv};
use socket2::SockRef;
use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::Interest,
    net::TcpStream,
    task::{AbortHandle, JoinSet},
};

/// Handshakes under way on one port. Each has buffers of about 20 KiB.
const MAX_HANDSHAKES: usize = 512;
/// The same from one address: a site connects once, and once for each of its workers.
const MAX_OF_ADDRESS: usize = 256;
/// Time in which the ClientHello has to come; of an AMQP client of this host, the first byte.
const HELLO: Duration = Duration::from_secs(2);
/// Longest ClientHello that is waited for; of a longer one, its beginning.
const MAX_HELLO: usize = 4 * 1024;
/// Failures that are logged each, in the time of [`LOG_WINDOW`]; of the others, one now and then.
const MAX_LOGGED: u32 = 16;
const LOG_WINDOW: Duration = Duration::from_secs(10);
/// Pause after the system refused to accept: out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Failures to accept, of all ports.
static NOT_ACCEPTED: Failures = Failures::new();

/// A handshake under way.
struct Handshake {
    address: IpAddr,
    /// The peer has sent its ClientHello.
    begun: Arc<AtomicBool>,
    task: AbortHandle,
}

/// The handshakes under way on one port, oldest first.
#[derive(Default)]
struct Handshakes {
    open: VecDeque<Handshake>,
}

impl Handshakes {
    /// Makes room for one more from this address.
    fn make_room(&mut self, address: IpAddr) {
        self.open.retain(|handshake| !handshake.task.is_finished());
        let of_address = self.open.iter().filter(|h| h.address == address).count();
        let all = self.open.len() >= MAX_HANDSHAKES;
        if of_address < MAX_OF_ADDRESS && !all {
            return;
        }
        let may_end = |h: &Handshake| all || h.address == address;
        let silent = |h: &Handshake| may_end(h) && !h.begun.load(Ordering::Relaxed);
        let oldest = self.open.iter().position(silent);
        let oldest = oldest.or_else(|| self.open.iter().position(may_end));
        if let Some(handshake) = oldest.and_then(|n| self.open.remove(n)) {
            handshake.task.abort();
            tracing::debug!(address = %handshake.address, "too many handshakes; closing the oldest");
        }
    }
}

/// Failures of strangers: any number can be caused, and few are logged.
#[derive(Default)]
struct Refusals {
    window: parking_lot::Mutex<Option<(Instant, u32)>>,
    unlogged: Failures,
}

impl Refusals {
    /// Whether one more is logged; with how many before it were not.
    fn count_and_report(&self, now: Instant) -> Option<u64> {
        let mut window = self.window.lock();
        let (since, count) = match *window {
            Some((since, count)) if now.saturating_duration_since(since) < LOG_WINDOW => {
                (since, count)
            }
            _ => (now, 0),
        };
        *window = Some((since, count.saturating_add(1)));
        match count {
            0..MAX_LOGGED => Some(0),
            _ => self.unlogged.count_and_report(now),
        }
    }
}

/// The address that counts: a host with IPv6 can use every address of its /64.
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Accepts on a port until dropped.
pub(crate) async fn port(
    listener: TcpListener,
    site: u32,
    port: AcceptPort,
    core: CoreSender,
    open: impl Fn() -> Config + Clone + Send + 'static,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot accept links: the socket cannot be watched");
            return;
        }
    };
    let refusals = Arc::new(Refusals::default());
    let mut handshakes = Handshakes::default();
    // Handshakes end with this task.
    let mut tasks = JoinSet::new();
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(suppressed) = NOT_ACCEPTED.count_and_report(Instant::now()) {
                    tracing::warn!(%error, suppressed, "cannot accept connection");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while tasks.try_join_next().is_some() {}
        let address = counted(peer.ip());
        handshakes.make_room(address);
        let begun = Arc::new(AtomicBool::new(false));
        let (core, port, open) = (core.clone(), port.clone(), open.clone());
        let (refusals, has_begun) = (refusals.clone(), begun.clone());
        let task = tasks.spawn(async move {
            let established = serve(socket, peer, &port, open(), &has_begun).await;
            match established {
                Ok(Some(established)) => core.send(CoreEvent::Accepted {
                    site,
                    port,
                    established: Box::new(established),
                }),
                Ok(None) => {}
                Err(error) => {
                    if let Some(suppressed) = refusals.count_and_report(Instant::now()) {
                        tracing::warn!(%peer, %error, suppressed, "cannot accept link: handshake failed");
                    }
                }
            }
        });
        handshakes.open.push_back(Handshake {
            address,
            begun,
            task,
        });
    }
}

/// Waits for the first message of a peer, which stays in the socket. What is no TLS, and the end of a
/// connection, are left to the handshake.
async fn hello(socket: &TcpStream) -> io::Result<()> {
    let mut bytes = vec![0; MAX_HELLO];
    loop {
        let ready = socket.ready(Interest::READABLE).await?;
        let peek = || {
            let n = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_PEEK)?;
            // Of a peer that has closed nothing more comes, and its socket stays ready: to wait would
            // be to spin.
            if n < MAX_HELLO && is_partial_hello(&bytes[..n]) && !ready.is_read_closed() {
                // Clears the readiness, which comes back with the next bytes.
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        };
        match socket.try_io(Interest::READABLE, peek) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}

/// Whether these are the first bytes of a TLS handshake record that goes on.
fn is_partial_hello(bytes: &[u8]) -> bool {
    const HANDSHAKE: u8 = 22;
    match bytes {
        [HANDSHAKE, _, _, high, low, rest @ ..] => {
            rest.len() < usize::from(u16::from_be_bytes([*high, *low]))
        }
        [HANDSHAKE, ..] => true,
        _ => false,
    }
}

/// Takes a connection to where it is opened. `None`: the peer is gone.
async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    port: &AcceptPort,
    open: Config,
    begun: &AtomicBool,
) -> Result<Option<handshake::Established>, String> {
    if let Err(error) = prepare(&SockRef::from(&socket)) {
        tracing::debug!(%error, %peer, "peer closed before the handshake");
        return Ok(None);
    }
    match tokio::time::timeout(HELLO, hello(&socket)).await {
        Ok(Ok(())) => begun.store(true, Ordering::Relaxed),
        Ok(Err(error)) => return Err(format!("waiting for the ClientHello: {error}")),
        Err(_) => return Err(format!("no ClientHello within {} s", HELLO.as_secs())),
    }
    let security = match port {
        AcceptPort::Links { tls, revoked, .. } => {
            Security::Server(tls.load_full(), revoked.clone())
        }
        AcceptPort::Local => Security::None,
    };
    match handshake::run(socket, security, open).await {
        Ok(established) => Ok(Some(established)),
        Err(error) => Err(telemetry::chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn add(handshakes: &mut Handshakes, tasks: &mut JoinSet<()>, address: IpAddr, begun: bool) {
        handshakes.make_room(address);
        let task = tasks.spawn(std::future::pending());
        handshakes.open.push_back(Handshake {
            address,
            begun: Arc::new(AtomicBool::new(begun)),
            task,
        });
    }

    #[tokio::test]
    async fn silent_connections_of_an_address_end_first() {
        let (mut handshakes, mut tasks) = (Handshakes::default(), JoinSet::new());
        add(&mut handshakes, &mut tasks, ip(1), true);
        add(&mut handshakes, &mut tasks, ip(2), false);
        for _ in 2..MAX_OF_ADDRESS + 50 {
            add(&mut handshakes, &mut tasks, ip(1), false);
        }
        let of = |n| {
            handshakes
                .open
                .iter()
                .filter(|h| h.address == ip(n))
                .count()
        };
        assert_eq!((of(1), of(2)), (MAX_OF_ADDRESS, 1));
        assert!(
            handshakes.open[0].begun.load(Ordering::Relaxed),
            "it had sent something"
        );
    }

    #[tokio::test]
    async fn over_the_total_limit_the_oldest_silent_handshake_ends() {
        let (mut handshakes, mut tasks) = (Handshakes::default(), JoinSet::new());
        for n in 0..MAX_HANDSHAKES {
            add(&mut handshakes, &mut tasks, ip((n % 200) as u8), n != 7);
        }
        add(&mut handshakes, &mut tasks, ip(250), false);
        assert_eq!(handshakes.open.len(), MAX_HANDSHAKES);
        assert!(
            handshakes
                .open
                .iter()
                .take(MAX_HANDSHAKES - 1)
                .all(|h| h.begun.load(Ordering::Relaxed))
        );
        // None of them is silent but the newest: it is not the oldest that ends for it.
        add(&mut handshakes, &mut tasks, ip(251), true);
        assert_eq!(handshakes.open.len(), MAX_HANDSHAKES);
    }

    #[tokio::test]
    async fn a_peer_that_closes_after_half_a_hello_is_left_to_the_handshake() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("a socket");
        let addr = listener.local_addr().expect("an address");
        let mut peer = std::net::TcpStream::connect(addr).expect("a connection");
        let (socket, _) = listener.accept().await.expect("accepted");
        let half = b"\x16\x03\x01\x02\x00\x01";
        io::Write::write_all(&mut peer, half).expect("sent");
        let short = Duration::from_millis(50);
        let waits = tokio::time::timeout(short, hello(&socket)).await;
        assert!(waits.is_err(), "{waits:?}");
        drop(peer);
        // It spun here before, and no timeout could end it.
        hello(&socket).await.expect("the end of the connection");
    }

    #[test]
    fn a_hello_is_partial_until_its_record_is_there() {
        let record = [22, 3, 1, 0, 3, 1, 2, 3];
        for n in 1..record.len() {
            assert!(is_partial_hello(&record[..n]), "{n}");
        }
        // Whole, with more behind it, the end, and no TLS.
        for bytes in [
            &record[..],
            &[22, 3, 1, 0, 0, 9],
            b"",
            b"AMQP\0\x01\0\0",
            b"G",
        ] {
            assert!(!is_partial_hello(bytes), "{bytes:?}");
        }
    }

    #[test]
    fn refusals_are_logged_a_few_times_and_then_now_and_then() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let logged = (0..1000)
            .filter_map(|_| refusals.count_and_report(start))
            .count();
        assert_eq!(logged, MAX_LOGGED as usize + 1);
        let later = start + LOG_WINDOW;
        assert_eq!(refusals.count_and_report(later), Some(0));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let ip = |text: &str| counted(text.parse().expect("an address"));
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::ffff:1"));
        assert_ne!(ip("2001:db8::1"), ip("2001:db8:0:1::1"));
        assert_eq!(ip("::ffff:192.0.2.1"), ip("192.0.2.1"));
    }
}
