//! Redeeming a token: one request, and a response whose documents are checked before they are used.

use crate::{
    manifest::{LocatedResource, document_of, parse, redact},
    model::{AccessToken, Meta, Name, Namespace, REDEEMED_TOKEN, Settings, Spec},
    pki,
    telemetry::chain,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, Uri, header::HOST};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Time for connecting, request and response together, as in Skupper's client.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest response in bytes: a Secret and a few Links take below 10 KiB.
const MAX_RESPONSE: usize = 256 * 1024;
/// Longest text of a server or user in an error, in characters.
const MAX_QUOTED: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    #[error("invalid token url {0:?}: {1}")]
    Url(String, &'static str),
    /// The token's CA is invalid.
    #[error(transparent)]
    Credentials(#[from] pki::PkiError),
    /// The server's certificate is not of the token's CA. The code was not sent.
    #[error("the server at {server} has no certificate of the token's CA: {reason}")]
    Server { server: String, reason: String },
    /// May succeed later.
    #[error("{stage} {server}: {reason}")]
    Unreachable {
        stage: &'static str,
        server: String,
        reason: String,
    },
    /// The server refused. The text is that of Skupper's command.
    #[error("Received HTTP Response {status}: {body}")]
    Refused { status: u16, body: String },
    #[error("invalid response from {server}: {reason}")]
    Response { server: String, reason: String },
}

impl RedeemError {
    /// Whether a retry cannot succeed.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused { status, .. } => (300..500).contains(status) && *status != 429,
            Self::Unreachable { .. } => false,
            _ => true,
        }
    }
}

/// Redeems a token for a link with this name and a certificate for `subject`. Returns the Secret and
/// the Links; each has that name, or that name with a number, and the mark of the token.
pub async fn redeem(
    token: &AccessToken,
    name: &Name,
    subject: &str,
    namespace: &Namespace,
) -> Result<Vec<LocatedResource>, RedeemError> {
    let server = parse_url(&token.url)?;
    let all = async {
        let stream = dial(token, &server).await?;
        redeem_on_stream(stream, &server, token, name, subject, namespace).await
    };
    match timeout(TIMEOUT, all).await {
        Ok(done) => done,
        Err(_) => Err(RedeemError::Unreachable {
            stage: "waiting for",
            server: server.to_string(),
            reason: format!("no answer within {} s", TIMEOUT.as_secs()),
        }),
    }
}

/// [`redeem`] over an established connection, without a time limit.
pub async fn redeem_over<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    token: &AccessToken,
    name: &Name,
    subject: &str,
    namespace: &Namespace,
) -> Result<Vec<LocatedResource>, RedeemError> {
    let server = parse_url(&token.url)?;
    redeem_on_stream(stream, &server, token, name, subject, namespace).await
}

async fn redeem_on_stream<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    server: &GrantUrl,
    token: &AccessToken,
    name: &Name,
    subject: &str,
    namespace: &Namespace,
) -> Result<Vec<LocatedResource>, RedeemError> {
    let response = post_code(stream, server, token, name, subject).await?;
    check_documents(&response, token, name, namespace).map_err(|reason| {
        let server = server.to_string();
        RedeemError::Response { server, reason }
    })
}

struct GrantUrl {
    uri: Uri,
    host: String,
    port: u16,
}

impl std::fmt::Display for GrantUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

fn parse_url(url: &str) -> Result<GrantUrl, RedeemError> {
    let bad = |reason| RedeemError::Url(url.chars().take(MAX_QUOTED).collect(), reason);
    let uri: Uri = url.parse().map_err(|_| bad("not a URL"))?;
    if uri.scheme_str() != Some("https") {
        return Err(bad("the scheme must be https"));
    }
    let host = uri.host().ok_or(bad("no host"))?;
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let port = uri.port_u16().unwrap_or(443);
    Ok(GrantUrl { uri, host, port })
}

fn unreachable(server: &GrantUrl, stage: &'static str, reason: String) -> RedeemError {
    RedeemError::Unreachable {
        stage,
        server: server.to_string(),
        reason,
    }
}

