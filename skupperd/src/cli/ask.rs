//! Asking the daemon's local HTTP server.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// Time for the daemon to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Most of one answer.
pub(super) const MOST: u64 = 16 << 20;

/// What the daemon of this runtime directory answers to a `GET`, head and body.
pub(super) fn get(runtime: &Path, path: &str) -> Result<String, String> {
    let socket = runtime.join("metrics.sock");
    let ask = || {
        let mut stream = UnixStream::connect(&socket)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.take(MOST).read_to_string(&mut text)?;
        Ok(text)
    };
    ask().map_err(|e: io::Error| format!("{}: {e}", socket.display()))
}

/// The body of an answer; an answer that is none is an error by what it says.
pub(super) fn body(runtime: &Path, path: &str) -> Result<String, String> {
    let answer = get(runtime, path)?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    match status {
        "200" => Ok(body.to_owned()),
        _ => Err(format!("skupperd answers {status}: {}", body.trim())),
    }
}
