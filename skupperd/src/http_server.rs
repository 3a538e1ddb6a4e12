//! Shared by the HTTP servers of this program: the accept loop, and a connection with limits.
//!
//! Three servers use it: the grant server (`access`), the metrics server (`observe`) and the console
//! of the command (`cli`). Each adds its own part: TLS, the rights of a reader, the token. All of them
//! speak HTTP/1.1 and answer from memory.
//!
//! Callers own the listening socket and spawn the tasks. Time, connections and the size of a request
//! are bounded by [`ConnectionLimits`] and a semaphore. It knows no paths and no users.

use crate::telemetry::Failures;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};

/// Pause after an accept that failed, for example for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub type HttpResult = Result<Response<Full<Bytes>>, hyper::http::Error>;

#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Time for the head of a request, and between two requests of a connection.
    pub head_timeout: Duration,
    /// Largest head of a request in bytes; `None`: hyper's own limit.
    pub max_head: Option<usize>,
    pub keep_alive: bool,
}

/// Failures to accept, of all servers: they have one cause.
static NOT_ACCEPTED: Failures = Failures::new();

/// Accepts the next connection. Failures are retried after a pause, and logged at a limited rate with
/// the name of the server.
pub async fn accept<T, F>(server: &str, mut accept: impl FnMut() -> F) -> T
where
    F: Future<Output = io::Result<T>>,
{
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                if let Some(suppressed) = NOT_ACCEPTED.count_and_report(Instant::now()) {
                    tracing::warn!(%error, server, suppressed, "cannot accept connection");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Accepts connections until dropped and runs each in a task of its own, no more at a time than
/// there are permits; further ones wait.
pub async fn serve_each<T, F, C>(
    server: &str,
    permits: Arc<Semaphore>,
    mut accept_one: impl FnMut() -> F,
    connection: impl Fn(T) -> C,
) where
    F: Future<Output = io::Result<T>>,
    C: Future<Output = ()> + Send + 'static,
{
    loop {
        let accepted = accept(server, &mut accept_one).await;
        // The semaphore is never closed.
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let connection = connection(accepted);
        tokio::spawn(async move {
            connection.await;
            drop(permit);
        });
    }
}

/// Answers the requests of one connection until it ends. `stream` may be anything that carries bytes.
pub async fn serve_connection<S, F>(
    stream: S,
    limits: ConnectionLimits,
    respond: impl Fn(Request<Incoming>) -> F,
) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = HttpResult>,
{
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .keep_alive(limits.keep_alive);
    if let Some(size) = limits.max_head {
        builder.max_buf_size(size);
    }
    builder
        .serve_connection(TokioIo::new(stream), service_fn(respond))
        .await
}

/// A response of plain text.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> HttpResult {
    with_type(status, "text/plain; charset=utf-8", text)
}

pub fn with_type(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> HttpResult {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, content_type)
        .body(Full::new(body.into()))
}

/// The refusal of a request that would change something; `None` for a GET or HEAD.
pub fn refuse_writes<B>(request: &Request<B>) -> Option<HttpResult> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    (!reads).then(|| {
        Response::builder()
            .status(StatusCode::METHOD_NOT_ALLOWED)
            .header(ALLOW, "GET, HEAD")
            .body(Full::from("only GET and HEAD are supported\n"))
    })
}
