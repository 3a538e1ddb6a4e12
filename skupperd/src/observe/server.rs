//! The HTTP server of those who watch: `GET /metrics`, `/services`, `/connections`, `/steering`,
//! `/healthz`, the API and the console, nothing else.
//!
//! Addresses of clients are personal data: connections are shown to root and to the daemon's own user,
//! who are known by the local socket, to whoever shows the console's token, and to nobody else.

use super::{
    Health,
    api::{self, Answer, Seen},
    clients::Attribution,
    connections,
    console::{self, Token},
    metrics::render,
};
use crate::{
    link::ledger::Ledger,
    steer::{Lister, Meter, accel::Acceleration},
    store::Published,
    telemetry,
};
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
    fs,
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
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
const PATHS: &str = "there are /metrics, /services, /connections, /requests, /steering, /healthz, \
    and on the local socket / and /api/v2alpha1/\n";
/// Why connections are not shown.
const UNTRUSTED: &str = "connections and requests are shown to root and to the daemon's own user, on the local socket\n";
/// Why nothing is shown at the console's address.
const NO_TOKEN: &str = "skupper console prints the address with the token that belongs here\n";
/// Why a browser that was led here is shown nothing.
const NOT_HERE: &str = "this is shown under the names of this host only, as localhost\n";
/// The file in the runtime directory with the address of the console and its token.
const CONSOLE: &str = "console.url";

/// Where to serve, beside the local socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Doors {
    /// Metrics for other hosts.
    pub metrics: Option<SocketAddr>,
    /// The console, on loopback.
    pub console: Option<SocketAddr>,
}

/// Which way a reader has come.
#[derive(Clone)]
enum Door {
    /// The local socket; true: as root, or as the user that the daemon runs as.
    Local(bool),
    /// The address of the metrics.
    Metrics,
    /// The address of the console.
    Console(Token),
}

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
    attribution: Attribution,
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

/// Serves on `metrics.sock` in `dir`, and on the addresses that are named, until the result is dropped.
pub async fn serve(
    dir: &Path,
    doors: Doors,
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
        attribution: Attribution::default(),
    };
    let limit = Arc::new(Semaphore::new(MAX_OPEN));
    let listener = local(dir)?;
    let (seen, permits) = (watched.clone(), limit.clone());
    tasks.spawn(async move {
        loop {
            let accepted = listener.accept().await.map(|(socket, _)| socket);
            let trusted = accepted.as_ref().is_ok_and(is_trusted);
            each(accepted, &Door::Local(trusted), &seen, &permits).await;
        }
    });
    let url = dir.join(CONSOLE);
    remove(&url)?;
    let mut others = Vec::new();
    if let Some(address) = doors.metrics {
        let bound = TcpListener::bind(address).await;
        let listener = bound.map_err(error("binding the metrics address", address))?;
        others.push((listener, Door::Metrics));
    }
    if let Some(address) = doors.console {
        match console(address, &url).await {
            Ok(open) => others.push(open),
            // What else is watched does not hang on it.
            Err(error) => tracing::error!(error = telemetry::chain(&error), "console"),
        }
    }
    for (listener, door) in others {
        let (seen, permits) = (watched.clone(), limit.clone());
        tasks.spawn(async move {
            loop {
                let accepted = listener.accept().await.map(|(socket, _)| socket);
                each(accepted, &door, &seen, &permits).await;
            }
        });
    }
    Ok(tasks)
}

/// The console's place, with the file that says where it is and what to show there.
async fn console(address: SocketAddr, url: &Path) -> Result<(TcpListener, Door), ObserveError> {
    let bound = TcpListener::bind(address).await;
    let listener = bound.map_err(error("binding the console's address", address))?;
    let token = Token::new().ok_or_else(|| io::Error::other("no random numbers"));
    let token = token.map_err(error("making the token of the console", address))?;
    let bound = listener.local_addr();
    let bound = bound.map_err(error("asking for the console's address", address))?;
    write_private(url, &token.url(bound)).map_err(error("writing", url.display()))?;
    tracing::info!(address = %bound, "console: `skupper console` prints its address with the token");
    Ok((listener, Door::Console(token)))
}

/// One daemon has these directories: what is there is left from its last life.
fn remove(path: &Path) -> Result<(), ObserveError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(error("removing", path.display())(e)),
        _ => Ok(()),
    }
}

/// Writes a new file that only the daemon's user and root may read.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

