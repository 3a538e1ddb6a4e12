//! The command: the same words and answers over D-Bus and on files.

use insta::assert_snapshot;
use skupper_tests::{
    SOON,
    bus::Bus,
    command::Desk,
    echo::{Server, works},
    free_addr, free_port,
    site::Site,
    token::unstarted,
    wait_until,
};
use std::{fs, time::Instant};

/// A running site that links may come in to, for the command on files or over a bus.
fn desk(bus: Option<Bus>) -> Desk {
    let site = unstarted();
    let text = fs::read_to_string(site.input().join("RouterAccess-access.yaml")).expect("access");
    let port = |text: &str, before: &str| {
        let rest = text.split(before).nth(1).expect("a port");
        let digits = rest.chars().take_while(char::is_ascii_digit);
        digits.collect::<String>()
    };
    let access = port(&text, "port: ");
    let text = fs::read_to_string(site.input().join("Site-a.yaml")).expect("site");
    let grants = port(&text, "grant-server-port: \"");
    let mut desk = Desk::new(site, bus);
    desk.names.push((access, "ACCESS"));
    desk.names.push((grants, "GRANTS"));
    desk.site.wait_status("RouterAccess", "access", "Ready");
    desk.site.wait_status("Site", "a", "Ready");
    if desk.bus.is_some() {
        wait_until("the service on the bus", SOON, || {
            desk.run(&["system", "status"], "").stderr.is_empty()
                && desk.ok(&["system", "status"]).contains("running since")
        });
    }
    desk
}

/// The same commands on files and over a bus give the same answers, which are these.
fn both(script: impl Fn(&mut Desk) -> String) -> String {
    let files = script(&mut desk(None));
    let bus = script(&mut desk(Some(Bus::session())));
    // A difference reads best line by line.
    for (number, (files, bus)) in files.lines().zip(bus.lines()).enumerate() {
        assert_eq!(
            bus, files,
            "line {number}: left over the bus, right on files"
        );
    }
    assert_eq!(bus, files);
    files
}

/// A status in all three forms, of all and of one.
fn shown(desk: &Desk, noun: &str, name: &str) -> String {
    let mut text = String::new();
    for args in [
        &[noun, "status"][..],
        &[noun, "status", name],
        &[noun, "status", "-o", "json"],
        &[noun, "status", name, "-o", "yaml"],
    ] {
        text += &desk.told(args);
    }
    text
}

#[test]
fn c31_services_are_the_same_over_the_bus_and_on_files() {
    let text = both(|desk| {
        let (port, other) = (free_port().to_string(), free_port().to_string());
        desk.names.push((port.clone(), "PORT"));
        desk.names.push((other.clone(), "OTHER"));
        let no = ["--wait", "none"];
        let told = |args: &[&str], more: &[&str]| desk.told(&[args, more].concat());
        let mut text = told(
            &["listener", "create", "web", &port, "--host", "127.0.0.1"],
            &no,
        );
        text += &told(&["connector", "create", "web", &other], &no);
        desk.site.wait_status("Listener", "web", "Ready");
        desk.site.wait_status("Connector", "web", "Ready");
        text += &shown(desk, "listener", "web");
        text += &shown(desk, "connector", "web");
        text += &told(&["listener", "update", "web", "--routing-key", "key"], &no);
        text += &told(&["connector", "update", "web", "-r", "key"], &no);
        wait_until("the new key", SOON, || {
            let all = ["listener", "connector"].map(|noun| desk.ok(&[noun, "status"]));
            all.iter()
                .all(|t| t.contains(" key ") && t.contains("Ready"))
        });
        text += &desk.told(&["listener", "status"]);
        text += &desk.told(&["connector", "status"]);
        text += &desk.told(&["listener", "generate", "x", "80"]);
        text += &desk.told(&["connector", "generate", "x", "80", "-o", "json"]);
        text += &told(&["listener", "delete", "web"], &no);
        text += &told(&["connector", "delete", "web"], &no);
        wait_until("both to be gone", SOON, || {
            desk.ok(&["listener", "status"]) == "No listeners found\n"
                && desk.ok(&["connector", "status"]) == "No connectors found\n"
        });
        text + &desk.told(&["listener", "status"]) + &desk.told(&["connector", "status", "web"])
    });
    assert_snapshot!(text);
}

