//! The grant server: its protocol, and clients that guess, race, redirect or stay silent.

use super::tokens::{errors, redemptions, save, token};
use nix::sys::signal::Signal;
use serde_json::Value;
use skupper_tests::{
    SOON,
    echo::connect,
    token::{grant_site, issue_token, redeem_token, running_site},
    wait_until,
};
use std::{
    io::Write,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// Redeems a token with curl and the CA of the token, without code of this project.
pub(crate) fn curl(token: &Value, dir: &Path, args: &[&str]) -> (String, String) {
    let ca = dir.join("ca.pem");
    let text = token["spec"]["ca"].as_str().expect("a CA");
    std::fs::write(&ca, text).expect("a file");
    let out = Command::new("curl")
        .args(["-sS", "-m", "12", "-w", "\n%{http_code}", "--cacert"])
        .arg(ca)
        .args(args)
        .arg(token["spec"]["url"].as_str().expect("a URL"))
        .output()
        .expect("curl");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').expect("a code");
    let errors = String::from_utf8_lossy(&out.stderr);
    (code.to_owned(), format!("{body}{errors}"))
}

#[test]
fn redemption_speaks_skuppers_protocol() {
    let a = grant_site();
    let file = issue_token(&a, &["--name", "wire"]);
    let token = token(&file);
    let (url, code) = (
        &token["spec"]["url"],
        token["spec"]["code"].as_str().expect("a code"),
    );
    assert!(
        url.as_str()
            .is_some_and(|u| u.starts_with("https://127.0.0.1:")),
        "{url}"
    );
    assert_eq!(code.len(), 24);
    let ask = |args: &[&str]| curl(&token, a.root(), args);
    for (args, status, body) in [
        (&["-X", "GET"][..], "405", "Only POST is supported\n"),
        (
            &["-d", "wrong"],
            "403",
            "Redemption of access token refused\n",
        ),
        (
            &["-H", "name: Not A Name", "-d", "x"],
            "400",
            "Request body not valid\n",
        ),
    ] {
        assert_eq!(ask(args), (status.to_owned(), body.to_owned()));
    }
    let tls12 = ask(&["--tls-max", "1.2", "-d", code]);
    assert_eq!(tls12.0, "000", "{}", tls12.1);
    let big = a.root().join("big");
    std::fs::write(&big, vec![b'x'; 10 << 20]).expect("a file");
    let at_big = format!("@{}", big.display());
    let (status, _) = ask(&["--data-binary", &at_big]);
    assert_ne!(status, "200");
    let (status, body) = ask(&["-H", "name: my-link", "-H", "subject: west", "-d", code]);
    assert_eq!(status, "200", "{body}");
    assert!(body.starts_with("---\n"), "{body}");
    let documents: Vec<Value> = serde_yaml::Deserializer::from_str(&body)
        .map(|d| serde::Deserialize::deserialize(d).expect("a document"))
        .filter(|d| *d != Value::Null)
        .collect();
    let [secret, link] = &documents[..] else {
        panic!("{documents:#?}");
    };
    assert_eq!(secret["apiVersion"], "v1");
    assert_eq!(
        (&secret["kind"], &secret["type"]),
        (&"Secret".into(), &"kubernetes.io/tls".into())
    );
    assert_eq!(secret["metadata"]["name"], "my-link");
    for part in ["ca.crt", "tls.crt", "tls.key"] {
        assert!(secret["data"][part].is_string(), "{part}");
    }
    assert_eq!(link["apiVersion"], "skupper.io/v2alpha1");
    assert_eq!(
        (&link["kind"], &link["metadata"]["name"]),
        (&"Link".into(), &"my-link".into())
    );
    let spec = &link["spec"];
    assert_eq!(spec["tlsCredentials"], "my-link");
    assert_eq!(spec["cost"], Value::Null);
    let endpoint = &spec["endpoints"][0];
    assert_eq!(endpoint["name"], "inter-router");
    assert_eq!(endpoint["host"], "127.0.0.1");
    assert!(
        endpoint["port"].is_string() && endpoint["group"].is_string(),
        "{endpoint}"
    );
    assert_eq!(
        ask(&["-d", code]),
        ("404".to_owned(), "No such access granted\n".to_owned())
    );
}

#[test]
fn guessing_is_stopped_and_logged_without_the_guess() {
    let a = grant_site();
    let file = issue_token(&a, &["--name", "g"]);
    let token = token(&file);
    let ask = || curl(&token, a.root(), &["-d", "GUESSGUESSGUESS"]).0;
    let answers: Vec<String> = (0..11).map(|_| ask()).collect();
    assert_eq!(answers[..10], vec!["403".to_owned(); 10]);
    assert_eq!(answers[10], "429");
    let log = a.log();
    assert!(log.contains("redemption refused peer=127.0.0.1:"), "{log}");
    assert!(!log.contains("GUESSGUESS"), "{log}");
    let code = token["spec"]["code"].as_str().expect("a code");
    assert!(!log.contains(code), "the code is in the log");
}

#[test]
fn a_hundred_redemptions_and_a_kill_never_exceed_the_limit() {
    let mut a = grant_site();
    let file = issue_token(&a, &["--name", "ten", "--redemptions-allowed", "10"]);
    let token = token(&file);
    let code = token["spec"]["code"].as_str().expect("a code").to_owned();
    let root = a.root().to_owned();
    let burst = |count: usize| -> usize {
        std::thread::scope(|scope| {
            let ask = |n: usize| {
                let (token, code, dir) = (&token, &code, root.join(n.to_string()));
                scope.spawn(move || {
                    std::fs::create_dir_all(&dir).expect("a directory");
                    curl(token, &dir, &["-d", code]).0 == "200"
                })
            };
            let threads: Vec<_> = (0..count).map(ask).collect();
            threads
                .into_iter()
                .map(|t| t.join().expect("a thread"))
                .filter(|ok| *ok)
                .count()
        })
    };
    let first = burst(4);
    assert_eq!(first, 4);
    let (killed, pid) = (
        a.pid(),
        nix::unistd::Pid::from_raw(i32::try_from(a.pid()).expect("a pid")),
    );
    let second = std::thread::scope(|scope| {
        let racing = scope.spawn(|| burst(40));
        // The server records a redemption on disk before it answers.
        let file = a.root().join("namespaces/default/internal/grants.json");
        let begin = Instant::now();
        loop {
            let text = std::fs::read_to_string(&file).expect("the grants");
            let grants: Value = serde_json::from_str(&text).expect("JSON");
            if grants["grants"]["ten"]["redemptions"].as_u64() > Some(4) {
                break;
            }
            assert!(begin.elapsed() < SOON, "nobody is served: {text}");
        }
        nix::sys::signal::kill(pid, Signal::SIGKILL).expect("a signal");
        racing.join().expect("a thread")
    });
    assert_eq!(killed, a.pid());
    a.kill();
    a.start();
    wait_until("the grant server", Duration::from_secs(20), || {
        curl(&token, a.root(), &["-X", "GET"]).0 == "405"
    });
    let third = burst(100);
    println!("{first} before, {second} as it was killed, {third} after");
    assert!(first + second + third <= 10, "{first} + {second} + {third}");
    wait_until("all of them counted", SOON, || redemptions(&a, "ten") == 10);
    assert_eq!(
        curl(&token, a.root(), &["-d", &code]).1,
        "No such access granted\n"
    );
}

#[test]
fn other_schemes_redirects_and_silence_end_in_time() {
    let (a, b) = (grant_site(), running_site("b"));
    let file = issue_token(&a, &["--name", "g"]);
    let good = token(&file);
    let with_url = |url: String| {
        let mut token = good.clone();
        token["spec"]["url"] = url.into();
        save(&file, &token);
    };
    let url = good["spec"]["url"].as_str().expect("a URL");
    with_url(url.replacen("https", "http", 1));
    let why = errors(&redeem_token(&b, &file));
    assert!(why.contains("token url scheme must be https"), "{why}");
    // A server that accepts and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let addr = silent.local_addr().expect("an address");
    with_url(format!("https://{addr}/x"));
    let begin = Instant::now();
    let why = errors(&redeem_token(&b, &file));
    assert!(why.contains("no answer within 10 s"), "{why}");
    assert!(
        begin.elapsed() < Duration::from_secs(12),
        "{:?}",
        begin.elapsed()
    );
    // The daemon retries the resource: the server may not have been running yet.
    drop(silent);
    let text = std::fs::read_to_string(&file).expect("a token");
    b.file("AccessToken-g.yaml", &text);
    wait_until("the reason", SOON, || {
        let status = b.status("AccessToken", "g").unwrap_or_default();
        let message = status["status"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        message.contains("Connection refused") && message.contains("tried again")
    });
    save(&file, &good);
    let text = std::fs::read_to_string(&file).expect("a token");
    b.file("AccessToken-g.yaml", &text);
    b.wait_status("AccessToken", "g", "Ready");
    b.wait_status("Link", "g", "Ready");
}

#[test]
fn the_grant_server_survives_hostile_clients() {
    let (a, b) = (grant_site(), running_site("b"));
    let file = issue_token(&a, &["--name", "g"]);
    let url = token(&file)["spec"]["url"]
        .as_str()
        .expect("a URL")
        .to_owned();
    let addr = url
        .strip_prefix("https://")
        .and_then(|u| u.split('/').next())
        .expect("an address");
    let addr: std::net::SocketAddr = addr.parse().expect("an address");
    let before = skupper_tests::resident(a.pid());
    // A thousand open connections: silent, with random bytes, with half a ClientHello.
    let first_bytes: [&[u8]; 3] = [b"", &[0xee; 700], b"\x16\x03\x01\x02\x00\x01"];
    let mut held = Vec::new();
    for n in 0..1000 {
        let mut socket = connect(addr).expect("accepted");
        // Some connections are closed already.
        drop(socket.write_all(first_bytes[n % 3]));
        held.push(socket);
    }
    let after = skupper_tests::resident(a.pid());
    println!(
        "{} KiB more for 1,000 strangers",
        after.saturating_sub(before) / 1024
    );
    assert!(
        after < before + (32 << 20),
        "{before} bytes grew to {after}"
    );
    let begin = Instant::now();
    let output = redeem_token(&b, &file);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
    drop(held);
}
