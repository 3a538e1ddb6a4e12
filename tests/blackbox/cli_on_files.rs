//! The command gives the same output over D-Bus and on files.

use insta::assert_snapshot;
use skupper_tests::{
    SOON,
    bus::Bus,
    command::CliSite,
    echo::{Server, works},
    free_addr, free_port,
    site::Site,
    token::stopped_grant_site,
    wait_until,
};
use std::{fs, time::Instant};

/// A running site that accepts links, for the command on files or over a bus.
fn cli_site(bus: Option<Bus>) -> CliSite {
    let site = stopped_grant_site();
    let text = fs::read_to_string(site.input().join("RouterAccess-access.yaml")).expect("access");
    let port = |text: &str, before: &str| {
        let rest = text.split(before).nth(1).expect("a port");
        let digits = rest.chars().take_while(char::is_ascii_digit);
        digits.collect::<String>()
    };
    let access = port(&text, "port: ");
    let text = fs::read_to_string(site.input().join("Site-a.yaml")).expect("site");
    let grants = port(&text, "grant-server-port: \"");
    let mut cli = CliSite::new(site, bus);
    cli.names.push((access, "ACCESS"));
    cli.names.push((grants, "GRANTS"));
    cli.site.wait_status("RouterAccess", "access", "Ready");
    cli.site.wait_status("Site", "a", "Ready");
    if cli.bus.is_some() {
        wait_until("the service on the bus", SOON, || {
            cli.run(&["system", "status"], "").stderr.is_empty()
                && cli.ok(&["system", "status"]).contains("running since")
        });
    }
    cli
}

/// Runs the same commands on files and over a bus, and returns their common transcript.
fn both(script: impl Fn(&mut CliSite) -> String) -> String {
    let files = script(&mut cli_site(None));
    let bus = script(&mut cli_site(Some(Bus::session())));
    // Compared line by line, so that the failure shows the difference.
    for (number, (files, bus)) in files.lines().zip(bus.lines()).enumerate() {
        assert_eq!(
            bus, files,
            "line {number}: left over the bus, right on files"
        );
    }
    assert_eq!(bus, files);
    files
}

/// A status in all three formats, of all resources and of one.
fn shown(cli: &CliSite, noun: &str, name: &str) -> String {
    let mut text = String::new();
    for args in [
        &[noun, "status"][..],
        &[noun, "status", name],
        &[noun, "status", "-o", "json"],
        &[noun, "status", name, "-o", "yaml"],
    ] {
        text += &cli.transcript(args);
    }
    text
}

#[test]
fn services_are_the_same_over_dbus_and_on_files() {
    let text = both(|cli| {
        let (port, other) = (free_port().to_string(), free_port().to_string());
        cli.names.push((port.clone(), "PORT"));
        cli.names.push((other.clone(), "OTHER"));
        let no = ["--wait", "none"];
        let transcript = |args: &[&str], more: &[&str]| cli.transcript(&[args, more].concat());
        let mut text = transcript(
            &["listener", "create", "web", &port, "--host", "127.0.0.1"],
            &no,
        );
        text += &transcript(&["connector", "create", "web", &other], &no);
        cli.site.wait_status("Listener", "web", "Ready");
        cli.site.wait_status("Connector", "web", "Ready");
        text += &shown(cli, "listener", "web");
        text += &shown(cli, "connector", "web");
        text += &transcript(&["listener", "update", "web", "--routing-key", "key"], &no);
        text += &transcript(&["connector", "update", "web", "-r", "key"], &no);
        wait_until("the new key", SOON, || {
            let all = ["listener", "connector"].map(|noun| cli.ok(&[noun, "status"]));
            all.iter()
                .all(|t| t.contains(" key ") && t.contains("Ready"))
        });
        text += &cli.transcript(&["listener", "status"]);
        text += &cli.transcript(&["connector", "status"]);
        text += &cli.transcript(&["listener", "generate", "x", "80"]);
        text += &cli.transcript(&["connector", "generate", "x", "80", "-o", "json"]);
        text += &transcript(&["listener", "delete", "web"], &no);
        text += &transcript(&["connector", "delete", "web"], &no);
        wait_until("both to be gone", SOON, || {
            cli.ok(&["listener", "status"]) == "No listeners found\n"
                && cli.ok(&["connector", "status"]) == "No connectors found\n"
        });
        text + &cli.transcript(&["listener", "status"])
            + &cli.transcript(&["connector", "status", "web"])
    });
    assert_snapshot!(text);
}

