//! Redeeming a token: one request, and documents that are held against what they may be.

use crate::{
    manifest::{Located, parse},
    model::{AccessToken, Name, Namespace, Spec},
    pki,
    telemetry::chain,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, Uri, header::HOST};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::{path::Path, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Time for everything, as upstream's clients give it.
const DEADLINE: Duration = Duration::from_secs(10);
/// Largest answer: a Secret and a few Links have below 10 KiB.
const MAX_ANSWER: usize = 256 * 1024;
/// Largest answer of which a message tells.
const MAX_TOLD: usize = 256;

/// Why a token was not redeemed.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// The URL is none that can be asked.
    #[error("token url {0:?}: {1}")]
    Url(String, &'static str),
    /// The token's CA, or something else of TLS here.
    #[error(transparent)]
    Credentials(#[from] pki::PkiError),
    /// The server is not the one that the token's CA vouches for. Nothing was sent.
    #[error("the server at {server} is not the one of the token: {reason}")]
    Server {
        /// Host and port.
        server: String,
        /// What TLS says.
        reason: String,
    },
    /// Nobody answered.
    #[error("{stage} {server}: {reason}")]
    Unreachable {
        /// What was being done.
        stage: &'static str,
        /// Host and port.
        server: String,
        /// Reason.
        reason: String,
    },
    /// A refusal. The text is as upstream's command puts it.
    #[error("Received HTTP Response {status}: {body}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What the server says.
        body: String,
    },
    /// An answer that is none.
    #[error("the answer of {server} can not be used: {reason}")]
    Answer {
        /// Host and port.
        server: String,
        /// Reason.
        reason: String,
    },
}

impl RedeemError {
    /// Asking again makes no difference.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused { status, .. } => (300..500).contains(status) && *status != 429,
            Self::Unreachable { .. } => false,
            _ => true,
        }
    }
}

/// Redeems a token: asks for a link of this name, as `subject`. Gives the Secret and the Links, all of
/// them of that name or of one that begins with it.
pub async fn redeem(
    token: &AccessToken,
    name: &Name,
    subject: &str,
    namespace: &Namespace,
) -> Result<Vec<Located>, RedeemError> {
    let server = server(&token.url)?;
    let all = async {
        let stream = dial(token, &server).await?;
        converse(stream, &server, token, name, subject, namespace).await
    };
    match timeout(DEADLINE, all).await {
        Ok(done) => done,
        Err(_) => Err(RedeemError::Unreachable {
            stage: "waiting for",
            server: server.to_string(),
            reason: format!("no answer within {} s", DEADLINE.as_secs()),
        }),
    }
}

/// The part of [`redeem`] that follows the greeting, over a connection that is there already: the
/// request, and an answer that may be anything. There is no time limit.
pub async fn redeem_over<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    token: &AccessToken,
    name: &Name,
    subject: &str,
    namespace: &Namespace,
) -> Result<Vec<Located>, RedeemError> {
    let server = server(&token.url)?;
    converse(stream, &server, token, name, subject, namespace).await
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    server: &Address,
    token: &AccessToken,
    name: &Name,
    subject: &str,
    namespace: &Namespace,
) -> Result<Vec<Located>, RedeemError> {
    let answer = ask(stream, server, token, name, subject).await?;
    documents(&answer, token, name, namespace).map_err(|reason| {
        let server = server.to_string();
        RedeemError::Answer { server, reason }
    })
}

