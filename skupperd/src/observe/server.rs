//! The HTTP server for observers: a socket in the runtime directory, and the addresses of metrics
//! and of the console.
//!
//! Clients' addresses are personal data. Connections are shown to root and to the daemon's own user,
//! identified by the peer credentials of the local socket, and to readers with the console's token.

use super::{
    LoopHealth,
    attribution::ClientAttribution,
    console::ConsoleToken,
    readers::{LocalReader, OpenConnections},
    routes::{ApiState, RequestOrigin, SteeringSource, respond},
};
use crate::{
    flows::FlowLog,
    http_server::{ConnectionLimits, accept, serve_connection, serve_each},
    steer::accel::Acceleration,
    store::ResourceSnapshot,
    telemetry,
};
use hyper::{Request, body::Incoming};
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
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
    task::JoinSet,
};

/// Connections at a time of each address; more wait.
const MAX_OPEN: usize = 32;
/// Scrapers send the head of a request at once.
const LIMITS: ConnectionLimits = ConnectionLimits {
    head_timeout: Duration::from_secs(5),
    max_head: None,
    keep_alive: false,
};
/// Time for a whole connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// The file in the runtime directory with the console's address and token.
const CONSOLE_URL: &str = "console.url";
const SERVER: &str = "observe";

/// Addresses to serve on, beside the local socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServeAddresses {
    /// Metrics for other hosts.
    pub metrics: Option<SocketAddr>,
    /// The console, on loopback.
    pub console: Option<SocketAddr>,
}

/// The server could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot {op} {subject}")]
pub struct ObserverServerError {
    op: &'static str,
    subject: String,
    #[source]
    source: io::Error,
}

fn error(
    op: &'static str,
    subject: impl ToString,
) -> impl FnOnce(io::Error) -> ObserverServerError {
    let subject = subject.to_string();
    move |source| ObserverServerError {
        op,
        subject,
        source,
    }
}

/// Serves on `metrics.sock` in `dir` and on the given addresses until the result is dropped. A console
/// that cannot be served is logged; the rest is served all the same.
pub async fn serve(
    dir: &Path,
    addresses: ServeAddresses,
    published: watch::Receiver<Arc<ResourceSnapshot>>,
    health: LoopHealth,
    steering: SteeringSource,
    acceleration: Arc<Acceleration>,
    flow_log: FlowLog,
) -> Result<JoinSet<()>, ObserverServerError> {
    let state = ApiState {
        published,
        health,
        steering,
        acceleration,
        flow_log,
        attribution: ClientAttribution::default(),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(serve_local(bind_local(dir)?, state.clone()));
    let url = dir.join(CONSOLE_URL);
    remove_stale(&url)?;
    if let Some(address) = addresses.metrics {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(error("bind metrics address", address))?;
        let state = state.clone();
        tasks.spawn(serve_tcp(listener, RequestOrigin::Metrics, state));
    }
    if let Some(address) = addresses.console {
        match bind_console(address, &url).await {
            Ok((listener, token)) => {
                let origin = RequestOrigin::Console(token);
                tasks.spawn(serve_tcp(listener, origin, state));
            }
            Err(error) => {
                tracing::error!(error = telemetry::chain(&error), "cannot serve console");
            }
        }
    }
    Ok(tasks)
}

async fn serve_local(listener: UnixListener, state: ApiState) {
    let open = OpenConnections::default();
    loop {
        let (socket, _) = accept(SERVER, || listener.accept()).await;
        let reader = LocalReader::of(&socket);
        let Some(connection) = open.add(reader) else {
            tracing::debug!(?reader, "observer connection refused: too many");
            continue;
        };
        let state = state.clone();
        tokio::spawn(async move {
            let trusted = reader.trusted;
            serve_one(socket, RequestOrigin::Local { trusted }, state).await;
            drop(connection);
        });
    }
}

async fn serve_tcp(listener: TcpListener, origin: RequestOrigin, state: ApiState) {
    let permits = Arc::new(Semaphore::new(MAX_OPEN));
    let accept = || async { listener.accept().await.map(|(socket, _)| socket) };
    serve_each(SERVER, permits, accept, |socket| {
        serve_one(socket, origin.clone(), state.clone())
    })
    .await;
}

async fn serve_one<S>(socket: S, origin: RequestOrigin, state: ApiState)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (origin, state) = (&origin, &state);
    let connection = serve_connection(socket, LIMITS, |request: Request<Incoming>| async move {
        respond(&request, origin, state).await
    });
    match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "observer connection failed"),
        Err(_) => tracing::debug!("observer connection timed out"),
    }
}

fn bind_local(dir: &Path) -> Result<UnixListener, ObserverServerError> {
    fs::create_dir_all(dir).map_err(error("create directory", dir.display()))?;
    let path: PathBuf = dir.join("metrics.sock");
    remove_stale(&path)?;
    let listener = UnixListener::bind(&path).map_err(error("bind", path.display()))?;
    // Metrics name sites and services: the directory decides who may read them. Connections are
    // guarded by the credentials of each reader.
    let mode = fs::Permissions::from_mode(0o666);
    fs::set_permissions(&path, mode).map_err(error("set mode of", path.display()))?;
    Ok(listener)
}

/// Binds the console's address and writes the file with its URL and token.
async fn bind_console(
    address: SocketAddr,
    url: &Path,
) -> Result<(TcpListener, ConsoleToken), ObserverServerError> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(error("bind console address", address))?;
    let token = ConsoleToken::new().ok_or_else(|| io::Error::other("no random numbers"));
    let token = token.map_err(error("create token of console on", address))?;
    let bound = listener.local_addr();
    let bound = bound.map_err(error("read console address", address))?;
    write_private(url, &token.url(bound)).map_err(error("write", url.display()))?;
    tracing::info!(address = %bound, "serving console; `skupper console` prints its URL");
    Ok((listener, token))
}

/// Removes a file that an earlier daemon left: only one daemon at a time uses the directory.
fn remove_stale(path: &Path) -> Result<(), ObserverServerError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(error("remove", path.display())(e)),
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