#[test]
fn sites_and_files_are_the_same_over_dbus_and_on_files() {
    let text = both(|cli| {
        let port = free_port().to_string();
        cli.names.push((port.clone(), "PORT"));
        let file = cli.site.root().join("two.yaml");
        let file = file.to_str().expect("a path").to_owned();
        let two = format!(
            "apiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata: {{name: x}}\n\
             spec: {{routingKey: x, host: 127.0.0.1, port: {port}}}\n---\n\
             apiVersion: skupper.io/v2alpha1\nkind: Connector\nmetadata: {{name: x}}\n\
             spec: {{routingKey: x, host: 127.0.0.1, port: 9}}\n"
        );
        fs::write(&file, &two).expect("a file");
        let mut text = shown(cli, "site", "a");
        text += &cli.transcript(&["site", "create", "other"]);
        text += &cli.transcript(&["site", "create", "a"]);
        text += &cli.transcript(&[
            "site",
            "update",
            "a",
            "--host",
            "a.example",
            "--wait",
            "none",
        ]);
        text += &cli.transcript(&["site", "generate", "z", "--enable-link-access"]);
        text += &cli.transcript(&["system", "apply", "-f", &file]);
        cli.site.wait_status("Listener", "x", "Ready");
        text += &cli.transcript(&["system", "apply", "-f", &file]);
        let changed = two.replace("port: 9}", "port: 10}");
        fs::write(&file, changed).expect("a file");
        text += &cli.transcript(&["system", "apply", "-f", &file]);
        text += &cli.transcript(&["system", "delete", "-f", &file]);
        text += &cli.transcript(&["system", "delete", "-f", &file]);
        text += &cli.transcript(&["issuer", "status"]);
        text += &cli.transcript(&["issuer", "rotate", "--overlap", "1h"]);
        text += &cli.transcript(&["issuer", "rotate", "--overlap", "soon"]);
        wait_until("the new CA", SOON, || {
            cli.ok(&["issuer", "status", "-o", "json"])
                .contains("trustedUntil")
        });
        for args in [
            &["issuer", "status"][..],
            &["issuer", "status", "-o", "json"],
            &["issuer", "status", "-o", "yaml"],
            &["-n", "fresh", "site", "create", "f", "--wait", "none"],
            &["-n", "none", "system", "teardown", "--yes"],
            &["system", "teardown"],
            &["site", "delete", "a", "--all", "--wait", "none"],
        ] {
            text += &cli.transcript(args);
        }
        wait_until("the site to be gone", SOON, || {
            cli.ok(&["site", "status"])
                .starts_with("There is no existing")
        });
        text += &cli.transcript(&["site", "status"]);
        let output = cli.run(&["-n", "fresh", "system", "teardown"], "fresh\n");
        text += &String::from_utf8_lossy(&output.stdout);
        assert!(!cli.site.root().join("namespaces/fresh").exists());
        let left = fs::read_dir(cli.site.input()).expect("input").count();
        assert_eq!(left, 0, "resources are left");
        text
    });
    assert_snapshot!(text);
}

