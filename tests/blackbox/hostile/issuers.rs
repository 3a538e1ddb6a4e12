//! Issuers of tokens that do not answer like one: without end, slowly, with other things than a link.

use crate::tokens::errors;
use skupper_tests::{
    SOON,
    echo::Server,
    free_addr, resident,
    site::Site,
    token::running_site,
    token_issuer::{IssuerStream, TokenIssuer},
    wait_until,
};
use std::{
    io::Write,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

const MIB: usize = 1024 * 1024;
/// The time that the site gives an issuer, and some for a busy machine.
const IN_TIME: Duration = Duration::from_secs(16);

/// Lets a running site redeem a token of this issuer, until its status has `part`. The memory of the site
/// stays below a bound, and nothing is written.
fn redeem_in_vain(site: &Site, issuer: &TokenIssuer, part: &str) {
    let (before, begin) = (resident(site.pid()), Instant::now());
    issuer.token(&site.input(), "t");
    let mut most = 0;
    wait_until("the reason in the status", SOON, || {
        most = most.max(resident(site.pid()));
        let status = site.status("AccessToken", "t").unwrap_or_default();
        let message = status["status"]["message"].as_str().unwrap_or_default();
        message.contains(part)
    });
    let grown = most.saturating_sub(before) / MIB;
    println!("{:?}, {grown} MiB more", begin.elapsed());
    assert!(grown < 24, "{grown} MiB more");
    assert!(begin.elapsed() < IN_TIME, "{:?}", begin.elapsed());
    assert!(site.status("Link", "t").is_none(), "a link was made");
}

/// Sends a head, and pieces of a body for as long as they are taken.
fn endless(stream: &mut IssuerStream, head: &str, piece: &[u8]) {
    let mut sent = stream.write_all(head.as_bytes());
    while sent.is_ok() {
        sent = stream.write_all(piece);
    }
}

#[test]
fn a_response_of_a_gibibyte_is_not_taken() {
    let site = running_site("b");
    let issuer = TokenIssuer::answering(|stream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n";
        endless(stream, head, &[b'x'; 65_536]);
    });
    redeem_in_vain(&site, &issuer, "length limit exceeded");
}

#[test]
fn a_response_without_an_end_is_not_taken() {
    let site = running_site("b");
    let issuer = TokenIssuer::answering(|stream| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let piece = format!("10000\r\n{}\r\n", "x".repeat(65_536));
        endless(stream, head, piece.as_bytes());
    });
    redeem_in_vain(&site, &issuer, "length limit exceeded");
}

#[test]
fn a_head_of_a_response_without_an_end_is_not_taken() {
    let site = running_site("b");
    let issuer = TokenIssuer::answering(|stream| {
        let piece = "x-more: of the same\r\n".repeat(1_000);
        endless(stream, "HTTP/1.1 200 OK\r\n", piece.as_bytes());
    });
    redeem_in_vain(&site, &issuer, "cannot ask");
}

/// One issuer that takes its time holds nobody up: neither other tokens nor other resources.
#[test]
fn a_response_that_trickles_in_ends_in_time() {
    let site = running_site("b");
    let issuer = TokenIssuer::answering(|stream| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
        let mut sent = stream.write_all(head);
        while sent.is_ok() {
            sent = stream.write_all(b"x").and_then(|()| stream.flush());
            // It is slow on purpose.
            thread::sleep(Duration::from_millis(200));
        }
    });
    let server = Server::echo(free_addr());
    let begin = Instant::now();
    issuer.token(&site.input(), "t");
    wait_until("the request", SOON, || issuer.requests() > 0);
    let addr = free_addr();
    site.connector("echo", "echo", server.addr);
    site.listener("echo", "echo", addr);
    wait_until("the service", SOON, || skupper_tests::echo::works(addr));
    assert!(
        begin.elapsed() < Duration::from_secs(8),
        "other resources waited for {:?}",
        begin.elapsed()
    );
    redeem_in_vain(&site, &issuer, "no answer within 10 s");
}

/// A redirection is an answer like any other: the code goes to no other server.
#[test]
fn redirections_are_not_followed() {
    let elsewhere = Server::says(free_addr(), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let site = running_site("b");
        let to = elsewhere.addr;
        let issuer = TokenIssuer::answering(move |stream| {
            let answer =
                format!("HTTP/1.1 {status}\r\nLocation: http://{to}/\r\nContent-Length: 0\r\n\r\n");
            // The client may be gone; the test looks at what it has made of the answer.
            stream.write_all(answer.as_bytes()).ok();
        });
        let code = &status[..3];
        redeem_in_vain(&site, &issuer, &format!("Received HTTP Response {code}"));
    }
    assert_eq!(elsewhere.accepted.load(Ordering::SeqCst), 0, "followed");
}

/// Documents that are none, or that grow while they are read.
#[test]
fn documents_that_are_no_link_are_refused() {
    let bomb = {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for n in 1..40 {
            let before = format!("*a{}", n - 1);
            let line = [before.as_str(); 9].join(", ");
            text.push_str(&format!("a{n}: &a{n} [{line}]\n"));
        }
        text
    };
    for body in [
        String::new(),
        "{\"kind\": \"Link\"}".to_owned(),
        "[1, 2, 3]".to_owned(),
        "<html>Not found</html>".to_owned(),
        "\0\u{1}\u{2}".to_owned(),
        "[".repeat(100_000),
        "---\n".repeat(50_000),
        bomb,
    ] {
        let site = running_site("b");
        let issuer = TokenIssuer::answering(move |stream| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            // As above.
            stream.write_all(head.as_bytes()).ok();
            stream.write_all(body.as_bytes()).ok();
        });
        redeem_in_vain(&site, &issuer, "invalid response");
    }
}

/// An issuer whose texts end up in the terminal and the status of the user.
#[test]
fn texts_of_an_issuer_are_short_and_harmless() {
    let site = running_site("b");
    let issuer = TokenIssuer::answering(|stream| {
        let body = format!("\u{1b}[2J\u{1b}[31mgone{}", "x".repeat(100_000));
        let answer = format!(
            "HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        // As above.
        stream.write_all(answer.as_bytes()).ok();
    });
    let file = issuer.token(site.root(), "t");
    let output = site.skupper(&["token", "redeem", file.to_str().expect("a path")]);
    let why = errors(&output);
    assert!(why.contains("403") && why.len() < 2_000, "{why}");
    assert!(!why.contains('\u{1b}'), "{why:?}");
    assert!(
        !site.log().contains('\u{1b}'),
        "escape sequences in the log"
    );
}