async fn dial(token: &AccessToken, server: &GrantUrl) -> Result<TlsStream<TcpStream>, RedeemError> {
    let unreachable = |stage, reason| unreachable(server, stage, reason);
    let config = pki::token_config(&token.ca)?;
    let server_name = ServerName::try_from(server.host.clone())
        .map_err(|_| RedeemError::Url(token.url.clone(), "has an invalid host"))?;
    let socket = TcpStream::connect((server.host.as_str(), server.port))
        .await
        .map_err(|e| unreachable("cannot connect to", e.to_string()))?;
    // TLS verifies the certificate here, before the code is sent.
    let stream = TlsConnector::from(config)
        .connect(server_name, socket)
        .await;
    stream.map_err(|e| {
        let tls = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
        match tls {
            Some(error) if pki::may_be_clock_skew(error) => {
                unreachable("cannot verify", pki::explain(error))
            }
            Some(error @ rustls::Error::InvalidCertificate(_)) => RedeemError::Server {
                server: server.to_string(),
                reason: error.to_string(),
            },
            _ => unreachable("cannot greet", chain(&e)),
        }
    })
}

async fn post_code<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    server: &GrantUrl,
    token: &AccessToken,
    name: &Name,
    subject: &str,
) -> Result<Bytes, RedeemError> {
    let unreachable = |stage, reason| unreachable(server, stage, reason);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| unreachable("cannot greet", chain(&e)))?;
    let path = server.uri.path_and_query().map_or("/", |p| p.as_str());
    let request = Request::post(path)
        .header(HOST, server.to_string())
        .header("name", name.as_str())
        .header("subject", subject)
        .body(Full::<Bytes>::from(token.code.reveal().to_owned()))
        .map_err(|_| RedeemError::Url(token.url.clone(), "cannot be requested"))?;
    let response = async {
        let response = sender.send_request(request).await;
        let response = response.map_err(|e| unreachable("cannot ask", chain(&e)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_RESPONSE)
            .collect()
            .await;
        let body = body.map_err(|e| unreachable("cannot read the response of", e.to_string()))?;
        let body = body.to_bytes();
        if status == StatusCode::OK {
            return Ok(body);
        }
        let text = String::from_utf8_lossy(&body);
        Err(RedeemError::Refused {
            status: status.as_u16(),
            body: text.trim().chars().take(MAX_QUOTED).collect(),
        })
    };
    tokio::pin!(response);
    tokio::select! {
        response = &mut response => response,
        // Cancel-safe: what the connection read before it ended is still with the response.
        _ = connection => response.await,
    }
}

/// Tells tokens apart without keeping their codes.
pub fn token_mark(token: &AccessToken) -> String {
    let text = zeroize::Zeroizing::new(format!("{}\n{}", token.url, token.code.reveal()));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    hex::encode(digest)
}

/// The documents of a response. The server is trusted to offer a link, not to change other resources:
/// any other document refuses the whole response. Of the documents only endpoints and credentials are
/// taken: labels, annotations, settings and proxies would act on what is the user's.
fn check_documents(
    response: &[u8],
    token: &AccessToken,
    name: &Name,
    namespace: &Namespace,
) -> Result<Vec<LocatedResource>, String> {
    let mut found = Vec::new();
    for document in parse(Path::new("-"), response, Some(namespace)) {
        let mut located = document.map_err(|e| e.to_string())?;
        let found_name = located.resource.name().clone();
        let numbered = found_name.strip_prefix(name.as_str()).is_some_and(|rest| {
            let number = rest.strip_prefix('-');
            number.is_some_and(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit()))
        });
        match &mut located.resource.spec {
            Spec::Secret(secret) if found_name == *name && secret.has_certificate() => {
                pki::check_client(name, secret).map_err(|e| chain(&e))?;
                secret.proxy = None;
            }
            Spec::Link(link)
                if (found_name == *name || numbered) && link.tls_credentials == *name =>
            {
                link.cost = token.link_cost;
                link.settings = Settings::default();
            }
            _ => return Err(format!("unexpected {}", located.key())),
        }
        let mut meta = Meta::new(found_name, namespace.clone());
        let mark = (REDEEMED_TOKEN.to_owned(), token_mark(token));
        meta.annotations.extend([mark]);
        located.resource.meta = meta;
        let mut document = document_of(&located.resource);
        redact(&mut document);
        located.document = Arc::new(document);
        found.push(located);
    }
    let links = found
        .iter()
        .filter(|l| matches!(l.resource.spec, Spec::Link(_)));
    match (links.count(), found.len()) {
        (0, _) => Err("it has no Link".to_owned()),
        (links, all) if all != links + 1 => Err("it must have exactly one Secret".to_owned()),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests;
