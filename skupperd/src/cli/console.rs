//! `skupper console`: the page in which one sees the network, for as long as the command runs.
//!
//! A browser can not come to the daemon's socket: the command listens on loopback and asks there for
//! it, with the rights of whoever runs it. Who else may use this host's loopback has not the token.

use super::{
    Failure, Outcome,
    ask::{self, Answer},
    output,
    place::Place,
};
use crate::observe::console::{self, Token};
use anyhow::{Context, anyhow};
use bytes::Bytes;
use clap::Args;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    http,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    fs,
    io::IsTerminal,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore};

/// Connections of browsers at a time; more wait.
const MAX_OPEN: usize = 32;
/// Time for the head of a request, and between two of one connection.
const HEAD: Duration = Duration::from_secs(30);
/// Pause after an accept that failed, for example for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct Console {
    /// Port on 127.0.0.1 [default: any that is free]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    port: u16,
}

/// `skupper console`: where the daemon serves it, says so; else serves it until interrupted.
pub(super) fn run(place: &Place, args: &Console) -> Outcome {
    let runtime = place.layout.runtime().to_owned();
    // Readable by those only who may see everything.
    if let Ok(url) = fs::read_to_string(runtime.join("console.url")) {
        return output::print(&url);
    }
    ask::get(&runtime, "/healthz").map_err(|e| {
        Failure::Failed(anyhow!(
            "{e}: the console shows what skupperd says, and it does not run here"
        ))
    })?;
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    served.block_on(serve(runtime, args.port))
}

async fn serve(runtime: PathBuf, port: u16) -> Outcome {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(addr)
        .await
        .with_context(|| format!("binding {addr}"))?;
    let token = Token::new().ok_or_else(|| anyhow!("the system has no random numbers"))?;
    output::print(&token.url(listener.local_addr()?))?;
    if std::io::stdout().is_terminal() {
        output::error("Open this address in a browser of this host. Ctrl-C ends it.");
    }
    let (limit, asking) = (
        Arc::new(Semaphore::new(MAX_OPEN)),
        Arc::new((runtime, token)),
    );
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let permit = limit
            .clone()
            .acquire_owned()
            .await
            .map_err(anyhow::Error::from)?;
        let asking = asking.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(|request| {
                let asking = asking.clone();
                async move { answer(&request, &asking).await }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(socket), service);
            // A browser that goes away has seen what it wanted.
            drop(connection.await);
        });
    }
}

type Answered = Result<Response<Full<Bytes>>, http::Error>;

async fn answer(request: &Request<Incoming>, asking: &Arc<(PathBuf, Token)>) -> Answered {
    let mut answer = asked(request, asking).await?;
    let headers = console::headers();
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    answer.headers_mut().extend(headers);
    Ok(answer)
}

fn refuse(status: StatusCode, why: &'static str) -> Answered {
    Response::builder().status(status).body(Full::from(why))
}

async fn asked(request: &Request<Incoming>, asking: &Arc<(PathBuf, Token)>) -> Answered {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
    }
    if !console::is_for_this_host(request) {
        return refuse(
            StatusCode::FORBIDDEN,
            "this is shown under the names of this host only, as localhost\n",
        );
    }
    if request.uri().path() == "/" {
        return Response::builder()
            .header(CONTENT_TYPE, "text/html; charset=utf-8")
            .body(Full::from(console::page()));
    }
    if !asking.1.is_shown(request.headers()) {
        return refuse(
            StatusCode::FORBIDDEN,
            "the token is missing: open the address that skupper console has printed\n",
        );
    }
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    let asking = asking.clone();
    let got = tokio::task::spawn_blocking(move || ask::get(&asking.0, &path)).await;
    match got {
        Ok(Ok(answer)) => forwarded(answer),
        Ok(Err(why)) => Response::builder()
            .status(StatusCode::BAD_GATEWAY)
            .body(Full::from(why.to_string())),
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "asking skupperd\n"),
    }
}

/// What the daemon has answered: status, type and body.
fn forwarded(answer: Answer) -> Answered {
    let status = answer.status.parse::<u16>();
    let mut response = Response::builder().status(status.unwrap_or(502));
    if let Some(kind) = answer.kind {
        response = response.header(CONTENT_TYPE, kind);
    }
    response.body(Full::from(answer.body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o9_what_the_daemon_answers_is_passed_on() {
        let answer = "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\nx: y\r\n\r\n{}";
        let passed = forwarded(Answer::parse(answer)).unwrap();
        assert_eq!(passed.status(), 403);
        assert_eq!(passed.headers().len(), 1);
        assert_eq!(passed.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(forwarded(Answer::parse("what?")).unwrap().status(), 502);
    }
}
