//! Connects through an HTTP proxy with CONNECT (RFC 9110 section 9.3.6).

use crate::{model::HttpProxy, peering::DialTarget};
use base64::{Engine, engine::general_purpose::STANDARD};
use http_body_util::Empty;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{HOST, HeaderValue, InvalidHeaderValue, PROXY_AUTHORIZATION},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

/// Largest head of an answer.
const MAX_HEAD: usize = 16 * 1024;

/// Why a proxy gave no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyConnectError {
    #[error("the CONNECT request to the proxy failed")]
    Http(#[from] hyper::Error),
    #[error("the proxy did not answer in time")]
    Timeout,
    #[error("invalid target for CONNECT")]
    Target(#[from] hyper::http::Error),
    #[error("the proxy requires a user name and password: add them to the Secret")]
    CredentialsMissing,
    #[error("the proxy rejected the user name and password")]
    CredentialsRefused,
    #[error("the proxy answers {0}")]
    Refused(StatusCode),
    #[error("unexpected bytes after the answer of the proxy")]
    UnexpectedBytes,
}

/// Asks the proxy at the other end of `socket` for a connection to `target`, and gives the socket back
/// as one with the target.
pub(super) async fn connect(
    socket: TcpStream,
    target: &DialTarget,
    proxy: &HttpProxy,
) -> Result<TcpStream, ProxyConnectError> {
    let request = request(target, proxy)?;
    let client = http1::Builder::new().max_buf_size(MAX_HEAD).clone();
    let (mut sender, connection) = client.handshake(TokioIo::new(socket)).await?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        check(&answer, proxy)
    };
    // A refusal is known before its page has been read: the connection is dropped then.
    let upgraded = async { Ok(connection.without_shutdown().await?) };
    let ((), parts) = tokio::try_join!(answer, upgraded)?;
    // The target sends nothing before we do.
    match parts.read_buf.is_empty() {
        true => Ok(parts.io.into_inner()),
        false => Err(ProxyConnectError::UnexpectedBytes),
    }
}

fn request(
    target: &DialTarget,
    proxy: &HttpProxy,
) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let DialTarget { host, port } = target;
    let authority = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .header(HOST, &authority)
        .uri(authority);
    if let Some((user, password)) = &proxy.login {
        let credentials = credentials(user, password)?;
        request = request.header(PROXY_AUTHORIZATION, credentials);
    }
    request.body(Empty::new())
}

/// The value of the header, which is wiped when it is dropped.
fn credentials(user: &str, password: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let login = Zeroizing::new(format!("{user}:{password}"));
    let mut value = Zeroizing::new("Basic ".to_owned());
    STANDARD.encode_string(login.as_bytes(), &mut value);
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(value))?;
    value.set_sensitive(true);
    Ok(value)
}

fn check<B>(answer: &Response<B>, proxy: &HttpProxy) -> Result<(), ProxyConnectError> {
    match answer.status().as_u16() {
        200..=299 => Ok(()),
        // tinyproxy answers 401 where 407 is meant.
        401 | 407 if proxy.login.is_some() => Err(ProxyConnectError::CredentialsRefused),
        407 => Err(ProxyConnectError::CredentialsMissing),
        _ => Err(ProxyConnectError::Refused(answer.status())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// An answer, user name and password, and what the error says of it.
    type Case<'a> = (&'a [u8], Option<(&'a str, &'a str)>, &'a str);

    fn proxy(login: Option<(&str, &str)>) -> HttpProxy {
        HttpProxy {
            host: "proxy".to_owned(),
            port: 3128,
            login: login.map(|(user, password)| (user.to_owned(), password.to_owned().into())),
        }
    }

    fn target(host: &str) -> DialTarget {
        DialTarget {
            host: host.to_owned(),
            port: 55671,
        }
    }

    /// A connection by way of a proxy that answers with these bytes: what it was asked, and the error;
    /// empty without one.
    async fn dial(host: &str, proxy: &HttpProxy, answer: &[u8]) -> (String, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (socket, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
        let (socket, mut peer) = (socket.unwrap(), accepted.unwrap().0);
        let respond = async {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                assert_ne!(peer.read_buf(&mut asked).await.unwrap(), 0);
            }
            peer.write_all(answer).await.unwrap();
            // The other side may have closed already.
            let _ = peer.shutdown().await;
            String::from_utf8(asked).unwrap()
        };
        let target = target(host);
        let (connected, asked) = tokio::join!(connect(socket, &target, proxy), respond);
        let error = connected.err().map(|e| telemetry::chain(&e));
        (asked, error.unwrap_or_default())
    }

    #[tokio::test]
    async fn the_request_names_the_target_and_who_asks() {
        let good = b"HTTP/1.1 200 OK\r\n\r\n";
        let (asked, error) = dial("2001:db8::1", &proxy(None), good).await;
        assert_eq!(error, "");
        let expected = "CONNECT [2001:db8::1]:55671 HTTP/1.1\r\nhost: [2001:db8::1]:55671\r\n\r\n";
        assert_eq!(asked, expected);
        let login = proxy(Some(("me", "pass word")));
        let (asked, _) = dial("a.example", &login, good).await;
        assert!(asked.contains("\r\nproxy-authorization: Basic bWU6cGFzcyB3b3Jk\r\n"));
    }

    #[tokio::test]
    async fn each_answer_has_its_error() {
        let cases: [Case<'_>; 12] = [
            (
                b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n",
                None,
                "",
            ),
            (b"HTTP/1.0 200 OK\r\n\r\n", None, ""),
            (b"HTTP/1.1 407 No\r\n\r\n", None, "add them to the Secret"),
            (
                b"HTTP/1.1 407 No\r\n\r\n",
                Some(("a", "b")),
                "rejected the user name",
            ),
            (
                b"HTTP/1.1 401 No\r\n\r\n",
                Some(("a", "b")),
                "rejected the user name",
            ),
            // A refusal may have a page, a connection may not.
            (
                b"HTTP/1.1 403 No\r\n\r\n<html>",
                None,
                "answers 403 Forbidden",
            ),
            (
                b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0",
                None,
                "unexpected bytes after",
            ),
            (b"HTTP/1.1 200 OK\r\n", None, "CONNECT request"),
            (b"SSH-2.0-OpenSSH\r\n\r\n", None, "CONNECT request"),
            (b"", None, "CONNECT request"),
            (b"HTTP/1.1 abc\r\n\r\n", None, "CONNECT request"),
            (b"\xff\xfe 200\r\n\r\n", None, "CONNECT request"),
        ];
        for (answer, login, why) in cases {
            let (_, error) = dial("a", &proxy(login), answer).await;
            let shown = String::from_utf8_lossy(answer);
            assert!(
                error.contains(why) && error.is_empty() == why.is_empty(),
                "{shown}: {error}"
            );
        }
        let endless = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; MAX_HEAD]].concat();
        let (_, error) = dial("a", &proxy(None), &endless).await;
        assert!(error.contains("CONNECT request"), "{error}");
    }
}
