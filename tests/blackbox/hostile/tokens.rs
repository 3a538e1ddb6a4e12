//! Issuers of tokens, whose answers decide about a link and nothing else.

use crate::{
    grant_server::curl,
    tokens::{errors, token},
};
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use serde_json::Value;
use skupper_tests::{
    SOON, free_addr, pki,
    site::Site,
    tls,
    token::{grant_site, issue_token, redeem_token, running_site},
    token_issuer::{IssuerAnswer, TokenIssuer},
    wait_until,
};
use skupperd::{
    access::{GrantHandler, GrantStore, LinkOffer},
    model::{AccessGrant, Code, Endpoint, Host, Name, Role},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    path::Path,
    sync::Arc,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    sync::Notify,
};

/// What an issuer says who means well.
fn answer() -> IssuerAnswer {
    let ca = pki::ca("theirs");
    IssuerAnswer {
        credentials: pki::issued(&ca, &[], &[ClientAuth]),
        ca: ca.0,
        settings: "{}".to_owned(),
        endpoint: free_addr(),
        more: String::new(),
    }
}

/// The CA of a site as remote sites see it: in a link that it generates.
fn site_ca(site: &Site) -> String {
    let link = site.ok(&["link", "generate", "--host", "127.0.0.1"]);
    let line = link.lines().find_map(|l| l.trim().strip_prefix("ca.crt: "));
    line.expect("a CA").to_owned()
}

fn redeem(site: &Site, issuer: &TokenIssuer, name: &str) -> std::process::Output {
    let file = issuer.token(site.root(), name);
    site.skupper(&["token", "redeem", path(&file), "--timeout", "1s"])
}

fn path(file: &Path) -> &str {
    file.to_str().expect("a path")
}

/// A running site that accepts links; its own CA and server certificate exist.
fn accepting_site() -> Site {
    let mut site = Site::new("b");
    site.access(free_addr());
    site.start();
    site.wait_status("RouterAccess", "access", "Ready");
    site
}

#[test]
fn a_token_with_the_name_of_a_ca_does_not_replace_it() {
    let site = accepting_site();
    let before = site_ca(&site);
    let issuers = site.ok(&["issuer", "status", "-o", "json"]);
    let theirs = answer();
    let issuer = TokenIssuer::start("skupper-site-ca", &theirs);
    redeem(&site, &issuer, "skupper-site-ca");
    assert!(
        site.status("Link", "skupper-site-ca").is_some(),
        "it is a link"
    );
    assert_eq!(site_ca(&site), before);
    assert_eq!(site.ok(&["issuer", "status", "-o", "json"]), issuers);
    site.wait_status("RouterAccess", "access", "Ready");
}

#[test]
fn a_token_that_brings_a_ca_is_refused() {
    for (name, usages) in [
        ("skupper-site-ca", true),
        ("other", true),
        ("server", false),
    ] {
        let site = accepting_site();
        let before = site_ca(&site);
        let ca = pki::ca("theirs");
        let credentials = if usages {
            ca.clone()
        } else {
            pki::issued(&ca, &[], &[ServerAuth])
        };
        let theirs = IssuerAnswer {
            credentials,
            ca: ca.0,
            ..answer()
        };
        let issuer = TokenIssuer::start(name, &theirs);
        let why = errors(&redeem(&site, &issuer, name));
        let part = if usages {
            "is that of a CA"
        } else {
            "does not include clients"
        };
        assert!(why.contains(part), "{why}");
        assert!(site.status("Link", name).is_none(), "nothing was written");
        assert_eq!(site_ca(&site), before);
    }
}

#[test]
fn a_token_resource_that_brings_a_ca_is_refused_for_good() {
    let site = accepting_site();
    let before = site_ca(&site);
    let ca = pki::ca("theirs");
    let theirs = IssuerAnswer {
        credentials: ca.clone(),
        ca: ca.0,
        ..answer()
    };
    let issuer = TokenIssuer::start("skupper-site-ca", &theirs);
    issuer.token(&site.input(), "skupper-site-ca");
    site.wait_message("AccessToken", "skupper-site-ca", "Error", "is that of a CA");
    assert_eq!(site_ca(&site), before);
}

#[test]
fn a_token_with_the_name_of_the_server_credentials_changes_neither_them_nor_whom_they_trust() {
    let (site, mut other) = (accepting_site(), Site::new("other"));
    let access = site.status("RouterAccess", "access").expect("an access");
    let port = access["spec"]["roles"][0]["port"].to_string();
    let port: u16 = port.trim_matches('"').parse().expect("a port");
    other.link_to(&site, ([127, 0, 0, 1], port).into(), 1);
    // The access shows credentials of its own name.
    let ca = pki::ca("theirs");
    let theirs = IssuerAnswer {
        credentials: pki::issued(&ca, &["127.0.0.1"], &[ClientAuth, ServerAuth]),
        ca: ca.0,
        ..answer()
    };
    let issuer = TokenIssuer::start("access", &theirs);
    redeem(&site, &issuer, "access");
    assert!(site.status("Link", "access").is_some(), "it is a link");
    other.start();
    other.wait_status("Link", "to-b", "Ready");
}

