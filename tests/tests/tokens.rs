//! Grants and tokens, held against the rows T of the checklist.

use nix::sys::signal::Signal;
use serde_json::Value;
use skupper_tests::{
    SOON,
    echo::{Server, connect, refused, round_trip, works},
    free_addr,
    site::Site,
    token::{issue, issuer, redeem, running},
    wait_until,
};
use std::{
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

fn errors(output: &Output) -> String {
    assert!(!output.status.success(), "it was not refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn token(file: &Path) -> Value {
    let text = std::fs::read_to_string(file).expect("a token");
    serde_yaml::from_str(&text).expect("YAML")
}

fn save(file: &Path, token: &Value) {
    std::fs::write(file, serde_yaml::to_string(token).expect("YAML")).expect("a file");
}

fn redemptions(a: &Site, name: &str) -> u64 {
    let status = a.status("AccessGrant", name).unwrap_or_default();
    status["status"]["redemptions"].as_u64().unwrap_or_default()
}

/// A redemption as curl makes it, with the token's CA and nothing of ours.
fn curl(token: &Value, dir: &Path, args: &[&str]) -> (String, String) {
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
fn t1_t2_t3_t5_l2_two_commands_link_two_sites_and_a_third_is_refused() {
    let (a, b, c) = (issuer(), running("b"), running("c"));
    let file = issue(&a, &["--name", "east"]);
    let mode = std::fs::metadata(&file)
        .expect("a token")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let status = a.status("AccessGrant", "east").expect("a grant");
    for field in ["url", "code", "ca", "expirationTime"] {
        assert_ne!(status["status"][field], Value::Null, "{field}: {status:#}");
    }
    let begin = Instant::now();
    let output = redeem(&b, &file);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("Token \"east\" has been redeemed."), "{said}");
    assert!(said.contains("is up: a"), "{said}");
    println!("linked {:?} after redeem", begin.elapsed());
    b.wait_status("Link", "east", "Ready");
    let why = errors(&redeem(&c, &file));
    assert!(
        why.contains("Received HTTP Response 404: No such access granted"),
        "{why}"
    );
    assert!(c.status("Link", "east").is_none(), "nothing was written");
    wait_until("the count in the status", SOON, || {
        redemptions(&a, "east") == 1
    });
}

#[test]
fn t6_t13_t19_each_of_several_sites_gets_its_own() {
    let a = issuer();
    let file = issue(
        &a,
        &[
            "--redemptions-allowed",
            "2",
            "--cost",
            "7",
            "--name",
            "many",
        ],
    );
    let mut keys = Vec::new();
    for name in ["b", "c"] {
        let site = running(name);
        assert!(redeem(&site, &file).status.success());
        let link = site.status("Link", "many").expect("a link");
        assert_eq!(link["spec"]["cost"], 7);
        let secret = site.input().join("Secret-many.yaml");
        let mode = std::fs::metadata(&secret)
            .expect("a secret")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        keys.push(std::fs::read_to_string(secret).expect("a secret"));
    }
    assert_ne!(keys[0], keys[1]);
    assert!(errors(&redeem(&running("d"), &file)).contains("404"));
}

#[test]
fn t4_a_token_in_the_input_is_redeemed_once_also_over_a_restart() {
    let (a, mut b) = (issuer(), running("b"));
    let file = issue(&a, &["--name", "once", "--redemptions-allowed", "5"]);
    let text = std::fs::read_to_string(&file).expect("a token");
    b.file("AccessToken-once.yaml", &text);
    b.wait_status("AccessToken", "once", "Ready");
    b.wait_status("Link", "once", "Ready");
    let status = b.status("AccessToken", "once").expect("a status");
    assert_eq!(status["status"]["redeemed"], true);
    assert_eq!(
        status["spec"]["code"],
        Value::Null,
        "the code is nobody's business"
    );
    b.signal(Signal::SIGHUP);
    assert_eq!(b.stop(), Some(0));
    b.start();
    b.wait_status("Link", "once", "Ready");
    b.wait_status("AccessToken", "once", "Ready");
    wait_until("the count", SOON, || redemptions(&a, "once") == 1);
    // Killed between the link and the note of it: the link itself says what it came from.
    b.kill();
    std::fs::remove_file(b.root().join("namespaces/default/internal/tokens.json")).expect("a note");
    b.start();
    b.wait_status("Link", "once", "Ready");
    b.wait_status("AccessToken", "once", "Ready");
    assert_eq!(redemptions(&a, "once"), 1);
}

#[test]
fn t7_t8_t9_t15_what_is_over_wrong_or_another_servers_is_refused() {
    let (a, b) = (issuer(), running("b"));
    let file = issue(&a, &["--name", "g", "--expiration-window", "2s"]);
    let begin = Instant::now();
    let good = token(&file);
    let mut wrong = good.clone();
    wrong["spec"]["code"] = "AAAAAAAAAAAAAAAAAAAAAAAA".into();
    save(&file, &wrong);
    let why = errors(&redeem(&b, &file));
    assert!(
        why.contains("403: Redemption of access token refused"),
        "{why}"
    );
    assert_eq!(redemptions(&a, "g"), 0);
    // Another CA: the server is not the one of the token, and is sent nothing.
    let mut foreign = good.clone();
    let (ca, _) = skupper_tests::pki::foreign("other");
    foreign["spec"]["ca"] = ca.into();
    save(&file, &foreign);
    let why = errors(&redeem(&b, &file));
    assert!(why.contains("is not the one of the token"), "{why}");
    save(&file, &good);
    wait_until("the end of the window", SOON, || {
        begin.elapsed() > Duration::from_millis(2500)
    });
    let why = errors(&redeem(&b, &file));
    assert!(why.contains("404: No such claim"), "{why}");
    let file = issue(&a, &["--name", "h"]);
    a.remove("AccessGrant", "h");
    let gone = token(&file);
    // The last grant takes the server with it; either says that there is no such thing.
    wait_until("the grant to be gone", SOON, || {
        let (code, said) = curl(&gone, a.root(), &["-d", "x"]);
        code == "404" || said.contains("refused") || said.contains("Couldn't connect")
    });
}

#[test]
fn t11_t17_the_wire_is_upstreams() {
    let a = issuer();
    let file = issue(&a, &["--name", "wire"]);
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
fn t14_an_edge_site_issues_nothing() {
    let a = running("a");
    a.resource("Site", "a", "{edge: true}");
    let output = a.skupper(&["token", "issue", "/nowhere/token.yaml", "--timeout", "1s"]);
    let why = errors(&output);
    assert!(why.contains("link access is not enabled"), "{why}");
    a.resource("AccessGrant", "g", "{}");
    a.wait_message(
        "AccessGrant",
        "g",
        "Error",
        "Edge sites cannot accept incoming links",
    );
}

#[test]
fn t16_guessing_is_stopped_and_logged_without_the_guess() {
    let a = issuer();
    let file = issue(&a, &["--name", "g"]);
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
fn t18_own_code_and_issuer() {
    let a = issuer();
    a.resource("AccessGrant", "own", "{code: \"open sesame\"}");
    a.wait_status("AccessGrant", "own", "Ready");
    a.resource("AccessGrant", "other", "{issuer: nobody}");
    a.wait_message(
        "AccessGrant",
        "other",
        "Error",
        "no link access of this site trusts nobody",
    );
    let status = a.status("AccessGrant", "own").expect("a grant")["status"].clone();
    let token = serde_json::json!({ "spec": { "url": status["url"], "ca": status["ca"] } });
    assert_eq!(curl(&token, a.root(), &["-d", "open sesame"]).0, "200");
}

#[test]
fn a_hundred_at_once_and_a_kill_in_the_middle_never_pass_the_limit() {
    let mut a = issuer();
    let file = issue(&a, &["--name", "ten", "--redemptions-allowed", "10"]);
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
        // On disk before any answer: the file is the first to know.
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
fn t10_t12_other_schemes_redirects_and_silence_end_in_time() {
    let (a, b) = (issuer(), running("b"));
    let file = issue(&a, &["--name", "g"]);
    let good = token(&file);
    let with_url = |url: String| {
        let mut token = good.clone();
        token["spec"]["url"] = url.into();
        save(&file, &token);
    };
    let url = good["spec"]["url"].as_str().expect("a URL");
    with_url(url.replacen("https", "http", 1));
    let why = errors(&redeem(&b, &file));
    assert!(why.contains("token url scheme must be https"), "{why}");
    // Somebody who listens and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let addr = silent.local_addr().expect("an address");
    with_url(format!("https://{addr}/x"));
    let begin = Instant::now();
    let why = errors(&redeem(&b, &file));
    assert!(why.contains("no answer within 10 s"), "{why}");
    assert!(
        begin.elapsed() < Duration::from_secs(12),
        "{:?}",
        begin.elapsed()
    );
    // The resource tries again: it may be that nobody was there yet.
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
fn the_grant_server_bears_strangers() {
    let (a, b) = (issuer(), running("b"));
    let file = issue(&a, &["--name", "g"]);
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
    // A thousand that hold a connection: silent, with noise, with half a greeting.
    let first_bytes: [&[u8]; 3] = [b"", &[0xee; 700], b"\x16\x03\x01\x02\x00\x01"];
    let mut held = Vec::new();
    for n in 0..1000 {
        let mut socket = connect(addr).expect("accepted");
        // Those that are ended already take nothing more.
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
    let output = redeem(&b, &file);
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

/// The serial number of the certificate that a remote site shows.
fn serial(a: &Site, remote: &str) -> Option<String> {
    let status = a.status("Site", "a")?;
    let links = status["status"]["incomingLinks"].as_array()?;
    let link = links.iter().find(|l| l["remoteSiteName"] == remote)?;
    Some(link["certificate"]["serial"].as_str()?.to_owned())
}

#[test]
fn l31_l29_one_site_is_shut_out_at_once_and_for_good_and_others_stay() {
    let (mut a, b, c) = (issuer(), running("b"), running("c"));
    let file = issue(&a, &["--name", "in", "--redemptions-allowed", "2"]);
    for site in [&b, &c] {
        assert!(redeem(site, &file).status.success());
        let link = site.status("Link", "in").expect("a link");
        let expires = &link["status"]["certificateExpirationTime"];
        assert!(
            expires.as_str().is_some_and(|t| t.ends_with('Z')),
            "{link:#}"
        );
    }
    // Expiry as a metric too, on both sides.
    let metric = "skupper_certificate_expiration_timestamp_seconds{namespace=\"default\",";
    for (site, rest) in [
        (&b, "kind=\"Link\",name=\"in\",subject=\"\"}"),
        (&a, "kind=\"RouterAccess\",name=\"access\",subject=\"\"}"),
        (&a, "kind=\"Site\",name=\"a\",subject=\"c\"}"),
    ] {
        let line = format!("{metric}{rest} ");
        wait_until(&line, SOON, || {
            let text = site.http("GET /metrics");
            let value = text.lines().find_map(|l| l.strip_prefix(&line));
            value.is_some_and(|v| v.parse::<u64>().is_ok_and(|v| v > 1_900_000_000))
        });
    }
    assert!(a.http("GET /healthz").starts_with("HTTP/1.1 200"));
    assert!(a.http("POST /metrics").starts_with("HTTP/1.1 405"));
    let server = Server::echo(free_addr());
    a.connector("echo", "echo", server.addr);
    let [at_b, at_c] = [&b, &c].map(|site| {
        let addr = free_addr();
        site.listener("echo", "echo", addr);
        wait_until("the service", SOON, || works(addr));
        addr
    });
    let (mut from_b, mut from_c) = (connect(at_b).expect("open"), connect(at_c).expect("open"));
    round_trip(&mut from_b, b"before").expect("works");
    round_trip(&mut from_c, b"before").expect("works");
    wait_until("both in the status", SOON, || {
        serial(&a, "b").is_some() && serial(&a, "c").is_some()
    });
    let of_b = serial(&a, "b").expect("a serial");
    assert!(errors(&a.skupper(&["link", "revoke", "nobody"])).contains("no certificate of"));
    let begin = Instant::now();
    let said = a.ok(&["link", "revoke", "b"]);
    assert!(
        said.contains(&of_b) && said.contains("is revoked"),
        "{said}"
    );
    // The connection over that link ends; whether as a reset or an end does not matter.
    assert!(!matches!(from_b.read(&mut [0; 1]), Ok(1..)));
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    b.wait_status("Link", "in", "Pending");
    wait_until("a refusal in the log", SOON, || {
        a.log()
            .contains(&format!("certificate {of_b} of \"b\" has been revoked"))
    });
    round_trip(&mut from_c, b"after").expect("c is not concerned");
    assert!(
        a.ok(&["link", "revoke", &of_b])
            .contains("was revoked before")
    );
    a.kill();
    a.start();
    c.wait_status("Link", "in", "Ready");
    wait_until("the service at c", SOON, || works(at_c));
    let refusals = a.log().matches("has been revoked").count();
    wait_until("another refusal", SOON, || {
        a.log().matches("has been revoked").count() > refusals
    });
    assert_eq!(serial(&a, "b"), None);
    assert!(refused(at_b), "nothing can be reached from b");
    // Taken back, it comes in again.
    let text = std::fs::read_to_string(a.input().join("Site-a.yaml")).expect("the site");
    assert!(text.contains(&of_b), "{text}");
    a.file("Site-a.yaml", &text.replace(&of_b, "ab"));
    b.wait_status("Link", "in", "Ready");
}
