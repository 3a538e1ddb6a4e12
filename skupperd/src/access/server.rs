//! The HTTPS server where tokens are redeemed. Whoever comes is a stranger: sizes, times and numbers
//! are bounded, and the newest connection is the last to suffer from it.

use super::{Desk, Refusal, attempts::Attempts};
use crate::model::Name;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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

/// Time for everything: handshake, request and answer. Upstream's clients give up after as long.
const DEADLINE: Duration = Duration::from_secs(10);
/// Open connections. One more ends the oldest: those that do nothing go first.
const MAX_OPEN: usize = 256;
/// Largest body: a code has 24 characters.
const MAX_BODY: usize = 4096;
/// Largest head of a request, a little above what hyper needs.
const MAX_HEAD: usize = 16 * 1024;
/// Pause after an accept that failed, for example for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A running server; it ends when dropped.
pub struct Server {
    /// Aborted when dropped.
    _tasks: JoinSet<()>,
}

/// Where requests are heard: the desk, and what is remembered of who guessed.
pub struct Window {
    desk: Arc<Mutex<Desk>>,
    attempts: Mutex<Attempts>,
    /// Told of each redemption.
    redeemed: Arc<Notify>,
}

/// Nothing that holds a lock panics in the middle of a change.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves the desk on these sockets.
pub fn serve(
    sockets: Vec<std::net::TcpListener>,
    tls: Arc<ServerConfig>,
    desk: Arc<Mutex<Desk>>,
    redeemed: Arc<Notify>,
) -> io::Result<Server> {
    let window = Arc::new(Window::new(desk, redeemed));
    let tls = TlsAcceptor::from(tls);
    let mut tasks = JoinSet::new();
    for socket in sockets {
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket)?;
        tasks.spawn(accept(listener, tls.clone(), window.clone()));
    }
    Ok(Server { _tasks: tasks })
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, window: Arc<Window>) {
    // Dropped with this task, and its connections with it.
    let mut open = JoinSet::new();
    let mut oldest: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a redemption");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        while open.try_join_next().is_some() {}
        oldest.retain(|task| !task.is_finished());
        if oldest.len() >= MAX_OPEN
            && let Some(task) = oldest.pop_front()
        {
            task.abort();
        }
        let (tls, window) = (tls.clone(), window.clone());
        oldest.push_back(open.spawn(async move {
            match timeout(DEADLINE, connection(tls, &window, socket, peer)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%peer, %error, "redemption"),
                Err(_) => tracing::debug!(%peer, "redemption took too long"),
            }
        }));
    }
}

async fn connection(
    tls: TlsAcceptor,
    window: &Window,
    socket: TcpStream,
    peer: SocketAddr,
) -> io::Result<()> {
    window.hear(tls.accept(socket).await?, peer).await
}

impl Window {
    /// A window of this desk. `redeemed` is told of each redemption.
    pub fn new(desk: Arc<Mutex<Desk>>, redeemed: Arc<Notify>) -> Self {
        Self {
            desk,
            attempts: Mutex::default(),
            redeemed,
        }
    }

    /// Hears one request and answers it. Below is TLS, or whatever a test has in its place.
    pub async fn hear<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        peer: SocketAddr,
    ) -> io::Result<()> {
        let service = service_fn(|request| async move {
            Ok::<_, std::convert::Infallible>(answer(self, peer, request).await)
        });
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(DEADLINE)
            .max_buf_size(MAX_HEAD)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service)
            .await
            .map_err(io::Error::other)
    }
}

async fn answer(
    window: &Window,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    match redeem(window, peer, request).await {
        Ok(documents) => {
            let mut response = Response::new(Full::from(documents));
            let kind = HeaderValue::from_static("application/yaml");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(refusal) => {
            let mut response = Response::new(Full::from(format!("{}\n", refusal.text())));
            *response.status_mut() =
                StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            let headers = response.headers_mut();
            let kind = HeaderValue::from_static("text/plain; charset=utf-8");
            headers.insert(CONTENT_TYPE, kind);
            if refusal == Refusal::TooMany {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("60"));
            }
            response
        }
    }
}

async fn redeem(
    window: &Window,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<String, Refusal> {
    if request.method() != Method::POST {
        return Err(Refusal::Method);
    }
    if lock(&window.attempts)
        .wait(peer.ip(), Instant::now())
        .is_some()
    {
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
    // A name that no resource can have would make documents that nobody can apply.
    let name = header("name").filter(|n| !n.is_empty()).map(Name::new);
    let name = name.transpose().map_err(|_| Refusal::Body)?;
    let subject = header("subject").filter(|s| s.len() <= 256);
    let id = head.uri.path().trim_start_matches('/');
    let result = lock(&window.desk).redeem(id, &code, name, subject, jiff::Timestamp::now());
    match &result {
        Ok(redeemed) => {
            tracing::info!(
                %peer,
                grant = %redeemed.grant,
                subject = redeemed.subject,
                serial = redeemed.serial,
                "access token was redeemed"
            );
            window.redeemed.notify_one();
        }
        Err(refusal @ (Refusal::WrongCode | Refusal::Unknown)) => {
            let late = lock(&window.attempts).wrong(peer.ip(), Instant::now());
            tracing::warn!(%peer, reason = refusal.text(), "redemption refused");
            // Even a sleep of no time waits for the clock's next tick.
            if !late.is_zero() {
                tokio::time::sleep(late).await;
            }
        }
        Err(refusal) => tracing::warn!(%peer, reason = refusal.text(), "redemption refused"),
    }
    result.map(|redeemed| redeemed.documents)
}
