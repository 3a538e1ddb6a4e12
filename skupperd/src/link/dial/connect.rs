//! Out of a closed network: a connection through an HTTP proxy (CONNECT, RFC 9110 section 9.3.6).

use super::Target;
use crate::model::Proxy;
use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use zeroize::Zeroizing;

/// Largest head of an answer.
const MAX_HEAD: usize = 16 * 1024;

/// Why a proxy gave no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The connection to the proxy.
    #[error("talking to the proxy: {0}")]
    Io(#[from] std::io::Error),
    /// It wants to know who asks.
    #[error("the proxy asks for a user name and password, and the Secret has none")]
    Anonymous,
    /// It does not believe who asks.
    #[error("the proxy does not take this user name and password")]
    Credentials,
    /// Another refusal.
    #[error("the proxy answers {0:?}")]
    Refused(String),
    /// No HTTP.
    #[error("the answer of the proxy is no HTTP: {0}")]
    Malformed(&'static str),
}

/// Asks the proxy at the other end of `socket` for a connection to `target`. Afterwards the socket is
/// one with the target.
pub(super) async fn connect(
    socket: &mut TcpStream,
    target: &Target,
    proxy: &Proxy,
) -> Result<(), ConnectError> {
    socket.write_all(request(target, proxy).as_bytes()).await?;
    let mut head = Vec::new();
    loop {
        let mut piece = [0; 1024];
        let n = socket.read(&mut piece).await?;
        if n == 0 {
            return Err(ConnectError::Malformed("it ends in the middle"));
        }
        head.extend_from_slice(&piece[..n]);
        match head.windows(4).position(|w| w == b"\r\n\r\n") {
            Some(end) => {
                // A refusal may have a page behind its head.
                answer(&head[..end], proxy)?;
                // The target does not speak before we do: nobody asked for what is behind the head.
                let text = "there is something behind its head";
                let alone = end + 4 == head.len();
                return alone.then_some(()).ok_or(ConnectError::Malformed(text));
            }
            None if head.len() > MAX_HEAD => {
                return Err(ConnectError::Malformed("its head is too long"));
            }
            None => {}
        }
    }
}

fn request(target: &Target, proxy: &Proxy) -> Zeroizing<String> {
    let Target { host, port } = target;
    let authority = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let mut text = Zeroizing::new(format!(
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
    ));
    if let Some((user, password)) = &proxy.login {
        let login = Zeroizing::new(format!("{user}:{}", **password));
        let login = Zeroizing::new(STANDARD.encode(login.as_bytes()));
        text.push_str("Proxy-Authorization: Basic ");
        text.push_str(&login);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text
}

fn answer(head: &[u8], proxy: &Proxy) -> Result<(), ConnectError> {
    let line = head.split(|c| *c == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| ConnectError::Malformed("its status"))?;
    let mut words = line.splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().and_then(|s| s.parse::<u16>().ok());
    match (version, status) {
        ("HTTP/1.0" | "HTTP/1.1", Some(200..=299)) => Ok(()),
        // tinyproxy says 401 where 407 is meant.
        ("HTTP/1.0" | "HTTP/1.1", Some(401 | 407)) if proxy.login.is_some() => {
            Err(ConnectError::Credentials)
        }
        ("HTTP/1.0" | "HTTP/1.1", Some(407)) => Err(ConnectError::Anonymous),
        ("HTTP/1.0" | "HTTP/1.1", Some(_)) => {
            let shown = line.chars().filter(|c| !c.is_control()).take(100);
            Err(ConnectError::Refused(shown.collect()))
        }
        _ => Err(ConnectError::Malformed("it does not begin with a status")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(login: Option<(&str, &str)>) -> Proxy {
        Proxy {
            host: "proxy".to_owned(),
            port: 3128,
            login: login.map(|(user, password)| (user.to_owned(), password.to_owned().into())),
        }
    }

    fn target(host: &str) -> Target {
        Target {
            host: host.to_owned(),
            port: 55671,
        }
    }

    #[test]
    fn the_request_names_the_target_and_who_asks() {
        let text = request(&target("2001:db8::1"), &proxy(None));
        let expected = "CONNECT [2001:db8::1]:55671 HTTP/1.1\r\nHost: [2001:db8::1]:55671\r\n\r\n";
        assert_eq!(&*text, expected);
        let text = request(&target("a.example"), &proxy(Some(("me", "pass word"))));
        assert!(text.contains("\r\nProxy-Authorization: Basic bWU6cGFzcyB3b3Jk\r\n\r\n"));
    }

    #[tokio::test]
    async fn a_refusal_may_have_a_page_and_a_connection_may_not() {
        for (said, why) in [
            (
                "HTTP/1.1 403 No\r\n\r\n<html>",
                "answers \"HTTP/1.1 403 No\"",
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\nSSH-2.0",
                "something behind its head",
            ),
            ("HTTP/1.1 200 OK\r\n", "ends in the middle"),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", ""),
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let dialled = TcpStream::connect(listener.local_addr().unwrap());
            let (socket, accepted) = tokio::join!(dialled, listener.accept());
            let (mut socket, mut peer) = (socket.unwrap(), accepted.unwrap().0);
            peer.write_all(said.as_bytes()).await.unwrap();
            peer.shutdown().await.unwrap();
            let result = connect(&mut socket, &target("a"), &proxy(None)).await;
            let error = result.err().map(|e| e.to_string()).unwrap_or_default();
            assert!(
                error.contains(why) && error.is_empty() == why.is_empty(),
                "{said}: {error}"
            );
        }
    }

    #[test]
    fn answers_are_told_apart() {
        let say =
            |head: &str, login| answer(head.as_bytes(), &proxy(login)).map_err(|e| e.to_string());
        assert_eq!(
            say("HTTP/1.1 200 Connection established\r\nX: y", None),
            Ok(())
        );
        assert_eq!(say("HTTP/1.0 200", None), Ok(()));
        for (head, login, why) in [
            ("HTTP/1.1 407 No", None, "the Secret has none"),
            (
                "HTTP/1.1 407 No",
                Some(("a", "b")),
                "does not take this user name",
            ),
            (
                "HTTP/1.1 403 Forbidden",
                None,
                "answers \"HTTP/1.1 403 Forbidden\"",
            ),
            ("HTTP/2 200 OK", None, "no HTTP"),
            ("SSH-2.0-OpenSSH", None, "no HTTP"),
            ("", None, "no HTTP"),
            ("HTTP/1.1 abc", None, "no HTTP"),
        ] {
            let error = say(head, login).unwrap_err();
            assert!(error.contains(why), "{head}: {error}");
        }
        assert!(answer(b"\xff\xfe 200", &proxy(None)).is_err());
    }
}
