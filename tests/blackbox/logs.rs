//! Log entries: their fields, security-relevant records, and the log level.

use crate::tls;
use skupper_tests::{
    SOON,
    bus::Bus,
    echo::{Server, connect, refused, round_trip, works},
    free_addr,
    site::{Site, linked},
    token::{grant_site, issue_token, redeem_token, running_site},
    wait_for, wait_until,
};
use std::fs;

/// Clients are refused every 50 ms by each worker for as long as descriptors are missing.
#[test]
fn a_lack_of_descriptors_is_logged_now_and_then() {
    let mut site = Site::new("a");
    let server = Server::echo(free_addr());
    let addr = free_addr();
    site.connector("echo", "echo", server.addr);
    site.listener("echo", "echo", addr);
    // A client that has not begun TLS holds one descriptor and no server's, so all are used up.
    let idle = free_addr();
    tls::listener(&site, "idle", idle, "");
    site.start_through(&["prlimit", "--nofile=120:120"]);
    wait_until("the service", SOON, || works(addr) && !refused(idle));
    let mut clients: Vec<_> = (0..240)
        .map(|_| connect(idle).expect("queued by the kernel"))
        .collect();
    let lines = || {
        let log = site.log();
        let lines = log.lines().filter(|l| l.contains("cannot accept client"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    // The second is written after ten seconds, with the number of those between.
    // Silent clients are closed after as long, so others follow.
    wait_until("the second line", SOON, || {
        clients.extend(connect(idle));
        lines().len() > 1
    });
    let lines = lines();
    assert!(lines.len() <= 3, "{lines:#?}");
    assert!(!lines[1].contains("suppressed=0"), "{lines:#?}");
    drop(clients);
    wait_until("the service to work again", SOON, || works(addr));
}

#[test]
fn clients_leave_descriptors_to_links_files_and_metrics() {
    let (mut site, mut other) = (Site::new("a"), Site::new("b"));
    let (access, addr) = (free_addr(), free_addr());
    site.access(access);
    let server = Server::echo(free_addr());
    site.connector("echo", "echo", server.addr);
    site.listener("echo", "echo", addr);
    site.start_through(&["prlimit", "--nofile=256:256"]);
    wait_until("the service", SOON, || works(addr));
    let mut held = connect(addr).expect("a connection");
    // Clients of a service take two descriptors each.
    let clients: Vec<_> = (0..300).map(|_| connect(addr)).collect();
    wait_until("the refusal in the log", SOON, || {
        site.log().contains("cannot accept client")
    });
    let health = site.http("GET /healthz");
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    // A file is read, a status written, and a link accepted.
    let more = free_addr();
    site.listener("more", "echo", more);
    site.wait_status("Listener", "more", "Ready");
    wait_until("the note in the status", SOON, || {
        let site = site.status("Site", "a").unwrap_or_default();
        site.to_string().contains("too many open files")
    });
    other.link_to(&site, access, 1);
    other.start();
    other.wait_status("Link", "to-a", "Ready");
    round_trip(&mut held, b"tick").expect("the open connection goes on");
    drop(clients);
    wait_until("the service to work again", SOON, || works(addr));
}

#[test]
fn log_lines_have_fields() {
    let (a, _b) = linked();
    wait_until("the link in the log", SOON, || {
        a.log().contains("link is up")
    });
    let log = a.log();
    let line = log
        .lines()
        .find(|l| l.contains("link is up"))
        .expect("a line");
    assert!(
        line.contains("namespace") && line.contains("remote") && line.contains("peer"),
        "{line}"
    );
}

#[test]
fn log_entries_have_namespace_resource_and_error_as_fields() {
    let mut site = Site::new("a");
    site.start();
    site.wait_status("Site", "a", "Ready");
    // One resource is invalid, and one cannot be applied.
    site.resource(
        "Listener",
        "broken",
        "{routingKey: x, host: localhost, port: 70000}",
    );
    site.resource(
        "Connector",
        "far",
        "{routingKey: x, host: localhost, port: 1, tlsCredentials: missing}",
    );
    let line = |fields: &[&str]| {
        wait_until(&format!("a line with {fields:?}"), SOON, || {
            let log = site.log();
            log.lines().any(|l| fields.iter().all(|f| l.contains(f)))
        });
    };
    line(&[
        "ERROR",
        "namespace=\"default\"",
        "kind=\"Listener\"",
        "name=\"broken\"",
        "field=",
        "error=",
    ]);
    line(&[
        "ERROR",
        "namespace=default",
        "resource=Connector far",
        "error=",
    ]);
}

#[test]
fn the_log_level_changes_at_run_time_by_either_spelling() {
    let mut site = Site::new("a");
    site.start();
    site.wait_status("Site", "a", "Ready");
    let says = |what: &str| site.log().contains(what);
    for (setting, filter) in [
        ("router-logging", "skupperd=debug"),
        ("routerLogging", "skupperd::proxy=trace"),
    ] {
        let value = match setting {
            "routerLogging" => "TCP_ADAPTOR:trace",
            _ => "debug",
        };
        let spec = format!("{{settings: {{{setting}: \"{value}\"}}}}");
        site.resource("Site", "a", &spec);
        wait_until(filter, SOON, || says(filter));
    }
    // A connector without a server logs at debug level only.
    let addr = free_addr();
    site.connector("gone", "gone", free_addr());
    site.listener("gone", "gone", addr);
    wait_until("the listener", SOON, || !refused(addr));
    wait_until("a line of that level", SOON, || {
        drop(connect(addr));
        says("DEBUG") && says("connector refused connection")
    });
    site.resource("Site", "a", "{settings: {router-logging: loud}}");
    let note = wait_for("a note of what is wrong", SOON, || {
        let status = site.status("Site", "a")?;
        status["status"]["notes"][0].as_str().map(str::to_owned)
    });
    assert!(
        note.contains("router-logging") && note.contains("loud"),
        "{note}"
    );
    site.wait_status("Site", "a", "Ready");
}

#[test]
fn grants_redemptions_and_links_are_logged_with_fields() {
    let a = grant_site();
    let token = issue_token(&a, &["--name", "east"]);
    let (mut b, c) = (running_site("b"), running_site("c"));
    assert!(redeem_token(&b, &token).status.success());
    assert!(!redeem_token(&c, &token).status.success());
    b.wait_status("Link", "east", "Ready");
    b.kill();
    let lines = |what: &[&str]| {
        let log = a.log();
        let mut lines = log.lines();
        lines.any(|line| what.iter().all(|w| line.contains(w)))
    };
    for record in [
        &[
            "access grant opened",
            "grant=east",
            "redemptions_allowed=1",
            "expires=",
        ][..],
        &[
            "issued credentials for access token",
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
            "link closed",
            "namespace=\"default\"",
            "remote=\"b-",
            "reason=",
        ],
    ] {
        wait_until(&record.join(" "), SOON, || lines(record));
    }
    // No log record contains the code of a token.
    let text = fs::read_to_string(&token).expect("a token");
    let code = text.lines().find_map(|l| l.trim().strip_prefix("code: "));
    assert!(!a.log().contains(code.expect("a code")));
}

#[test]
fn changes_over_dbus_are_logged_with_who_made_them() {
    let bus = Bus::session();
    let mut site = Site::new("a");
    site.start_on(&bus, "session");
    wait_until("the service on the bus", SOON, || {
        bus.call(&["Dump"]).is_ok()
    });
    let uid = format!("uid={}", nix::unistd::geteuid());
    let logged = |event: &str, subject: &str| {
        let log = site.log();
        let lines = log.lines().filter(|line| {
            let what = [&format!("{event} over D-Bus"), subject, &uid];
            what.iter().all(|part| line.contains(*part))
        });
        lines.count()
    };
    let call = |args: &[&str]| bus.call(args).expect("done");
    let listener = |port: &str| {
        format!(
            "apiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata: {{name: l}}\n\
             spec: {{routingKey: k, host: 127.0.0.1, port: {port}}}\n"
        )
    };
    let subject = "namespace=\"default\" subject=\"Listener l\"";
    for port in ["1", "1", "2"] {
        call(&["Apply", "ss", "default", &listener(port)]);
    }
    assert_eq!(logged("resource added", subject), 1);
    // The second call changed nothing.
    assert_eq!(logged("resource changed", subject), 1);
    let change = r#"{"spec": {"port": 3}}"#;
    call(&["Update", "ssss", "default", "Listener", "l", change]);
    assert_eq!(logged("resource changed", subject), 2);
    call(&["Delete", "sss", "default", "Listener", "l"]);
    assert_eq!(logged("resource deleted", subject), 1);
    // A call that fails is no change.
    bus.call(&["Delete", "sss", "default", "Listener", "l"])
        .expect_err("it is gone");
    assert_eq!(logged("resource deleted", subject), 1);
    call(&["RotateIssuers", "ss", "default", "1h"]);
    assert_eq!(
        logged("replacement of CAs requested", "namespace=\"default\""),
        1
    );
    call(&["Reload"]);
    assert_eq!(logged("reload requested", ""), 1);
    call(&["DeleteNamespace", "s", "default"]);
    assert_eq!(logged("namespace deleted", "namespace=\"default\""), 1);
    call(&["Drain"]);
    assert_eq!(logged("stop requested", ""), 1);
}
