//! `skupper console`: serves the web page of the network on loopback for as long as the command runs.
//!
//! A browser cannot open the daemon's Unix socket. The command forwards requests to it with the rights of
//! the user who runs the command, and only with the token in the address that it prints: other users of
//! the host can connect to its loopback too.

use super::{
    CommandResult, Failure,
    daemon_http::{self, DaemonHttpError, DaemonResponse},
    output,
    target::CommandTarget,
};
use crate::{
    http_server::{
        ConnectionLimits, HttpResult, refuse_writes, serve_connection, serve_each, text, with_type,
    },
    observe::console::{self, ConsoleToken},
};
use anyhow::{Context, anyhow};
use clap::Args;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
};
use std::{
    fs,
    io::IsTerminal,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore};

/// Browser connections at a time; more wait.
const MAX_CONNECTIONS: usize = 32;
const LIMITS: ConnectionLimits = ConnectionLimits {
    head_timeout: Duration::from_secs(30),
    max_head: None,
    keep_alive: true,
};

#[derive(Debug, Args)]
pub(super) struct Console {
    /// Port to listen on at 127.0.0.1 [default: a free one]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    port: u16,
}

/// Prints the address of the daemon's own console where it serves one; else serves one until interrupted.
pub(super) fn run(target: &CommandTarget, args: &Console) -> CommandResult {
    let runtime = target.layout.runtime().to_owned();
    // Only users who may see everything can read this file.
    if let Ok(url) = fs::read_to_string(runtime.join("console.url")) {
        return output::print(&url);
    }
    if let Err(error) = daemon_http::get(&runtime, "/healthz") {
        return Err(Failure::Failed(match error {
            DaemonHttpError::NotRunning(_) => {
                anyhow!("{error}\nThe console shows what skupperd reports: start it first")
            }
            DaemonHttpError::Failed { .. } => error.into(),
        }));
    }
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    served.block_on(serve(runtime, args.port))
}

async fn serve(runtime: PathBuf, port: u16) -> CommandResult {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(addr)
        .await
        .with_context(|| format!("cannot listen on {addr}"))?;
    let token =
        ConsoleToken::new().ok_or_else(|| anyhow!("the kernel returned no random bytes"))?;
    output::print(&token.url(listener.local_addr()?))?;
    if std::io::stdout().is_terminal() {
        output::error("Open this address in a browser on this host. Press Ctrl-C to stop.");
    }
    let source = Arc::new((runtime, token));
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accept = || async { listener.accept().await.map(|(socket, _)| socket) };
    serve_each("console", permits, accept, |socket| {
        let source = source.clone();
        async move {
            let respond = |request: Request<Incoming>| {
                let source = source.clone();
                async move { respond_with_headers(&request, &source).await }
            };
            // Browsers close connections as they like.
            drop(serve_connection(socket, LIMITS, respond).await);
        }
    })
    .await;
    Ok(())
}

async fn respond_with_headers(
    request: &Request<Incoming>,
    source: &Arc<(PathBuf, ConsoleToken)>,
) -> HttpResult {
    let mut response = respond(request, source).await?;
    let headers = console::headers();
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    response.headers_mut().extend(headers);
    Ok(response)
}

async fn respond(request: &Request<Incoming>, source: &Arc<(PathBuf, ConsoleToken)>) -> HttpResult {
    if let Some(refusal) = refuse_writes(request) {
        return refusal;
    }
    if !console::is_for_this_host(request) {
        return text(StatusCode::FORBIDDEN, console::FOREIGN_NAME);
    }
    if request.uri().path() == "/" {
        return with_type(StatusCode::OK, "text/html; charset=utf-8", console::page());
    }
    if !source.1.is_shown(request.headers()) {
        return text(StatusCode::FORBIDDEN, console::TOKEN_MISSING);
    }
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    match daemon_http::fetch(&source.0, &path).await {
        Ok(response) => forward(response),
        Err(error) => text(StatusCode::BAD_GATEWAY, error.to_string()),
    }
}

/// The daemon's status, type and body, without its other headers.
fn forward(from_daemon: DaemonResponse) -> HttpResult {
    let mut response = Response::builder().status(from_daemon.status);
    if let Some(kind) = from_daemon.content_type {
        response = response.header(CONTENT_TYPE, kind);
    }
    response.body(Full::from(from_daemon.body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn console_forwards_the_daemons_response() {
        let from_daemon = DaemonResponse {
            status: StatusCode::FORBIDDEN,
            content_type: Some(HeaderValue::from_static("application/json")),
            body: "{}".to_owned(),
        };
        let response = forward(from_daemon).unwrap();
        assert_eq!(response.status(), 403);
        assert_eq!(response.headers().len(), 1);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    }
}
