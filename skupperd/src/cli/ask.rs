//! Asking the daemon on its own socket, in HTTP: it answers there even where it is on no bus.

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

/// What the daemon answers.
pub(super) struct Answer {
    /// As HTTP has it: 200 is good.
    pub(super) status: String,
    /// The type of the body.
    pub(super) kind: Option<String>,
    pub(super) body: String,
}

impl Answer {
    /// An answer as it came.
    pub(super) fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        let kind = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        Self {
            status: head.split(' ').nth(1).unwrap_or_default().to_owned(),
            kind: kind.map(|(_, value)| value.trim().to_owned()),
            body: body.to_owned(),
        }
    }

    /// The body; an answer that is none is an error by what it says.
    pub(super) fn body(self) -> Result<String, String> {
        match self.status.as_str() {
            "200" => Ok(self.body),
            status => Err(format!("skupperd answers {status}: {}", self.body.trim())),
        }
    }

    /// Good or not, for people.
    pub(super) fn text(self) -> String {
        format!("{} {}", self.status, self.body)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// No daemon has the socket.
    #[error("skupperd is not running: nobody answers on {0}")]
    Absent(String),
    /// It did not work.
    #[error("{0}")]
    Failed(String),
}

/// What the daemon of this runtime directory answers to a `GET`.
pub(super) fn get(runtime: &Path, path: &str) -> Result<Answer, AskError> {
    let socket = runtime.join("metrics.sock");
    let failed = |e: io::Error| AskError::Failed(format!("{}: {e}", socket.display()));
    let stream = match UnixStream::connect(&socket) {
        Ok(stream) => stream,
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Err(AskError::Absent(socket.display().to_string()));
        }
        Err(e) => return Err(failed(e)),
    };
    let text = exchange(stream, path).map_err(failed)?;
    Ok(Answer::parse(&text))
}

fn exchange(mut stream: UnixStream, path: &str) -> io::Result<String> {
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.take(MOST).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::net::UnixListener, thread};

    #[test]
    fn an_answer_is_told_from_none_and_a_good_one_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let absent = get(dir.path(), "/x");
        assert!(matches!(absent, Err(AskError::Absent(_))));
        let listener = UnixListener::bind(dir.path().join("metrics.sock")).unwrap();
        let daemon = thread::spawn(move || {
            for answer in [
                "HTTP/1.1 200 OK\r\n\r\nyes",
                "HTTP/1.1 404 Not Found\r\n\r\nno\n",
            ] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 512];
                let read = stream.read(&mut request).unwrap();
                assert!(request[..read].starts_with(b"GET /x HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let body = |path| get(dir.path(), path).unwrap().body();
        assert_eq!(body("/x").unwrap(), "yes");
        assert_eq!(body("/x").unwrap_err(), "skupperd answers 404: no");
        daemon.join().unwrap();
        // A socket that a dead daemon has left is none.
        assert!(matches!(get(dir.path(), "/x"), Err(AskError::Absent(_))));
    }
}
