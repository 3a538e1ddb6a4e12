//! HTTP requests to the daemon on its own Unix socket, which it serves even where it is on no bus.

use crate::telemetry::chain;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{net::UnixStream, runtime, time::timeout};

/// Time that a request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest body that is read, in bytes.
pub(super) const MAX_BODY: usize = 16 << 20;

pub(super) struct DaemonResponse {
    pub(super) status: StatusCode,
    pub(super) content_type: Option<header::HeaderValue>,
    pub(super) body: String,
}

impl DaemonResponse {
    /// The body of a response with status 200; others are an error with their status and body.
    pub(super) fn body(self) -> Result<String, String> {
        match self.status {
            StatusCode::OK => Ok(self.body),
            status => Err(format!(
                "skupperd answered {}: {}",
                status.as_u16(),
                self.body.trim()
            )),
        }
    }

    /// Status and body, whatever they are.
    pub(super) fn text(self) -> String {
        format!("{} {}", self.status.as_u16(), self.body)
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum DaemonHttpError {
    /// No daemon listens on the socket.
    #[error("skupperd is not running: nothing listens on {}", .0.display())]
    NotRunning(PathBuf),
    #[error("cannot request {path} from {}: {reason}", .socket.display())]
    Failed {
        socket: PathBuf,
        path: String,
        reason: String,
    },
}

/// The response to `GET path` of the daemon with this runtime directory.
pub(super) fn get(runtime_dir: &Path, path: &str) -> Result<DaemonResponse, DaemonHttpError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| failure(&socket(runtime_dir), path, e.to_string()))?;
    runtime.block_on(fetch(runtime_dir, path))
}

/// As [`get`], for callers that have a runtime.
pub(super) async fn fetch(
    runtime_dir: &Path,
    path: &str,
) -> Result<DaemonResponse, DaemonHttpError> {
    let socket = socket(runtime_dir);
    let stream = match UnixStream::connect(&socket).await {
        Ok(stream) => stream,
        // A daemon that was killed leaves its socket behind.
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Err(DaemonHttpError::NotRunning(socket));
        }
        Err(e) => return Err(failure(&socket, path, e.to_string())),
    };
    match timeout(REQUEST_TIMEOUT, exchange(stream, path)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(failure(&socket, path, chain(&*error))),
        Err(_) => {
            let seconds = REQUEST_TIMEOUT.as_secs();
            Err(failure(
                &socket,
                path,
                format!("no response within {seconds} s"),
            ))
        }
    }
}

fn socket(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("metrics.sock")
}

fn failure(socket: &Path, path: &str, reason: String) -> DaemonHttpError {
    DaemonHttpError::Failed {
        socket: socket.to_owned(),
        path: path.to_owned(),
        reason,
    }
}

async fn exchange(
    stream: UnixStream,
    path: &str,
) -> Result<DaemonResponse, Box<dyn std::error::Error + Send + Sync>> {
    let request = Request::get(path)
        .header(header::HOST, "localhost")
        .body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the response: the error that counts is that of the request.
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await?.to_bytes();
    Ok(DaemonResponse {
        status: head.status,
        content_type: head.headers.get(header::CONTENT_TYPE).cloned(),
        body: String::from_utf8(body.into())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        os::unix::net::UnixListener,
        thread,
    };

    #[test]
    fn a_response_is_read_and_a_missing_daemon_is_an_error_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let absent = get(dir.path(), "/x");
        assert!(matches!(absent, Err(DaemonHttpError::NotRunning(_))));
        let listener = UnixListener::bind(dir.path().join("metrics.sock")).unwrap();
        let daemon = thread::spawn(move || {
            for answer in [
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\nyes",
                "HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nno\n",
                "what?",
            ] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 512];
                let read = stream.read(&mut request).unwrap();
                assert!(request[..read].starts_with(b"GET /x HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let good = get(dir.path(), "/x").unwrap();
        assert_eq!(good.content_type.as_ref().unwrap(), "text/plain");
        assert_eq!(good.body().unwrap(), "yes");
        let refused = get(dir.path(), "/x").unwrap().body();
        assert_eq!(refused.unwrap_err(), "skupperd answered 404: no");
        let error = get(dir.path(), "/x").err().unwrap().to_string();
        assert!(error.starts_with("cannot request /x from "), "{error}");
        daemon.join().unwrap();
        let dead = get(dir.path(), "/x");
        assert!(matches!(dead, Err(DaemonHttpError::NotRunning(_))));
    }
}