struct Address {
    uri: Uri,
    host: String,
    port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

fn server(url: &str) -> Result<Address, RedeemError> {
    let bad = |why| RedeemError::Url(url.chars().take(MAX_TOLD).collect(), why);
    let uri: Uri = url.parse().map_err(|_| bad("is not a URL"))?;
    if uri.scheme_str() != Some("https") {
        return Err(bad("scheme must be https"));
    }
    let host = uri.host().ok_or(bad("has no host"))?;
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let port = uri.port_u16().unwrap_or(443);
    Ok(Address { uri, host, port })
}

fn unreachable(server: &Address, stage: &'static str, reason: String) -> RedeemError {
    RedeemError::Unreachable {
        stage,
        server: server.to_string(),
        reason,
    }
}

async fn dial(token: &AccessToken, server: &Address) -> Result<TlsStream<TcpStream>, RedeemError> {
    let unreachable = |stage, reason| unreachable(server, stage, reason);
    let config = pki::token_config(&token.ca)?;
    let server_name = ServerName::try_from(server.host.clone())
        .map_err(|_| RedeemError::Url(token.url.clone(), "has a host that no server can have"))?;
    let socket = TcpStream::connect((server.host.as_str(), server.port))
        .await
        .map_err(|e| unreachable("connecting", e.to_string()))?;
    // The certificate is checked here, before a byte of the code is written.
    let stream = TlsConnector::from(config)
        .connect(server_name, socket)
        .await;
    stream.map_err(|e| {
        let tls = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
        match tls {
            Some(error) if pki::passes_with_time(error) => {
                unreachable("recognising", pki::explain(error))
            }
            Some(error @ rustls::Error::InvalidCertificate(_)) => RedeemError::Server {
                server: server.to_string(),
                reason: error.to_string(),
            },
            _ => unreachable("greeting", chain(&e)),
        }
    })
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    server: &Address,
    token: &AccessToken,
    name: &Name,
    subject: &str,
) -> Result<Bytes, RedeemError> {
    let unreachable = |stage, reason| unreachable(server, stage, reason);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| unreachable("greeting", chain(&e)))?;
    let path = server.uri.path_and_query().map_or("/", |p| p.as_str());
    let request = Request::post(path)
        .header(HOST, server.to_string())
        .header("name", name.as_str())
        .header("subject", subject)
        .body(Full::<Bytes>::from(token.code.reveal().to_owned()))
        .map_err(|_| RedeemError::Url(token.url.clone(), "can not be asked"))?;
    let answer = async {
        let response = sender.send_request(request).await;
        let response = response.map_err(|e| unreachable("asking", chain(&e)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await;
        let body = body.map_err(|e| unreachable("reading the answer of", e.to_string()))?;
        let body = body.to_bytes();
        if status == StatusCode::OK {
            return Ok(body);
        }
        let text = String::from_utf8_lossy(&body);
        Err(RedeemError::Refused {
            status: status.as_u16(),
            body: text.trim().chars().take(MAX_TOLD).collect(),
        })
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // Cancel-safe: when the connection ends first, what it has read is still with the answer.
        _ = connection => answer.await,
    }
}

/// The documents of an answer. Whoever answers is trusted to link with us, not to change what we have.
fn documents(
    answer: &[u8],
    token: &AccessToken,
    name: &Name,
    namespace: &Namespace,
) -> Result<Vec<Located>, String> {
    let mut found = Vec::new();
    for document in parse(Path::new("-"), answer, Some(namespace)) {
        let mut located = document.map_err(|e| e.to_string())?;
        let its = located.resource.name().clone();
        let numbered = its.strip_prefix(name.as_str()).is_some_and(|rest| {
            let number = rest.strip_prefix('-');
            number.is_some_and(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit()))
        });
        match &mut located.resource.spec {
            Spec::Secret(secret) if its == *name && secret.has_certificate() => {}
            Spec::Link(link) if (its == *name || numbered) && link.tls_credentials == *name => {
                link.cost = token.link_cost;
            }
            _ => return Err(format!("{} was not asked for", located.key())),
        }
        found.push(located);
    }
    let links = found
        .iter()
        .filter(|l| matches!(l.resource.spec, Spec::Link(_)));
    match (links.count(), found.len()) {
        (0, _) => Err("there is no Link in it".to_owned()),
        (links, all) if all != links + 1 => Err("there is not one Secret in it".to_owned()),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests;