#[test]
fn c31_sites_and_files_are_the_same_over_the_bus_and_on_files() {
    let text = both(|desk| {
        let port = free_port().to_string();
        desk.names.push((port.clone(), "PORT"));
        let file = desk.site.root().join("two.yaml");
        let file = file.to_str().expect("a path").to_owned();
        let two = format!(
            "apiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata: {{name: x}}\n\
             spec: {{routingKey: x, host: 127.0.0.1, port: {port}}}\n---\n\
             apiVersion: skupper.io/v2alpha1\nkind: Connector\nmetadata: {{name: x}}\n\
             spec: {{routingKey: x, host: 127.0.0.1, port: 9}}\n"
        );
        fs::write(&file, two).expect("a file");
        let mut text = shown(desk, "site", "a");
        text += &desk.told(&["site", "create", "other"]);
        text += &desk.told(&[
            "site",
            "update",
            "a",
            "--host",
            "a.example",
            "--wait",
            "none",
        ]);
        text += &desk.told(&["site", "generate", "z", "--enable-link-access"]);
        text += &desk.told(&["system", "apply", "-f", &file]);
        desk.site.wait_status("Listener", "x", "Ready");
        text += &desk.told(&["system", "apply", "-f", &file]);
        text += &desk.told(&["system", "delete", "-f", &file]);
        text += &desk.told(&["system", "delete", "-f", &file]);
        text += &desk.told(&["issuer", "status"]);
        text += &desk.told(&["issuer", "rotate", "--overlap", "1h"]);
        text += &desk.told(&["issuer", "rotate", "--overlap", "soon"]);
        wait_until("the new CA", SOON, || {
            desk.ok(&["issuer", "status", "-o", "json"])
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
            text += &desk.told(args);
        }
        wait_until("the site to be gone", SOON, || {
            desk.ok(&["site", "status"])
                .starts_with("There is no existing")
        });
        text += &desk.told(&["site", "status"]);
        let output = desk.run(&["-n", "fresh", "system", "teardown"], "fresh\n");
        text += &String::from_utf8_lossy(&output.stdout);
        assert!(!desk.site.root().join("namespaces/fresh").exists());
        let left = fs::read_dir(desk.site.input()).expect("input").count();
        assert_eq!(left, 0, "resources are left");
        text
    });
    assert_snapshot!(text);
}

#[test]
fn c31_links_and_tokens_are_the_same_over_the_bus_and_on_files() {
    let text = both(|desk| {
        let token = desk.site.root().join("token.yaml");
        let token = token.to_str().expect("a path").to_owned();
        let mut text = desk.told(&["token", "issue", &token, "--name", "t", "--cost", "3"]);
        // The other site is beside it in the same daemon.
        let at_b = ["-n", "b"];
        let b = |args: &[&str]| desk.told(&[&at_b, args].concat());
        text += &b(&["token", "redeem", &token]);
        desk.ok(&["-n", "b", "site", "create", "b"]);
        wait_until("the link", SOON, || {
            let shown = desk.ok(&["-n", "b", "link", "status"]);
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
            desk.ok(&["-n", "b", "link", "status"]).contains(" 5 ")
        });
        text += &b(&["link", "status"]);
        let args = ["link", "generate", "--host", "127.0.0.1", "--cost", "2"];
        text += &desk.told(&args);
        text += &desk.told(&["link", "revoke", "b"]);
        wait_until("the link to end", SOON, || {
            !desk.ok(&["-n", "b", "link", "status"]).contains("Ready")
        });
        text += &desk.told(&["link", "revoke", "b"]);
        text += &desk.told(&["link", "revoke", "nobody"]);
        text += &b(&["link", "delete", "t", "--wait", "none"]);
        wait_until("the link to be gone", SOON, || {
            desk.ok(&["-n", "b", "link", "status"])
                .starts_with("There are no link")
        });
        text + &b(&["link", "delete", "t"]) + &b(&["link", "status", "t"])
    });
    assert_snapshot!(text);
}

/// Every answer that has more than one form, in each of them.
#[test]
fn c31_every_form_is_the_same_over_the_bus_and_on_files() {
    let text = both(|desk| {
        let port = free_port().to_string();
        desk.names.push((port.clone(), "PORT"));
        let no = ["--wait", "none"];
        for noun in ["listener", "connector"] {
            let words = [noun, "create", "web", &port, "--host", "127.0.0.1"];
            desk.ok(&[&words[..], &no].concat());
        }
        for kind in ["Listener", "Connector"] {
            desk.site.wait_status(kind, "web", "Ready");
        }
        let token = desk.site.root().join("token.yaml");
        let token = token.to_str().expect("a path").to_owned();
        desk.ok(&["token", "issue", &token, "--name", "t"]);
        desk.ok(&["-n", "b", "site", "create", "b"]);
        desk.ok(&["-n", "b", "token", "redeem", &token]);
        wait_until("the link", SOON, || {
            desk.ok(&["-n", "b", "link", "status"]).contains("Ready")
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
                    text += &desk.told(&[words, &["-o", form]].concat());
                }
            }
            for words in [
                &["site", "generate", "x"][..],
                &["listener", "generate", "x", "80"],
                &["connector", "generate", "x", "80"],
                &["link", "generate", "--host", "127.0.0.1"],
                &["issuer", "status"],
            ] {
                text += &desk.told(&[words, &["-o", form]].concat());
            }
        }
        text
    });
    assert_snapshot!(text);
}