#[test]
fn links_and_tokens_are_the_same_over_dbus_and_on_files() {
    let text = both(|cli| {
        let token = cli.site.root().join("token.yaml");
        let token = token.to_str().expect("a path").to_owned();
        let mut text = cli.transcript(&["token", "issue", &token, "--name", "t", "--cost", "3"]);
        // The other site runs in the same daemon.
        let at_b = ["-n", "b"];
        let b = |args: &[&str]| cli.transcript(&[&at_b, args].concat());
        text += &b(&["token", "redeem", &token]);
        cli.ok(&["-n", "b", "site", "create", "b"]);
        text += &b(&["token", "redeem", &token]);
        wait_until("the link", SOON, || {
            let shown = cli.ok(&["-n", "b", "link", "status"]);
            shown.contains("Ready")
        });
        text += &b(&["token", "redeem", &token]);
        for args in [
            &["link", "status"][..],
            &["link", "status", "t"],
            &["link", "update", "t", "--cost", "5", "--wait", "none"],
            &["link", "update", "t", "--tls-credentials", "none"],
            &["link", "update", "t"],
        ] {
            text += &b(args);
        }
        wait_until("the cost", SOON, || {
            cli.ok(&["-n", "b", "link", "status"]).contains(" 5 ")
        });
        text += &b(&["link", "status"]);
        let args = ["link", "generate", "--host", "127.0.0.1", "--cost", "2"];
        text += &cli.transcript(&args);
        text += &cli.transcript(&["link", "revoke", "b"]);
        wait_until("the link to end", SOON, || {
            !cli.ok(&["-n", "b", "link", "status"]).contains("Ready")
        });
        text += &cli.transcript(&["link", "revoke", "b"]);
        text += &cli.transcript(&["link", "revoke", "nobody"]);
        text += &b(&["link", "delete", "t", "--wait", "none"]);
        wait_until("the link to be gone", SOON, || {
            cli.ok(&["-n", "b", "link", "status"])
                .starts_with("There are no link")
        });
        text + &b(&["link", "delete", "t"]) + &b(&["link", "status", "t"])
    });
    assert_snapshot!(text);
}

/// Every output that has more than one format, in each of them.
#[test]
fn output_formats_are_the_same_over_dbus_and_on_files() {
    let text = both(|cli| {
        let port = free_port().to_string();
        cli.names.push((port.clone(), "PORT"));
        let no = ["--wait", "none"];
        for noun in ["listener", "connector"] {
            let words = [noun, "create", "web", &port, "--host", "127.0.0.1"];
            cli.ok(&[&words[..], &no].concat());
        }
        for kind in ["Listener", "Connector"] {
            cli.site.wait_status(kind, "web", "Ready");
        }
        let token = cli.site.root().join("token.yaml");
        let token = token.to_str().expect("a path").to_owned();
        cli.ok(&["token", "issue", &token, "--name", "t"]);
        cli.ok(&["-n", "b", "site", "create", "b"]);
        cli.ok(&["-n", "b", "token", "redeem", &token]);
        // The other router is known before the record of its site; until then the router's id stands for
        // the site's.
        wait_until("the site at the other end of the link", SOON, || {
            let status = cli.ok(&["-n", "b", "link", "status", "t", "-o", "json"]);
            let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
            let id = status["status"]["remoteSiteId"].as_str();
            id.is_some_and(|id| id.len() == 36 && id.matches('-').count() == 4)
        });
        let mut text = String::new();
        for form in ["json", "yaml"] {
            for noun in ["site", "listener", "connector", "link"] {
                let name = match noun {
                    "site" => "b",
                    "link" => "t",
                    _ => "web",
                };
                let at = if ["site", "link"].contains(&noun) {
                    "b"
                } else {
                    "default"
                };
                for words in [
                    &["-n", at, noun, "status"][..],
                    &["-n", at, noun, "status", name],
                ] {
                    text += &cli.transcript(&[words, &["-o", form]].concat());
                }
            }
            for words in [
                &["site", "generate", "x"][..],
                &["listener", "generate", "x", "80"],
                &["connector", "generate", "x", "80"],
                &["link", "generate", "--host", "127.0.0.1"],
                &["issuer", "status"],
            ] {
                text += &cli.transcript(&[words, &["-o", form]].concat());
            }
        }
        text
    });
    assert_snapshot!(text);
}

