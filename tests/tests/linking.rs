//! Rows of the checklist about linking that are nobody else's: ports, generated manifests, records.

use serde_json::Value;
use skupper_tests::{
    SOON,
    echo::{connect, round_trip},
    free_addr, netns,
    site::{Site, echo},
    token::{issue, issuer, redeem, running, unstarted},
    wait_for, wait_until,
};
use std::{fs, net::TcpListener, path::Path};

/// The port of the site's own access for other sites.
fn port(a: &Site) -> Option<u64> {
    let access = a.status("RouterAccess", "a")?;
    let endpoints = access["status"]["endpoints"].as_array()?.clone();
    let inter = |e: &&Value| e["name"] == "a-inter-router";
    endpoints.iter().find(inter)?["port"].as_str()?.parse().ok()
}

#[test]
fn l2_a_busy_port_gives_the_next_free_one_which_stays() {
    // Other tests have ports too.
    if !netns::enter() {
        return;
    }
    let holder = TcpListener::bind("0.0.0.0:55671").expect("a port");
    let mut a = Site::new("a");
    a.ok(&["site", "update", "a", "--enable-link-access"]);
    a.start();
    let chosen = wait_for("a port", SOON, || port(&a));
    assert!((55_672..55_900).contains(&chosen), "{chosen}");
    drop(holder);
    a.stop();
    fs::remove_dir_all(a.root().join("namespaces/default/runtime/resources")).expect("statuses");
    a.start();
    assert_eq!(wait_for("a port", SOON, || port(&a)), chosen);
    let link = a.ok(&["link", "generate", "--host", "127.0.0.1"]);
    assert!(link.contains(&format!("port: '{chosen}'")), "{link}");
}

/// Everything below a directory: names and contents.
fn tree(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(tree(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap_or_default()));
        }
    }
    found.sort();
    found
}

#[test]
fn c14_what_is_generated_can_be_applied_and_nothing_is_written() {
    let mut a = Site::new("a");
    a.remove("Site", "a");
    let before = tree(&a.input());
    let args = [
        "site",
        "generate",
        "a",
        "--enable-link-access",
        "--host",
        "127.0.0.1",
    ];
    let site = a.ok(&args);
    assert_eq!(tree(&a.input()), before);
    let file = a.root().join("site.yaml");
    fs::write(&file, &site).expect("a file");
    a.ok(&["system", "apply", "-f", file.to_str().expect("a path")]);
    a.start();
    a.wait_status("Site", "a", "Ready");
    let port = wait_for("a port", SOON, || port(&a));
    let before = tree(&a.input());
    let link = a.ok(&["link", "generate", "--name", "to-a", "--cost", "3"]);
    assert_eq!(tree(&a.input()), before);
    assert!(
        link.contains("host: 127.0.0.1") && link.contains(&port.to_string()),
        "{link}"
    );
    let b = running("b");
    let file = b.root().join("link.yaml");
    fs::write(&file, &link).expect("a file");
    b.ok(&["system", "apply", "-f", file.to_str().expect("a path")]);
    b.wait_status("Link", "to-a", "Ready");
    for args in [
        vec!["site", "generate", "a", "--host", "not a host"],
        vec!["site", "generate", "a", "--edge", "--enable-link-access"],
        vec!["site", "create", "b", "--host", "0.0.0.0", "--edge=perhaps"],
    ] {
        assert!(!a.skupper(&args).status.success(), "{args:?}");
    }
    assert_eq!(tree(&a.input()), before);
}

#[test]
fn l16_a_link_is_updated_by_command_and_its_connections_stay() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    let link = free_addr();
    a.access(link);
    b.link_to(&a, link, 1);
    a.start();
    b.start();
    b.wait_status("Link", "to-a", "Ready");
    let (_server, addr) = echo(&a, &b);
    let mut held = connect(addr).expect("a connection");
    round_trip(&mut held, b"before").expect("works");
    b.ok(&["link", "update", "to-a", "--cost", "12"]);
    wait_until("the cost", SOON, || {
        b.status("Link", "to-a")
            .is_some_and(|l| l["spec"]["cost"] == 12)
    });
    // Other credentials, by the name of their Secret.
    let other = a.ok(&["link", "generate", "--host", "127.0.0.1", "--name", "other"]);
    let secret = other.split("---\n").find(|d| d.contains("kind: Secret"));
    b.file("secret.yaml", secret.expect("a secret"));
    b.ok(&["link", "update", "to-a", "--tls-credentials", "other"]);
    wait_until("the new credentials in use", SOON, || {
        a.log().matches("link accepted").count() == 2
    });
    round_trip(&mut held, b"after").expect("works");
    for (args, why) in [
        (vec!["link", "update", "to-a"], "nothing to change"),
        (
            vec!["link", "update", "nobody", "--cost", "2"],
            "There is no link",
        ),
        (
            vec!["link", "update", "to-a", "--tls-credentials", "none"],
            "there is no Secret",
        ),
    ] {
        let output = b.skupper(&args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(why),
            "{args:?}: {said}"
        );
    }
}

#[test]
fn c8_an_applied_grant_is_kept_and_takes_effect() {
    let mut a = unstarted();
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
    let b = running("b");
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

#[test]
fn r19_grants_redemptions_and_links_are_on_record_with_their_fields() {
    let a = issuer();
    let token = issue(&a, &["--name", "east"]);
    let (mut b, c) = (running("b"), running("c"));
    assert!(redeem(&b, &token).status.success());
    assert!(!redeem(&c, &token).status.success());
    b.wait_status("Link", "east", "Ready");
    b.kill();
    let lines = |what: &[&str]| {
        let log = a.log();
        let mut lines = log.lines();
        lines.any(|line| what.iter().all(|w| line.contains(w)))
    };
    for record in [
        &[
            "access grant is open",
            "grant=east",
            "redemptions_allowed=1",
            "expires=",
        ][..],
        &[
            "access token was redeemed",
            "peer=127.0.0.1",
            "grant=",
            "subject=\"b\"",
            "serial=",
        ],
        &["redemption refused", "peer=127.0.0.1", "reason="],
        &[
            "link accepted",
            "namespace=\"default\"",
            "access=\"access\"",
            "peer=",
            "remote=\"b-",
        ],
        &["link is up", "namespace=\"default\"", "remote=\"b-"],
        &[
            "link has ended",
            "namespace=\"default\"",
            "remote=\"b-",
            "why=",
        ],
    ] {
        wait_until(&record.join(" "), SOON, || lines(record));
    }
    // No record gives away what a token is good for.
    let text = fs::read_to_string(&token).expect("a token");
    let code = text.lines().find_map(|l| l.trim().strip_prefix("code: "));
    assert!(!a.log().contains(code.expect("a code")));
}

#[test]
fn a_site_that_can_not_start_is_tried_again_and_there_once() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    let link = free_addr();
    a.access(link);
    b.link_to(&a, link, 1);
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = busy.local_addr().expect("an address").port();
    b.resource(
        "Site",
        "b",
        &format!("{{settings: {{local-amqp-port: \"{port}\"}}}}"),
    );
    a.start();
    b.start();
    b.wait_message("Site", "b", "Error", "local-amqp-port");
    drop(busy);
    b.wait_status("Site", "b", "Ready");
    b.wait_status("Link", "to-a", "Ready");
    assert_eq!(a.log().matches("link accepted").count(), 1, "{}", a.log());
}