#[test]
fn a_link_of_a_token_has_no_settings_and_a_secret_of_a_token_serves_no_other_link() {
    let site = running_site("b");
    let theirs = IssuerAnswer {
        settings: "{proxy-configuration: my-proxy}".to_owned(),
        ..answer()
    };
    let issuer = TokenIssuer::start("t", &theirs);
    redeem(&site, &issuer, "t");
    let link = site.status("Link", "t").expect("a link");
    assert_eq!(link["spec"]["settings"], Value::Null);
    let addr = free_addr();
    let spec = format!(
        "{{tlsCredentials: t, endpoints: [{{name: inter-router, host: \"{}\", port: \"{}\"}}]}}",
        addr.ip(),
        addr.port()
    );
    site.resource("Link", "mine", &spec);
    site.wait_message(
        "Link",
        "mine",
        "Error",
        "is for the link of that token only",
    );
}

#[test]
fn a_numbered_link_of_a_token_does_not_replace_a_link_of_the_user() {
    let site = running_site("b");
    let mine =
        "{tlsCredentials: none, endpoints: [{name: inter-router, host: 192.0.2.1, port: \"1\"}]}";
    site.resource("Link", "t-1", mine);
    site.wait_status("Link", "t-1", "Error");
    let more = "---\napiVersion: skupper.io/v2alpha1\nkind: Link\nmetadata: {name: t-1}\n\
                spec: {tlsCredentials: t, endpoints: \
                [{name: inter-router, host: 192.0.2.2, port: \"2\"}]}\n";
    let issuer = TokenIssuer::start(
        "t",
        &IssuerAnswer {
            more: more.to_owned(),
            ..answer()
        },
    );
    let why = errors(&redeem(&site, &issuer, "t"));
    assert!(why.contains("Link t-1 already exists"), "{why}");
    let link = site.status("Link", "t-1").expect("a link");
    assert_eq!(link["spec"]["endpoints"][0]["host"], "192.0.2.1");
    assert!(site.status("Link", "t").is_none(), "nothing was written");
}

#[test]
fn an_honest_issuer_is_linked() {
    let site = running_site("b");
    let issuer = TokenIssuer::start("t", &answer());
    let output = redeem_token(&site, &issuer.token(site.root(), "t"));
    let link = site.status("Link", "t").expect("a link");
    assert_eq!(
        link["status"]["conditions"][0]["status"], "True",
        "{output:?}"
    );
}

#[test]
fn issuer_status_shows_the_ca_in_use() {
    let site = accepting_site();
    let issuers = || -> Value {
        serde_json::from_str(&site.ok(&["issuer", "status", "-o", "json"])).expect("JSON")
    };
    let own = issuers()[0].clone();
    assert_eq!(
        (&own["name"], &own["source"]),
        (&"skupper-site-ca".into(), &"own".into())
    );
    let (certificate, key) = pki::ca("mine");
    let dir = site
        .root()
        .join("namespaces/default/input/issuers/skupper-site-ca");
    std::fs::create_dir_all(&dir).expect("a directory");
    std::fs::write(dir.join("tls.crt"), certificate).expect("a file");
    std::fs::write(dir.join("tls.key"), key).expect("a file");
    let mine = issuers()[0].clone();
    assert_eq!(mine["source"], "supplied");
    assert_ne!(mine["serial"], own["serial"]);
}

#[test]
fn many_guesses_at_once_are_no_more_than_one_after_another() {
    let site = grant_site();
    let file = issue_token(&site, &["--name", "g"]);
    let token = token(&file);
    let url = token["spec"]["url"].as_str().expect("a URL");
    let (addr, path) = url
        .strip_prefix("https://")
        .and_then(|u| u.split_once('/'))
        .expect("a URL");
    let addr: std::net::SocketAddr = addr.parse().expect("an address");
    let client = tls::Client::of(token["spec"]["ca"].as_str().expect("a CA"));
    let head = format!("POST /{path} HTTP/1.1\r\nHost: {addr}\r\nContent-Length: 5\r\n\r\n");
    // All of them are asked for the code before the first sends one.
    let mut guesses: Vec<_> = (0..40)
        .map(|_| client.connect(addr).expect("a connection"))
        .collect();
    for guess in &mut guesses {
        guess.write_all(head.as_bytes()).expect("sent");
        guess.flush().expect("sent");
    }
    wait_until("the heads to be read", SOON, || unread(addr) == 0);
    let mut refused = 0;
    for guess in &mut guesses {
        guess.write_all(b"wrong").expect("sent");
        guess.flush().expect("sent");
    }
    for guess in &mut guesses {
        let mut answer = [0; 12];
        guess.read_exact(&mut answer).expect("an answer");
        refused += usize::from(&answer == b"HTTP/1.1 403");
    }
    assert_eq!(refused, 10);
}