#[test]
fn c31_what_is_wrong_is_said_in_the_same_words_with_the_same_code() {
    let text = both(|desk| {
        let file = desk.site.root().join("bad.yaml");
        let file = file.to_str().expect("a path").to_owned();
        let bad = "apiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata: {name: x}\n\
                   spec: {routingKey: x, host: 127.0.0.1, port: 99999}\n---\n\
                   kind: Nonsense\n";
        fs::write(&file, bad).expect("a file");
        // A second site is no fault of the document.
        let second = desk.site.root().join("second.yaml");
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
            text += &desk.told(args);
        }
        text
    });
    assert_snapshot!(text);
}

#[test]
fn c17_waiting_ends_when_it_works_or_when_its_time_is_over() {
    let desk = desk(Some(Bus::session()));
    let server = Server::echo(free_addr());
    let addr = free_addr();
    let (port, target) = (addr.port().to_string(), server.addr.port().to_string());
    let create = ["listener", "create", "web", &port, "--host", "127.0.0.1"];
    // Set up is what is waited for when nothing is said.
    let said = desk.ok(&create);
    assert!(said.contains("Listener \"web\" is configured"), "{said}");
    // Nobody is on the other side.
    let begin = Instant::now();
    let ready = ["--wait", "ready", "--timeout", "1s"];
    let said = desk.told(&[&create[..], &ready].concat());
    assert!(said.contains("exit code 1"), "{said}");
    let late = "! listener \"web\" is not ready after 1 s: ";
    assert!(said.contains(late), "{said}");
    assert!(begin.elapsed().as_secs() < 10);
    // It comes while somebody waits for it.
    let waiting = ["--wait", "ready", "--timeout", "30s"];
    let waiting = [
        &["listener", "update", "web", "--type", "tcp"][..],
        &waiting,
    ]
    .concat();
    let said = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| desk.ok(&waiting));
        desk.ok(&["connector", "create", "web", &target, "--host", "127.0.0.1"]);
        waiting.join().expect("the command")
    });
    assert!(said.contains("Listener \"web\" is ready"), "{said}");
    assert!(works(addr), "ready is ready");
    // An update that the daemon has not taken up is not what was there before.
    let next = free_addr();
    let port = next.port().to_string();
    desk.ok(&[
        "listener", "update", "web", "--port", &port, "--wait", "ready",
    ]);
    assert!(works(next), "ready at the new port");
    // What is deleted is gone.
    desk.ok(&["listener", "delete", "web"]);
    assert!(!works(next), "gone");
    assert_eq!(desk.ok(&["listener", "status"]), "No listeners found\n");
    // What can not be set up is no reason to wait for long.
    let taken = server.addr.port().to_string();
    let begin = Instant::now();
    let create = ["listener", "create", "taken", &taken, "--host", "127.0.0.1"];
    let said = desk.told(&[&create[..], &["-r", "web", "--wait", "ready"]].concat());
    assert!(said.contains("exit code 1"), "{said}");
    let why = "! listener \"taken\" is not ready: ";
    assert!(said.contains(why), "{said}");
    assert!(begin.elapsed().as_secs() < 20);
    // Without a site there is nothing to wait for.
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
    let said = desk.ok(&args);
    assert!(
        said.contains("There is no site in the namespace yet"),
        "{said}"
    );
}

