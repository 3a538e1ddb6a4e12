//! The HTTPS server where tokens are redeemed.
//!
//! Clients are unknown: body, head, time and number of connections are bounded. When there are too
//! many connections the oldest one of the address that has the most is closed: idle ones cannot keep
//! new clients out, and many at once do not throw out those of others. A client whose connection ended
//! before its response came asks again for the same one.

use super::{
    Refusal, SharedGrantStore,
    attempts::{FailedAttempts, counted_address},
    undelivered::{RedemptionKey, Undelivered},
};
use crate::{
    http_server::{ConnectionLimits, HttpResult, accept, serve_connection, text, with_type},
    model::Name,
    telemetry::Failures,
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
    sync::{Notify, Semaphore, oneshot},
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

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
    redeemer: Arc<Redeemer>,
    attempts: Mutex<FailedAttempts>,
    refusals: Failures,
}

/// Redeems one token after another, on threads for blocking work.
struct Redeemer {
    store: SharedGrantStore,
    undelivered: Mutex<Undelivered>,
    /// Notified of each redemption.
    redeemed: Arc<Notify>,
    /// One redemption at a time waits for the disk, so that many take no more than one thread.
    turn: Semaphore,
}

/// What a client asks for.
struct RedemptionRequest {
    peer: SocketAddr,
    key: RedemptionKey,
    id: String,
    code: Zeroizing<Vec<u8>>,
    name: Option<Name>,
    subject: Option<String>,
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

/// A connection, which may end before its response is delivered.
struct Delivery<'a> {
    redeemer: &'a Redeemer,
    /// What is redeemed over it.
    key: Mutex<Option<RedemptionKey>>,
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key.get_mut() {
            self.redeemer.undelivered.lock().abandoned(key);
        }
    }
}

impl GrantHandler {
    /// `redeemed` is notified of each redemption.
    pub fn new(store: SharedGrantStore, redeemed: Arc<Notify>) -> Self {
        Self {
            redeemer: Arc::new(Redeemer {
                store,
                undelivered: Mutex::default(),
                redeemed,
                turn: Semaphore::new(1),
            }),
            attempts: Mutex::default(),
            refusals: Failures::new(),
        }
    }

    /// Answers one request. `stream` is the connection above TLS.
    pub async fn handle<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        peer: SocketAddr,
    ) -> io::Result<()> {
        let delivery = Delivery {
            redeemer: &self.redeemer,
            key: Mutex::new(None),
        };
        serve_connection(stream, LIMITS, |request| {
            self.respond(peer, request, &delivery.key)
        })
        .await
        .map_err(io::Error::other)?;
        // The whole response was sent.
        if let Some(key) = delivery.key.lock().take() {
            self.redeemer.undelivered.lock().delivered(&key);
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
        if let Some(documents) = self.redeemer.response(&key) {
            tracing::info!(%peer, "resending response of redemption");
            *answered.lock() = Some(key);
            return Ok(documents);
        }
        let code = Zeroizing::new(code.to_vec());
        let result = match self.check(peer, id, &code) {
            Ok(()) => {
                // The connection may end while the disk is waited for.
                *answered.lock() = Some(key.clone());
                let request = RedemptionRequest {
                    peer,
                    key,
                    id: id.to_owned(),
                    code,
                    name,
                    subject: subject.map(ToOwned::to_owned),
                };
                redeem(self.redeemer.clone(), request).await
            }
            Err((refusal, delay)) => {
                // A sleep of zero would still wait for the timer's next tick.
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                Err(refusal)
            }
        };
        if let Err(refusal) = &result {
            *answered.lock() = None;
            if let Some(suppressed) = self.refusals.count_and_report(Instant::now()) {
                let reason = refusal.text();
                tracing::warn!(%peer, reason, suppressed, "redemption refused");
            }
        }
        result
    }

    /// Checks a code, and counts a wrong one before the next is checked: many requests at once get no more
    /// guesses than one after another. Returns the delay of the response with a refusal.
    fn check(&self, peer: SocketAddr, id: &str, code: &[u8]) -> Result<(), (Refusal, Duration)> {
        let mut attempts = self.attempts.lock();
        if attempts.is_blocked(peer.ip(), Instant::now()) {
            return Err((Refusal::TooMany, Duration::ZERO));
        }
        let checked = self.redeemer.store.check(id, code, jiff::Timestamp::now());
        checked.map_err(|refusal| {
            let delay = match refusal {
                Refusal::WrongCode | Refusal::Unknown => attempts.record(peer.ip(), Instant::now()),
                _ => Duration::ZERO,
            };
            (refusal, delay)
        })
    }
}

/// Redeems a token. What has begun is completed when the client goes, and is there when it asks again.
async fn redeem(redeemer: Arc<Redeemer>, request: RedemptionRequest) -> Result<String, Refusal> {
    let (answer, answered) = oneshot::channel();
    tokio::spawn(async move {
        // The semaphore is never closed.
        let _turn = redeemer.turn.acquire().await;
        // While it waited its client may have gone.
        if answer.is_closed() {
            return;
        }
        let (here, key) = (redeemer.clone(), request.key.clone());
        let result = tokio::task::spawn_blocking(move || here.redeem(request)).await;
        let result = result.unwrap_or(Err(Refusal::Internal));
        // As above.
        if answer.send(result).is_err() {
            redeemer.undelivered.lock().abandoned(&key);
        }
    });
    answered.await.unwrap_or(Err(Refusal::Internal))
}

impl Redeemer {
    /// The response of an earlier request that may not have been delivered.
    fn response(&self, key: &RedemptionKey) -> Option<String> {
        self.undelivered.lock().find(key, Instant::now())
    }

    fn redeem(&self, request: RedemptionRequest) -> Result<String, Refusal> {
        let RedemptionRequest { peer, key, .. } = request;
        // An earlier request of this client, which was waiting for the disk when this one came.
        if let Some(documents) = self.response(&key) {
            return Ok(documents);
        }
        let (id, subject) = (&request.id, request.subject.as_deref());
        let now = jiff::Timestamp::now();
        let redeemed = self
            .store
            .redeem(id, &request.code, request.name, subject, now)?;
        let documents = redeemed.documents;
        self.undelivered.lock().add(key, &documents, Instant::now());
        tracing::info!(
            %peer,
            grant = %redeemed.grant,
            subject = redeemed.subject,
            serial = redeemed.serial,
            "issued credentials for access token"
        );
        self.redeemed.notify_one();
        Ok(documents)
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
