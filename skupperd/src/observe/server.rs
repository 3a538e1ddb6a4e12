//! The HTTP server of those who watch: `GET /metrics`, `/services`, `/connections`, `/steering` and
//! `/healthz`, nothing else.
//!
//! Addresses of clients are personal data: connections are shown to root and to the daemon's own user,
//! who are known by the local socket, and to nobody by way of the network.

use super::{Health, connections, metrics::render};
use crate::{
    link::ledger::Ledger,
    steer::{Lister, Meter, accel::Acceleration},
    store::Published,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header::CONTENT_TYPE,
    server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener, UnixStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

/// Requests at a time; more wait.
const MAX_OPEN: usize = 32;
/// Time for the head of a request. Scrapers send it at once.
const HEAD: Duration = Duration::from_secs(5);
/// Time for a whole connection: they are not kept open.
const WHOLE: Duration = Duration::from_secs(10);
/// Pause after an accept that failed, for example for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Form of the text, as the OpenMetrics specification names it.
const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Time in which an event loop has to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// What there is, for those who ask for something else.
const PATHS: &str =
    "there are /metrics, /services, /connections, /requests, /steering and /healthz\n";
/// Why connections are not shown.
const UNTRUSTED: &str = "connections and requests are shown to root and to the daemon's own user, on the local socket\n";

/// How steering is seen.
#[derive(Clone)]
pub struct Steering {
    /// Counts connections; none when the kernel does not steer.
    pub meter: Option<Meter>,
    /// Says what is steered where.
    pub listing: Lister,
}

/// What is shown.
#[derive(Clone)]
struct Watched {
    published: watch::Receiver<Arc<Published>>,
    health: Health,
    steering: Steering,
    acceleration: Arc<Acceleration>,
    ledger: Ledger,
}

impl Watched {
    fn render(&self) -> Result<String, std::fmt::Error> {
        let published = self.published.borrow().clone();
        let totals = self.steering.meter.as_ref().and_then(|meter| meter());
        let hops = self.acceleration.totals();
        let listing = (self.steering.listing)();
        render(&published, &listing, totals, hops, &self.ledger)
    }
}

/// Why nobody can watch.
#[derive(Debug, thiserror::Error)]
#[error("{op} {at}")]
pub struct ObserveError {
    op: &'static str,
    at: String,
    #[source]
    source: io::Error,
}

fn error(op: &'static str, at: impl ToString) -> impl FnOnce(io::Error) -> ObserveError {
    let at = at.to_string();
    move |source| ObserveError { op, at, source }
}

/// Serves on `metrics.sock` in `dir`, and on an address when one is named, until the result is dropped.
pub async fn serve(
    dir: &Path,
    address: Option<SocketAddr>,
    published: watch::Receiver<Arc<Published>>,
    health: Health,
    steering: Steering,
    acceleration: Arc<Acceleration>,
    ledger: Ledger,
) -> Result<JoinSet<()>, ObserveError> {
    let mut tasks = JoinSet::new();
    let watched = Watched {
        published,
        health,
        steering,
        acceleration,
        ledger,
    };
    let limit = Arc::new(Semaphore::new(MAX_OPEN));
    let listener = local(dir)?;
    let (seen, permits) = (watched.clone(), limit.clone());
    tasks.spawn(async move {
        loop {
            let accepted = listener.accept().await.map(|(socket, _)| socket);
            let trusted = accepted.as_ref().is_ok_and(is_trusted);
            each(accepted, trusted, &seen, &permits).await;
        }
    });
    if let Some(address) = address {
        let bound = TcpListener::bind(address).await;
        let listener = bound.map_err(error("binding the metrics address", address))?;
        tasks.spawn(async move {
            loop {
                let accepted = listener.accept().await.map(|(socket, _)| socket);
                each(accepted, false, &watched, &limit).await;
            }
        });
    }
    Ok(tasks)
}

fn local(dir: &Path) -> Result<UnixListener, ObserveError> {
    fs::create_dir_all(dir).map_err(error("making directory", dir.display()))?;
    let path: PathBuf = dir.join("metrics.sock");
    // One daemon has these directories: a socket that is there is left from its last life.
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(error("removing", path.display())(e));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(error("binding", path.display()))?;
    // Metrics name sites and services; who may see them is up to the directory. Who may see
    // connections is asked of each reader.
    let mode = fs::Permissions::from_mode(0o666);
    fs::set_permissions(&path, mode).map_err(error("opening to readers", path.display()))?;
    Ok(listener)
}

/// The reader is root or the user that the daemon runs as.
fn is_trusted(socket: &UnixStream) -> bool {
    let Ok(reader) = socket.peer_cred() else {
        return false;
    };
    reader.uid() == 0 || reader.uid() == crate::sys::user()
}

async fn each<S>(accepted: io::Result<S>, trusted: bool, watched: &Watched, limit: &Arc<Semaphore>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let socket = match accepted {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "accepting a reader of metrics");
            tokio::time::sleep(PAUSE).await;
            return;
        }
    };
    let Ok(permit) = limit.clone().acquire_owned().await else {
        return;
    };
    let watched = watched.clone();
    tokio::spawn(async move {
        let _permit = permit;
        let service = service_fn(|request: Request<Incoming>| {
            let watched = watched.clone();
            async move { answer(&request, trusted, &watched).await }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .keep_alive(false)
            .serve_connection(TokioIo::new(socket), service);
        match tokio::time::timeout(WHOLE, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "reader of metrics"),
            Err(_) => tracing::debug!("reader of metrics took too long"),
        }
    });
}