#[test]
fn c31_without_a_daemon_files_are_written_and_it_is_said_once() {
    // A bus without a daemon, and then no bus.
    let mut desk = Desk::beside(Site::new("a"), Some(Bus::session()));
    let said = desk.told(&["connector", "create", "c", "80", "--wait", "ready"]);
    let note = "! skupperd is not running: files are used, and take effect when skupperd runs\n";
    assert_eq!(said.matches("! ").count(), 1, "{said}");
    assert!(said.contains(note), "{said}");
    assert!(desk.site.input().join("Connector-c.yaml").exists());
    desk.bus.as_mut().expect("a bus").stop();
    let said = desk.told(&["connector", "status"]);
    assert!(
        said.contains("! the session bus can not be reached ("),
        "{said}"
    );
    assert!(said.contains("Not initialized yet"), "{said}");
    // What changes nothing and asks nobody has nothing to say about it.
    let said = desk.told(&["connector", "generate", "c", "80"]);
    assert!(!said.contains('!'), "{said}");
    // With a directory and no bus named there is nothing to be said.
    desk.bus = None;
    let said = desk.told(&["connector", "status"]);
    assert!(!said.contains('!'), "{said}");
}

#[test]
fn c9_status_counts_and_reload_reads_again() {
    let desk = desk(Some(Bus::session()));
    let port = free_port().to_string();
    desk.ok(&["listener", "create", "l", &port, "--host", "127.0.0.1"]);
    desk.ok(&[
        "connector",
        "create",
        "l",
        "9",
        "--host",
        "127.0.0.1",
        "--wait",
        "ready",
    ]);
    desk.ok(&[
        "listener", "update", "l", "--type", "tcp", "--wait", "ready",
    ]);
    let said = desk.told(&["system", "reload"]);
    assert!(
        said.contains("skupperd has read all resources again"),
        "{said}"
    );
    let text = desk.ok(&["system", "status", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(status["daemon"]["onBus"], true);
    assert_eq!(status["daemon"]["process"], desk.site.pid());
    let expected = serde_json::json!([{
        "name": "default", "site": "a", "status": "Ready", "linksUp": 0, "linksDown": 0,
        "listeners": 1, "listenersReady": 1, "connectors": 1, "connectorsReady": 1,
    }]);
    assert_eq!(status["namespaces"], expected);
    let text = desk.ok(&["system", "status"]);
    assert!(text.contains("Daemon: running since 2"), "{text}");
    assert!(
        text.contains("NAMESPACE  SITE  STATUS  LINKS-UP  LINKS-DOWN"),
        "{text}"
    );
}
