//! Tokens: issued by one site and redeemed by another, within the limits of their grant.

use super::grant_server::curl;
use nix::sys::signal::Signal;
use serde_json::Value;
use skupper_tests::{
    SOON,
    echo::{Server, connect, refused, round_trip, works},
    free_addr,
    site::Site,
    token::{grant_site, issue_token, redeem_token, running_site, stopped_grant_site},
    wait_until,
};
use std::{
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Output,
    time::{Duration, Instant},
};

pub(crate) fn errors(output: &Output) -> String {
    assert!(!output.status.success(), "it was not refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn token(file: &Path) -> Value {
    let text = std::fs::read_to_string(file).expect("a token");
    serde_yaml::from_str(&text).expect("YAML")
}

pub(crate) fn save(file: &Path, token: &Value) {
    std::fs::write(file, serde_yaml::to_string(token).expect("YAML")).expect("a file");
}

pub(crate) fn redemptions(a: &Site, name: &str) -> u64 {
    let status = a.status("AccessGrant", name).unwrap_or_default();
    status["status"]["redemptions"].as_u64().unwrap_or_default()
}

#[test]
fn two_commands_link_two_sites_and_a_third_is_refused() {
    let (a, b, c) = (grant_site(), running_site("b"), running_site("c"));
    let file = issue_token(&a, &["--name", "east"]);
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
    let output = redeem_token(&b, &file);
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
    let why = errors(&redeem_token(&c, &file));
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
fn each_of_several_sites_gets_its_own_certificate() {
    let a = grant_site();
    let file = issue_token(
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
        let site = running_site(name);
        assert!(redeem_token(&site, &file).status.success());
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
    assert!(errors(&redeem_token(&running_site("d"), &file)).contains("404"));
}

#[test]
fn a_token_in_the_input_is_redeemed_once_across_restarts() {
    let (a, mut b) = (grant_site(), running_site("b"));
    let file = issue_token(&a, &["--name", "once", "--redemptions-allowed", "5"]);
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
    // A daemon killed between writing the link and recording it recovers: the link names its token.
    b.kill();
    std::fs::remove_file(b.root().join("namespaces/default/internal/tokens.json")).expect("a note");
    b.start();
    b.wait_status("Link", "once", "Ready");
    b.wait_status("AccessToken", "once", "Ready");
    assert_eq!(redemptions(&a, "once"), 1);
}

#[test]
fn expired_wrong_and_foreign_tokens_are_refused() {
    let (a, b) = (grant_site(), running_site("b"));
    let file = issue_token(&a, &["--name", "g", "--expiration-window", "2s"]);
    let begin = Instant::now();
    let good = token(&file);
    let mut wrong = good.clone();
    wrong["spec"]["code"] = "AAAAAAAAAAAAAAAAAAAAAAAA".into();
    save(&file, &wrong);
    let why = errors(&redeem_token(&b, &file));
    assert!(
        why.contains("403: Redemption of access token refused"),
        "{why}"
    );
    assert_eq!(redemptions(&a, "g"), 0);
    // A server with another CA must not get the code.
    let mut foreign = good.clone();
    let (ca, _) = skupper_tests::pki::foreign("other");
    foreign["spec"]["ca"] = ca.into();
    save(&file, &foreign);
    let why = errors(&redeem_token(&b, &file));
    assert!(
        why.contains("has no certificate of the token's CA"),
        "{why}"
    );
    save(&file, &good);
    wait_until("the end of the window", SOON, || {
        begin.elapsed() > Duration::from_millis(2500)
    });
    let why = errors(&redeem_token(&b, &file));
    assert!(why.contains("404: No such claim"), "{why}");
    let file = issue_token(&a, &["--name", "h"]);
    a.remove("AccessGrant", "h");
    let gone = token(&file);
    // The server stops with its last grant: clients get a refused connection or a 404.
    wait_until("the grant to be gone", SOON, || {
        let (code, said) = curl(&gone, a.root(), &["-d", "x"]);
        code == "404" || said.contains("refused") || said.contains("Couldn't connect")
    });
}

#[test]
fn an_edge_site_issues_nothing() {
    let a = running_site("a");
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
fn own_code_and_issuer() {
    let a = grant_site();
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

/// The serial number of the certificate that a remote site presents.
fn serial(a: &Site, remote: &str) -> Option<String> {
    let status = a.status("Site", "a")?;
    let links = status["status"]["incomingLinks"].as_array()?;
    let link = links.iter().find(|l| l["remoteSiteName"] == remote)?;
    Some(link["certificate"]["serial"].as_str()?.to_owned())
}

#[test]
fn a_revoked_site_is_cut_off_for_good_and_others_stay() {
    let (mut a, b, c) = (grant_site(), running_site("b"), running_site("c"));
    let file = issue_token(&a, &["--name", "in", "--redemptions-allowed", "2"]);
    for site in [&b, &c] {
        assert!(redeem_token(site, &file).status.success());
        let link = site.status("Link", "in").expect("a link");
        let expires = &link["status"]["certificateExpirationTime"];
        assert!(
            expires.as_str().is_some_and(|t| t.ends_with('Z')),
            "{link:#}"
        );
    }
    // Both sides export the expiry as a metric.
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
    // The connection over that link ends, by a reset or by FIN.
    assert!(!matches!(from_b.read(&mut [0; 1]), Ok(1..)));
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    wait_until("the setting of the site", SOON, || {
        let settings = &a.status("Site", "a").unwrap_or_default()["spec"]["settings"];
        settings["revoked-certificates"] == of_b
    });
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
    // After the revocation is removed the site can connect again.
    let text = std::fs::read_to_string(a.input().join("Site-a.yaml")).expect("the site");
    assert!(text.contains(&of_b), "{text}");
    a.file("Site-a.yaml", &text.replace(&of_b, "ab"));
    b.wait_status("Link", "in", "Ready");
}

#[test]
fn an_applied_grant_is_kept_and_takes_effect() {
    let mut a = stopped_grant_site();
    a.start();
    let text = "apiVersion: skupper.io/v2alpha1\nkind: AccessGrant\nmetadata: {name: east}\n\
                spec: {redemptionsAllowed: 2, expirationWindow: 5m, code: hereby}\n";
    let file = a.root().join("grant.yaml");
    fs::write(&file, text).expect("a file");
    a.ok(&["system", "apply", "-f", file.to_str().expect("a path")]);
    assert!(a.input().join("AccessGrant-east.yaml").exists());
    a.wait_status("AccessGrant", "east", "Ready");
    let grant = a.status("AccessGrant", "east").expect("a grant");
    assert_eq!(grant["status"]["code"], "hereby");
    let (url, ca) = (&grant["status"]["url"], &grant["status"]["ca"]);
    let b = running_site("b");
    let token = serde_json::json!({
        "apiVersion": "skupper.io/v2alpha1", "kind": "AccessToken", "metadata": {"name": "in"},
        "spec": {"url": url, "ca": ca, "code": "hereby"},
    });
    b.file("token.yaml", &token.to_string());
    b.wait_status("Link", "in", "Ready");
    a.ok(&["system", "delete", "-f", file.to_str().expect("a path")]);
    wait_until("the grant to end", SOON, || {
        a.status("AccessGrant", "east").is_none()
    });
}
