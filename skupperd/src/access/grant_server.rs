//! The HTTPS server where tokens are redeemed.
//!
//! Clients are unknown: body, head, time and number of connections are bounded. When there are too
//! many connections the oldest one of the address that has the most is closed: idle ones cannot keep
//! new clients out, and many at once do not throw out those of others. A client whose connection ended
//! before its response came asks again for the same one.

use super::{
    Redemption, Refusal, SharedGrantStore,
    attempts::{FailedAttempts, counted_address},
    undelivered::{RedemptionKey, Undelivered},
};
use crate::{
    http_server::{ConnectionLimits, HttpResult, accept, serve_connection, text, with_type},
    model::Name,
};
use arc_swap::ArcSwap;
use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Incoming,
    header::{HeaderValue, RETRY_AFTER},
};
use parking_lot::Mutex;
use rustls::ServerConfig;
use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

/// Time for handshake, request and response together. Skupper's clients give up after as long.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Open connections of a socket; one more closes the oldest of the address that has the most.
const MAX_OPEN: usize = 256;
/// Largest body in bytes: a code has 24 characters.
const MAX_BODY: usize = 4096;
/// The head is limited to a little above what hyper needs.
const LIMITS: ConnectionLimits = ConnectionLimits {
    head_timeout: TIMEOUT,
    max_head: Some(16 * 1024),
    keep_alive: false,
};
/// Longest subject that a client may ask for, in bytes.
const MAX_SUBJECT: usize = 256;

/// A running server; it stops when dropped.
pub struct GrantServer {
    tls: SharedTls,
    /// Aborted when dropped.
    _tasks: JoinSet<()>,
}

/// Certificate and rules of the server.
pub type GrantTls = Arc<ServerConfig>;
type SharedTls = Arc<ArcSwap<ServerConfig>>;

impl GrantServer {
    /// Replaces the certificate for new connections.
    pub fn set_tls(&self, tls: GrantTls) {
        self.tls.store(tls);
    }
}

/// Answers redemption requests, and slows clients that guess codes.
pub struct GrantHandler {
    store: SharedGrantStore,
    attempts: Mutex<FailedAttempts>,
    undelivered: Mutex<Undelivered>,
    /// Notified of each redemption.
    redeemed: Arc<Notify>,
}

pub fn serve(
    sockets: Vec<std::net::TcpListener>,
    tls: GrantTls,
    store: SharedGrantStore,
    redeemed: Arc<Notify>,
) -> io::Result<GrantServer> {
    let handler = Arc::new(GrantHandler::new(store, redeemed));
    let tls = SharedTls::new(ArcSwap::new(tls));
    let mut tasks = JoinSet::new();
    for socket in sockets {
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket)?;
        tasks.spawn(serve_socket(listener, tls.clone(), handler.clone()));
    }
    Ok(GrantServer { tls, _tasks: tasks })
}

async fn serve_socket(listener: TcpListener, tls: SharedTls, handler: Arc<GrantHandler>) {
    // Connections end with this task.
    let mut open = JoinSet::new();
    let mut oldest: VecDeque<(IpAddr, AbortHandle)> = VecDeque::new();
    loop {
        let (socket, peer) = accept("grants", || listener.accept()).await;
        while open.try_join_next().is_some() {}
        oldest.retain(|(_, task)| !task.is_finished());
        if oldest.len() >= MAX_OPEN
            && let Some((_, task)) = most_crowded(&oldest).and_then(|n| oldest.remove(n))
        {
            task.abort();
        }
        let (tls, handler) = (TlsAcceptor::from(tls.load_full()), handler.clone());
        let task = open.spawn(async move {
            match timeout(TIMEOUT, serve_client(tls, &handler, socket, peer)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%peer, %error, "redemption connection failed"),
                Err(_) => tracing::debug!(%peer, "redemption connection timed out"),
            }
        });
        oldest.push_back((counted_address(peer.ip()), task));
    }
}

/// The first entry of the address that has the most.
fn most_crowded<T>(open: &VecDeque<(IpAddr, T)>) -> Option<usize> {
    let mut counts: HashMap<IpAddr, usize> = HashMap::new();
    for (address, _) in open {
        *counts.entry(*address).or_default() += 1;
    }
    let most = counts.values().max()?;
    open.iter()
        .position(|(address, _)| counts.get(address) == Some(most))
}

async fn serve_client(
    tls: TlsAcceptor,
    handler: &GrantHandler,
    socket: TcpStream,
    peer: SocketAddr,
) -> io::Result<()> {
    handler.handle(tls.accept(socket).await?, peer).await
}

impl GrantHandler {
    /// `redeemed` is notified of each redemption.
    pub fn new(store: SharedGrantStore, redeemed: Arc<Notify>) -> Self {
        Self {
            store,
            attempts: Mutex::default(),
            undelivered: Mutex::default(),
            redeemed,
        }
    }

