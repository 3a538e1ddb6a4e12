//! What the command says of resources while skupperd does not run: nothing is ready, and the exit code
//! is 3.

use nix::sys::signal::Signal;
use skupper_tests::{
    SOON,
    bus::Bus,
    command::CliSite,
    echo::{Server, connect, round_trip},
    free_addr,
    site::{Site, echo, service},
    wait_until,
};

/// All ways to look at a site with a listener `echo`.
const LOOKS: [&[&str]; 9] = [
    &["status"],
    &["status", "-o", "yaml"],
    &["site", "status"],
    &["site", "status", "-o", "json"],
    &["listener", "status"],
    &["listener", "status", "echo"],
    &["listener", "status", "echo", "-o", "json"],
    &["system", "status"],
    &["network", "status"],
];

/// Runs all of them. They must exit with this code, and say this in place of `Ready`.
fn check_looks(cli: &CliSite, code: i32, state: &str) {
    for words in LOOKS {
        let output = cli.run(words, "");
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {text}");
        if code != 0 {
            // The condition of this name is Unknown.
            let text_but_conditions = text
                .replace("type: Ready", "")
                .replace("\"type\": \"Ready\"", "");
            assert!(!text_but_conditions.contains("Ready"), "{words:?}: {text}");
            // It has no statuses, only the sites that a running daemon knows.
            let is_network = words[0] == "network";
            assert!(is_network || text.contains(state), "{words:?}: {text}");
        }
    }
}

/// A site with a service of its own, on files and over a bus.
fn cli_sites() -> [(CliSite, Server); 2] {
    [None, Some(Bus::session())].map(|bus| {
        let cli = CliSite::new(Site::new("a"), bus);
        let (server, _) = echo(&cli.site, &cli.site);
        cli.site.wait_status("Listener", "echo", "Ready");
        check_looks(&cli, 0, "");
        (cli, server)
    })
}

#[test]
fn nothing_is_ready_after_skupperd_was_killed_or_stopped() {
    for (mut cli, _server) in cli_sites() {
        cli.site.kill();
        check_looks(&cli, 3, "not running");
        match &cli.bus {
            None => cli.site.start(),
            Some(bus) => cli.site.start_on(bus, "session"),
        }
        cli.site.wait_status("Listener", "echo", "Ready");
        wait_until("the bus service", SOON, || {
            cli.run(&["system", "status"], "").status.success()
        });
        check_looks(&cli, 0, "");
        assert_eq!(cli.site.stop(), Some(0));
        check_looks(&cli, 3, "not running");
        // What changes meanwhile is shown as it is written.
        cli.ok(&["listener", "update", "echo", "--port", "1"]);
        let shown = cli.ok(&["listener", "status", "echo"]);
        assert!(shown.contains("Port: 1\n"), "{shown}");
        cli.ok(&["listener", "delete", "echo"]);
        assert_eq!(cli.ok(&["listener", "status"]), "No listeners found\n");
    }
}

#[test]
fn a_link_and_its_network_are_not_shown_after_skupperd_was_killed() {
    let (mut a, b, _server, _addr) = service();
    wait_until("both sites", SOON, || {
        let text = a.ok(&["status"]);
        text.contains("2 sites in the network") && text.contains("from 127.0.0.1")
    });
    a.kill();
    let text = a.ok(&["status"]);
    assert!(
        text.starts_with(
            "Site a in namespace default: Pending, skupperd is not running; start it with"
        ),
        "{text}"
    );
    assert!(
        !text.contains("in the network") && !text.contains("from 127.0.0.1"),
        "{text}"
    );
    let text = a.ok(&["network", "status"]);
    assert!(text.starts_with("No sites known"), "{text}");
    drop(b);
}

#[test]
fn nothing_is_ready_while_connections_drain() {
    for bus in [None, Some(Bus::session())] {
        let mut cli = CliSite::without_daemon(Site::new("a"), bus);
        match &cli.bus {
            None => cli.site.start_with(&["--drain", "120"]),
            Some(bus) => cli.site.start_on_with(bus, "session", &["--drain", "120"]),
        }
        let server = Server::echo(free_addr());
        let addr = free_addr();
        cli.site.connector("echo", "echo", server.addr);
        cli.site.listener("echo", "echo", addr);
        cli.site.wait_status("Listener", "echo", "Ready");
        let mut client = connect(addr).expect("a connection");
        round_trip(&mut client, b"before").expect("it works");
        let property = |cli: &CliSite| {
            let bus = cli.bus.as_ref()?;
            bus.property("/default/Listener/echo", ".Resource", "Status")
        };
        cli.site.signal(Signal::SIGTERM);
        wait_until("the stop to begin", SOON, || {
            cli.ok(&["listener", "status"])
                .contains("skupperd is stopping")
        });
        check_looks(&cli, 3, "stopping");
        if cli.bus.is_some() {
            wait_until("the object on the bus", SOON, || {
                property(&cli).as_deref() == Some("s \"Pending\"")
            });
        }
        round_trip(&mut client, b"after").expect("it still works");
        drop(client);
        assert_eq!(cli.site.ended(), Some(0));
    }
}