#[test]
fn errors_are_the_same_over_dbus_and_on_files() {
    let text = both(|cli| {
        let file = cli.site.root().join("bad.yaml");
        let file = file.to_str().expect("a path").to_owned();
        let bad = "apiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata: {name: x}\n\
                   spec: {routingKey: x, host: 127.0.0.1, port: 99999}\n---\n\
                   kind: Nonsense\n";
        fs::write(&file, bad).expect("a file");
        // A second site in the same namespace does not invalidate the document.
        let second = cli.site.root().join("second.yaml");
        let second = second.to_str().expect("a path").to_owned();
        let site = "apiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata: {name: second}\n";
        fs::write(&second, site).expect("a file");
        let mut text = String::new();
        for args in [
            &["system", "apply", "-f", &file][..],
            &["system", "apply", "-f", &second],
            &["system", "apply", "-f", "/nowhere.yaml"],
            &["system", "delete", "-f", &file],
            &["site", "update", "none"],
            &["site", "update", "a", "--edge", "--enable-link-access"],
            &["site", "delete", "none"],
            &["site", "status", "none"],
            &["site", "create", "Not_A_Name"],
            &["listener", "create", "Not_A_Name", "0"],
            &["listener", "update", "none", "--port", "80"],
            &["listener", "update", "none", "--port", "0"],
            &["listener", "delete", "none"],
            &["listener", "delete", "Not_A_Name"],
            &["listener", "status", "none"],
            &["listener", "status", "-o", "xml"],
            &["connector", "create", "c", "80", "--host", "not a host"],
            &["connector", "update", "none"],
            &["link", "generate", "--host", "not a host"],
            &["link", "generate", "--name", "Not_A_Name"],
            &["link", "update", "none", "--cost", "2"],
            &["link", "delete", "none"],
            &["token", "issue", "/tmp"],
            &[
                "token",
                "issue",
                "/nowhere/token.yaml",
                "--name",
                "Not_A_Name",
            ],
            &["token", "redeem", "/nowhere.yaml"],
            &["token", "redeem", &file],
            &["token", "redeem", &second],
            &["-n", "empty", "link", "generate"],
            &["-n", "empty", "token", "issue", "/nowhere/token.yaml"],
            &["-n", "empty", "issuer", "rotate"],
            &["-n", "Not_A_Name", "site", "status"],
            &["--platform", "podman", "site", "status"],
            &["system", "start"],
            &["system", "stop"],
        ] {
            text += &cli.transcript(args);
        }
        text
    });
    assert_snapshot!(text);
}

#[test]
fn wait_ends_on_success_or_timeout() {
    let cli = cli_site(Some(Bus::session()));
    let server = Server::echo(free_addr());
    let addr = free_addr();
    let (port, target) = (addr.port().to_string(), server.addr.port().to_string());
    let create = ["listener", "create", "web", &port, "--host", "127.0.0.1"];
    // Without --wait the command waits until the resource is configured.
    let said = cli.ok(&create);
    assert!(said.contains("Listener \"web\" is configured"), "{said}");
    // No resource matches.
    let begin = Instant::now();
    let ready = ["--force", "--wait", "ready", "--timeout", "1s"];
    let said = cli.transcript(&[&create[..], &ready].concat());
    assert!(said.contains("exit code 1"), "{said}");
    let late = "! listener \"web\" is not ready after 1 s: ";
    assert!(said.contains(late), "{said}");
    assert!(begin.elapsed().as_secs() < 10);
    // Another process creates the connector while the command waits.
    let waiting = ["--wait", "ready", "--timeout", "30s"];
    let waiting = [
        &["listener", "update", "web", "--type", "tcp"][..],
        &waiting,
    ]
    .concat();
    let said = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| cli.ok(&waiting));
        cli.ok(&["connector", "create", "web", &target, "--host", "127.0.0.1"]);
        waiting.join().expect("the command")
    });
    assert!(said.contains("Listener \"web\" is ready"), "{said}");
    assert!(works(addr), "ready is ready");
    // The status before an update does not count as its result.
    let next = free_addr();
    let port = next.port().to_string();
    cli.ok(&[
        "listener", "update", "web", "--port", &port, "--wait", "ready",
    ]);
    assert!(works(next), "ready at the new port");
    // A deleted resource is gone when the command returns.
    cli.ok(&["listener", "delete", "web"]);
    assert!(!works(next), "gone");
    assert_eq!(cli.ok(&["listener", "status"]), "No listeners found\n");
    // An error ends the wait early.
    let taken = server.addr.port().to_string();
    let begin = Instant::now();
    let create = ["listener", "create", "taken", &taken, "--host", "127.0.0.1"];
    let said = cli.transcript(&[&create[..], &["-r", "web", "--wait", "ready"]].concat());
    assert!(said.contains("exit code 1"), "{said}");
    let why = "! listener \"taken\" is not ready: ";
    assert!(said.contains(why), "{said}");
    assert!(begin.elapsed().as_secs() < 20);
    // Without a site the command does not wait.
    let args = [
        "-n",
        "empty",
        "connector",
        "create",
        "c",
        "80",
        "--wait",
        "ready",
    ];
    let said = cli.ok(&args);
    assert!(
        said.contains("There is no site in the namespace yet"),
        "{said}"
    );
}