fn local(dir: &Path) -> Result<UnixListener, ObserveError> {
    fs::create_dir_all(dir).map_err(error("making directory", dir.display()))?;
    let path: PathBuf = dir.join("metrics.sock");
    remove(&path)?;
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

async fn each<S>(accepted: io::Result<S>, door: &Door, watched: &Watched, limit: &Arc<Semaphore>)
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
    let (watched, door) = (watched.clone(), door.clone());
    tokio::spawn(async move {
        let _permit = permit;
        let service = service_fn(|request: Request<Incoming>| {
            let (watched, door) = (watched.clone(), door.clone());
            async move { guarded(&request, &door, &watched).await }
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

type Answered = Result<Response<Full<Bytes>>, hyper::http::Error>;

fn text(status: StatusCode, text: &'static str) -> Answered {
    Response::builder()
        .status(status)
        .body(Full::from(text.as_bytes()))
}

fn json(status: StatusCode, value: &serde_json::Value) -> Answered {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(value.to_string()))
}

/// What a reader may see, by the way it has come.
struct Rights {
    /// Connections, with addresses of clients.
    connections: bool,
    /// The API and the console.
    console: bool,
}

/// Answers those who may ask; browsers are told to do no more with it than show it.
async fn guarded(request: &Request<Incoming>, door: &Door, watched: &Watched) -> Answered {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let refused = Response::builder().status(StatusCode::METHOD_NOT_ALLOWED);
        return refused
            .header(ALLOW, "GET, HEAD")
            .body(Full::from("GET and HEAD only\n"));
    }
    // Another page whose name resolves to this host would have the rights of its reader.
    let here = console::is_for_this_host(request);
    let rights = match door {
        Door::Local(trusted) => Rights {
            connections: *trusted && here,
            console: here,
        },
        Door::Metrics => Rights {
            connections: false,
            console: false,
        },
        Door::Console(_) if !here => return text(StatusCode::FORBIDDEN, NOT_HERE),
        Door::Console(token) => {
            // The page itself says nothing.
            if request.uri().path() != "/" && !token.is_shown(request.headers()) {
                return text(StatusCode::FORBIDDEN, NO_TOKEN);
            }
            Rights {
                connections: true,
                console: true,
            }
        }
    };
    let mut answer = answer(request, &rights, watched).await?;
    if rights.console {
        answer.headers_mut().extend(
            console::headers()
                .map(|(name, value)| (name, hyper::header::HeaderValue::from_static(value))),
        );
    }
    Ok(answer)
}

async fn answer(request: &Request<Incoming>, rights: &Rights, watched: &Watched) -> Answered {
    match request.uri().path() {
        "/healthz" => {
            let silent = watched.health.silent(ANSWER).await;
            if silent.is_empty() {
                return text(StatusCode::OK, "OK\n");
            }
            Response::builder()
                .status(StatusCode::SERVICE_UNAVAILABLE)
                .body(Full::from(format!("no answer: {}\n", silent.join(", "))))
        }
        "/metrics" => match watched.render() {
            Ok(metrics) => Response::builder()
                .header(CONTENT_TYPE, TYPE)
                .body(Full::from(metrics)),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "encoding metrics\n"),
        },
        "/services" => {
            let services = watched.ledger.services();
            let services = services.iter().map(connections::service).collect();
            json(StatusCode::OK, &connections::list(services))
        }
        "/connections" | "/requests" if !rights.connections => {
            text(StatusCode::FORBIDDEN, UNTRUSTED)
        }
        path @ ("/connections" | "/requests") => {
            match connections::query(request.uri().query().unwrap_or_default()) {
                Ok(query) if path == "/requests" => {
                    let records = watched.ledger.requests(&query);
                    let records = records.iter().map(connections::request).collect();
                    json(StatusCode::OK, &connections::list(records))
                }
                Ok(query) => {
                    let records = watched.ledger.records(&query);
                    let records = connections::connections(&records, &watched.attribution);
                    json(StatusCode::OK, &connections::list(records))
                }
                Err(why) => Response::builder()
                    .status(StatusCode::BAD_REQUEST)
                    .body(Full::from(format!("{why}\n"))),
            }
        }
        "/steering" => match serde_json::to_value((watched.steering.listing)()) {
            Ok(listing) => json(StatusCode::OK, &listing),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "encoding bindings\n"),
        },
        "/" if rights.console => Response::builder()
            .header(CONTENT_TYPE, "text/html; charset=utf-8")
            .body(Full::from(console::page())),
        path => match path.strip_prefix(api::ROOT) {
            Some(path) if rights.console => {
                let query = request.uri().query().unwrap_or_default();
                let published = watched.published.borrow().clone();
                let seen = Seen {
                    published: &published,
                    ledger: &watched.ledger,
                    attribution: &watched.attribution,
                    private: !rights.connections,
                };
                api_answer(api::answer(path, query, seen))
            }
            _ => text(StatusCode::NOT_FOUND, PATHS),
        },
    }
}

/// An answer of the API; errors have upstream's form.
fn api_answer(answer: Answer) -> Answered {
    let error = |status: StatusCode, code: &str, message: &str| {
        json(
            status,
            &serde_json::json!({"code": code, "message": message}),
        )
    };
    match answer {
        Answer::Found(value) => json(StatusCode::OK, &value),
        Answer::Unknown => error(
            StatusCode::NOT_FOUND,
            "ErrNotFound",
            "there is no such record",
        ),
        Answer::Gone => error(StatusCode::GONE, "ErrGone", "hosts are no records any more"),
        Answer::Bad(why) => error(StatusCode::BAD_REQUEST, "ErrBadRequest", &why),
        Answer::Private => text(StatusCode::FORBIDDEN, UNTRUSTED),
    }
}
