//! Probes of servers: a TCP connection, or an HTTP GET.

use crate::{
    service::{
        origin::{self, ProxyProtocol},
        tls::ConnectorTls,
        view::TargetHost,
    },
    telemetry::chain,
};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;

/// Longest first line of an answer that is read.
const MAX_LINE: usize = 1024;

/// How a server is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub kind: ProbeKind,
    /// How often; one probe takes no longer.
    pub interval: Duration,
    /// Probes in a row that have to fail before the server is unhealthy.
    pub failures: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    Tcp,
    /// It asks for a path, as [`ConnectorTarget::tls`](crate::service::view::ConnectorTarget::tls) has it; 2xx
    /// and 3xx are good answers.
    Http {
        path: String,
        /// Value of the `Host` header.
        host: String,
    },
}

/// The probed server.
#[derive(Debug)]
pub(super) struct ProbeTarget {
    pub(super) host: TargetHost,
    pub(super) port: u16,
    pub(super) tls: Option<Arc<ConnectorTls>>,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
}

trait ProbeStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ProbeStream for T {}

/// One probe; why the server is not well.
pub(super) async fn once(probe: &Probe, server: &ProbeTarget) -> Result<(), String> {
    let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut));
    let result = tokio::time::timeout(probe.interval, ask(&probe.kind, server)).await;
    result.unwrap_or_else(late).map_err(|error| {
        let what = match &probe.kind {
            ProbeKind::Tcp => "connecting to".to_owned(),
            ProbeKind::Http { path, .. } => format!("GET {path} from"),
        };
        let host = &server.host;
        match host {
            TargetHost::Unix(_) => format!("{what} {host}: {}", chain(&error)),
            _ => format!("{what} {host} port {}: {}", server.port, chain(&error)),
        }
    })
}

async fn ask(kind: &ProbeKind, server: &ProbeTarget) -> io::Result<()> {
    let mut stream: Box<dyn ProbeStream> = match &server.host {
        TargetHost::Ip(ip) => Box::new(TcpStream::connect((*ip, server.port)).await?),
        TargetHost::Name(name) => Box::new(TcpStream::connect((name.as_str(), server.port)).await?),
        TargetHost::Unix(path) => Box::new(UnixStream::connect(path).await?),
    };
    if let Some(version) = server.proxy_protocol {
        // A connection of our own.
        stream.write_all(&origin::header(version, None)).await?;
    }
    let ProbeKind::Http { path, host } = kind else {
        return Ok(());
    };
    if let Some(tls) = &server.tls {
        let (config, name) = tls.config.load().ask(None);
        stream = Box::new(TlsConnector::from(config).connect(name, stream).await?);
    }
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') {
        if answer.len() > MAX_LINE || stream.read_buf(&mut answer).await? == 0 {
            return Err(invalid_data("the response is not HTTP"));
        }
    }
    let line = answer.split(|c| *c == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let version = words.next().unwrap_or_default();
    let status = words.next().and_then(|code| code.parse::<u16>().ok());
    match status.filter(|_| version.starts_with("HTTP/1.")) {
        Some(200..=399) => Ok(()),
        Some(status) => Err(invalid_data(&format!("the response has status {status}"))),
        None => Err(invalid_data("the response is not HTTP")),
    }
}

fn invalid_data(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}