async fn answer(
    request: &Request<Incoming>,
    trusted: bool,
    watched: &Watched,
) -> Result<Response<Full<Bytes>>, hyper::http::Error> {
    let text = |status: StatusCode, text: &'static str| {
        Response::builder()
            .status(status)
            .body(Full::from(text.as_bytes()))
    };
    let json = |results| {
        Response::builder()
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(connections::list(results).to_string()))
    };
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => {
            let silent = watched.health.silent(ANSWER).await;
            if silent.is_empty() {
                return text(StatusCode::OK, "OK\n");
            }
            Response::builder()
                .status(StatusCode::SERVICE_UNAVAILABLE)
                .body(Full::from(format!("no answer: {}\n", silent.join(", "))))
        }
        (&Method::GET, "/metrics") => match watched.render() {
            Ok(metrics) => Response::builder()
                .header(CONTENT_TYPE, TYPE)
                .body(Full::from(metrics)),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "encoding metrics\n"),
        },
        (&Method::GET, "/services") => {
            let services = watched.ledger.services();
            json(services.iter().map(connections::service).collect())
        }
        (&Method::GET, "/connections" | "/requests") if !trusted => {
            text(StatusCode::FORBIDDEN, UNTRUSTED)
        }
        (&Method::GET, path @ ("/connections" | "/requests")) => {
            match connections::query(request.uri().query().unwrap_or_default()) {
                Ok(query) if path == "/requests" => {
                    let records = watched.ledger.requests(&query);
                    json(records.iter().map(connections::request).collect())
                }
                Ok(query) => {
                    let records = watched.ledger.records(&query);
                    json(records.iter().map(connections::connection).collect())
                }
                Err(why) => Response::builder()
                    .status(StatusCode::BAD_REQUEST)
                    .body(Full::from(format!("{why}\n"))),
            }
        }
        (&Method::GET, "/steering") => match serde_json::to_string(&(watched.steering.listing)()) {
            Ok(listing) => Response::builder()
                .header(CONTENT_TYPE, "application/json")
                .body(Full::from(listing)),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "encoding bindings\n"),
        },
        (&Method::GET, _) => text(StatusCode::NOT_FOUND, PATHS),
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n"),
    }
}