/// Bytes that the kernel holds for a server on this port.
fn unread(addr: std::net::SocketAddr) -> u64 {
    let text = std::fs::read_to_string("/proc/net/tcp").expect("sockets");
    let port = format!(":{:04X}", addr.port());
    let queues = text.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (_, unread) = words[4].split_once(':')?;
        let ours = words[1].ends_with(&port) && words[3] == "01";
        ours.then(|| u64::from_str_radix(unread, 16).expect("a number"))
    });
    queues.sum()
}

#[test]
fn a_redeemer_has_no_subject_of_another_and_none_of_the_site() {
    let site = grant_site();
    let file = issue_token(&site, &["--name", "g", "--redemptions-allowed", "9"]);
    let token = token(&file);
    let code = token["spec"]["code"].as_str().expect("a code");
    let ask = |subject: &str| {
        let header = format!("subject: {subject}");
        curl(&token, site.root(), &["-H", &header, "-d", code]).0
    };
    for subject in [
        "localhost",
        "127.0.0.1",
        "x\",kind=\"Site\"} 1 #",
        "Not a name",
    ] {
        assert_eq!(ask(subject), "400", "{subject}");
    }
    assert_eq!([ask("west"), ask("west")], ["200", "200"]);
    let revoked = site.ok(&["link", "revoke", "west"]);
    assert!(!revoked.contains("west-2"), "{revoked}");
}

/// A handler with a grant of one redemption, the request that redeems it, and its redemptions.
fn handler(dir: &Path) -> (GrantHandler, String, Arc<Notify>) {
    let store = GrantStore::open(dir.join("grants.json")).expect("a store");
    let issuer = skupperd::pki::ensure_issuer(&dir.join("ca"), "ca").expect("a CA");
    store.set_offer(LinkOffer {
        endpoints: vec![Endpoint {
            role: Role::InterRouter,
            host: Host::new("192.0.2.1").expect("a host"),
            port: 55671,
            group: String::new(),
        }],
        authority: None,
        hosts: BTreeSet::new(),
        issuers: BTreeMap::from([(None, issuer)]),
    });
    let code = "abcdefghijklmnopqrstuvwx";
    let grant = AccessGrant {
        redemptions_allowed: 1,
        expiration_window: SOON,
        code: Some(Code::new(code)),
        issuer: None,
        settings: BTreeMap::new(),
    };
    let wanted = BTreeMap::from([(Name::new("g").expect("a name"), grant)]);
    let now = jiff::Timestamp::now();
    store.set_grants(wanted);
    store.save(now, || "1".to_owned()).expect("a grant");
    let request = format!("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 24\r\n\r\n{code}");
    let redeemed = Arc::new(Notify::new());
    let handler = GrantHandler::new(store.shared(), redeemed.clone());
    (handler, request, redeemed)
}

#[test]
fn a_client_that_was_cut_off_gets_its_response_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (handler, request, redeemed) = handler(dir.path());
    // A client that goes away when it is redeemed, with no room for the response in its stream.
    let cut = async {
        let (mut client, server) = duplex(16);
        let client = async move {
            client.write_all(request.as_bytes()).await.expect("sent");
            redeemed.notified().await;
            drop(client);
            request
        };
        let peer = "192.0.2.1:1".parse().expect("an address");
        let (request, handled) = tokio::join!(client, handler.handle(server, peer));
        assert!(handled.is_err(), "the response was delivered");
        request
    };
    let ask = async |peer: &str, request: &str| {
        let (mut client, server) = duplex(1 << 16);
        client.write_all(request.as_bytes()).await.expect("sent");
        let mut response = String::new();
        let peer = peer.parse().expect("an address");
        let read = client.read_to_string(&mut response);
        let (read, handled) = tokio::join!(read, handler.handle(server, peer));
        assert!(read.is_ok() && handled.is_ok());
        response
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let request = cut.await;
        // The same code from elsewhere is used up.
        let elsewhere = ask("192.0.2.2:1", &request).await;
        assert!(elsewhere.starts_with("HTTP/1.1 404"), "{elsewhere}");
        let again = ask("192.0.2.1:2", &request).await;
        assert!(
            again.starts_with("HTTP/1.1 200") && again.contains("tls.key"),
            "{again}"
        );
        let delivered = ask("192.0.2.1:3", &request).await;
        assert!(delivered.starts_with("HTTP/1.1 404"), "{delivered}");
    });
}