#[test]
fn without_a_daemon_files_are_written_with_one_notice() {
    // A bus without a daemon, and then no bus.
    let mut cli = CliSite::without_daemon(Site::new("a"), Some(Bus::session()));
    let said = cli.transcript(&["connector", "create", "c", "80", "--wait", "ready"]);
    let note = "! skupperd is not running: using the files of the namespace, which skupperd reads when it runs\n";
    assert_eq!(said.matches("! ").count(), 1, "{said}");
    assert!(said.contains(note), "{said}");
    assert!(cli.site.input().join("Connector-c.yaml").exists());
    cli.bus.as_mut().expect("a bus").stop();
    let said = cli.transcript(&["connector", "status"]);
    assert!(said.contains("! cannot reach the session bus ("), "{said}");
    assert!(said.contains("skupperd is not running"), "{said}");
    // A command that needs no daemon prints no notice.
    let said = cli.transcript(&["connector", "generate", "c", "80"]);
    assert!(!said.contains('!'), "{said}");
    // With --root and without --bus there is no notice.
    cli.bus = None;
    let said = cli.transcript(&["connector", "status"]);
    assert!(!said.contains('!'), "{said}");
}

#[test]
fn system_status_counts_and_reload_rereads() {
    let cli = cli_site(Some(Bus::session()));
    let port = free_port().to_string();
    cli.ok(&["listener", "create", "l", &port, "--host", "127.0.0.1"]);
    cli.ok(&[
        "connector",
        "create",
        "l",
        "9",
        "--host",
        "127.0.0.1",
        "--wait",
        "ready",
    ]);
    cli.ok(&[
        "listener", "update", "l", "--type", "tcp", "--wait", "ready",
    ]);
    let said = cli.transcript(&["system", "reload"]);
    assert!(
        said.contains("skupperd has read all resources again"),
        "{said}"
    );
    let text = cli.ok(&["system", "status", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(status["daemon"]["onBus"], true);
    assert_eq!(status["daemon"]["process"], cli.site.pid());
    let expected = serde_json::json!([{
        "name": "default", "site": "a", "status": "Ready", "linksUp": 0, "linksDown": 0,
        "listeners": 1, "listenersReady": 1, "connectors": 1, "connectorsReady": 1,
        "inputErrors": [], "linksIn": 0,
    }]);
    assert_eq!(status["namespaces"], expected);
    let text = cli.ok(&["system", "status"]);
    assert!(text.contains("Daemon: running since 2"), "{text}");
    assert!(
        text.contains("NAMESPACE  SITE  STATUS  LINKS-UP  LINKS-DOWN"),
        "{text}"
    );
}