    /// Answers one request. `stream` is the connection above TLS.
    pub async fn handle<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        peer: SocketAddr,
    ) -> io::Result<()> {
        let answered = Mutex::new(None);
        serve_connection(stream, LIMITS, |request| {
            self.respond(peer, request, &answered)
        })
        .await
        .map_err(io::Error::other)?;
        // The whole response was sent.
        if let Some(key) = answered.into_inner() {
            self.undelivered.lock().delivered(&key);
        }
        Ok(())
    }

    /// `answered` becomes what was redeemed.
    async fn respond(
        &self,
        peer: SocketAddr,
        request: Request<Incoming>,
        answered: &Mutex<Option<RedemptionKey>>,
    ) -> HttpResult {
        match self.redeem(peer, request, answered).await {
            Ok(documents) => with_type(StatusCode::OK, "application/yaml", documents),
            Err(refusal) => {
                let status = StatusCode::from_u16(refusal.status());
                let status = status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
                let mut response = text(status, format!("{}\n", refusal.text()))?;
                if refusal == Refusal::TooMany {
                    let wait = HeaderValue::from_static("60");
                    response.headers_mut().insert(RETRY_AFTER, wait);
                }
                Ok(response)
            }
        }
    }

    async fn redeem(
        &self,
        peer: SocketAddr,
        request: Request<Incoming>,
        answered: &Mutex<Option<RedemptionKey>>,
    ) -> Result<String, Refusal> {
        if request.method() != Method::POST {
            return Err(Refusal::Method);
        }
        if self.attempts.lock().is_blocked(peer.ip(), Instant::now()) {
            return Err(Refusal::TooMany);
        }
        let (head, body) = request.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await;
        let code = body.map_err(|_| Refusal::Body)?.to_bytes();
        let header = |name| {
            head.headers
                .get(name)
                .and_then(|v: &HeaderValue| v.to_str().ok())
        };
        // Documents with an invalid name cannot be applied.
        let name = header("name").filter(|n| !n.is_empty()).map(Name::new);
        let name = name.transpose().map_err(|_| Refusal::Body)?;
        let subject = header("subject").filter(|s| s.len() <= MAX_SUBJECT);
        let id = head.uri.path().trim_start_matches('/');
        let key = RedemptionKey::new(peer.ip(), id, &code, name.as_deref(), subject);
        if let Some(documents) = self.undelivered.lock().find(&key, Instant::now()) {
            tracing::info!(%peer, "resending response of redemption");
            *answered.lock() = Some(key);
            return Ok(documents);
        }
        let (result, delay) = self.attempt(peer, id, &code, name, subject);
        match &result {
            Ok(redemption) => {
                let mut undelivered = self.undelivered.lock();
                undelivered.add(key.clone(), &redemption.documents, Instant::now());
                drop(undelivered);
                *answered.lock() = Some(key);
                tracing::info!(
                    %peer,
                    grant = %redemption.grant,
                    subject = redemption.subject,
                    serial = redemption.serial,
                    "issued credentials for access token"
                );
                self.redeemed.notify_one();
            }
            Err(refusal) => {
                tracing::warn!(%peer, reason = refusal.text(), "redemption refused");
                // A sleep of zero would still wait for the timer's next tick.
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
            }
        }
        result.map(|redemption| redemption.documents)
    }

    /// Tries a code, and counts a wrong one before the next is tried: many requests at once get no more
    /// guesses than one after another. Returns the delay of the response too.
    fn attempt(
        &self,
        peer: SocketAddr,
        id: &str,
        code: &[u8],
        name: Option<Name>,
        subject: Option<&str>,
    ) -> (Result<Redemption, Refusal>, Duration) {
        let mut attempts = self.attempts.lock();
        if attempts.is_blocked(peer.ip(), Instant::now()) {
            return (Err(Refusal::TooMany), Duration::ZERO);
        }
        let now = jiff::Timestamp::now();
        let result = self.store.lock().redeem(id, code, name, subject, now);
        let delay = match result {
            Err(Refusal::WrongCode | Refusal::Unknown) => {
                attempts.record(peer.ip(), Instant::now())
            }
            _ => Duration::ZERO,
        };
        (result, delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_connection_of_the_address_with_the_most_is_closed() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (one, many) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let mut open: VecDeque<(IpAddr, u8)> = VecDeque::new();
        assert_eq!(most_crowded(&open), None);
        open.push_back((one, 0));
        assert_eq!(most_crowded(&open), Some(0));
        open.extend([(many, 1), (many, 2), (one, 3), (many, 4)]);
        assert_eq!(most_crowded(&open), Some(1));
    }
}
