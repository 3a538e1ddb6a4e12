//! Sites: status, isolation, restarts and loss, with one site, three in a line and three in a
//! triangle.

use nix::sys::signal::Signal;
use serde_json::Value;
use skupper_tests::{
    SOON,
    echo::{Server, connect, refused, round_trip, works},
    free_addr, free_port,
    site::{Site, linked, service},
    wait_for, wait_until,
};
use std::{
    io::{ErrorKind, Read},
    net::{SocketAddr, TcpListener},
    time::Duration,
};

/// Three sites in a line, a - b - c, with an echo server at c and a listener at a.
fn line() -> ([Site; 3], Server, SocketAddr, [SocketAddr; 2]) {
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(Site::new);
    let (at_a, at_b) = (free_addr(), free_addr());
    a.access(at_a);
    b.access(at_b);
    b.link_to(&a, at_a, 1);
    c.link_to(&b, at_b, 1);
    let server = Server::echo(free_addr());
    let addr = free_addr();
    a.listener("echo", "echo", addr);
    c.connector("echo", "echo", server.addr);
    for site in [&mut a, &mut b, &mut c] {
        site.start();
    }
    wait_until("the service over two links", SOON, || works(addr));
    ([a, b, c], server, addr, [at_a, at_b])
}

#[test]
fn status_reports_site_links_and_network() {
    let (a, b) = linked();
    a.wait_status("Site", "a", "Ready");
    let table = b.ok(&["link", "status"]);
    let mut lines = table.lines();
    let header: Vec<&str> = lines.next().expect("a header").split_whitespace().collect();
    assert_eq!(header, ["NAME", "STATUS", "COST", "MESSAGE", "REMOTE-SITE"]);
    let row: Vec<&str> = lines.next().expect("a row").split_whitespace().collect();
    assert_eq!(row, ["to-a", "Ready", "1", "OK", "a"]);
    wait_until("both sites in the count", SOON, || {
        a.status("Site", "a")
            .is_some_and(|v| v["status"]["sitesInNetwork"] == 2)
    });
    assert!(
        a.ok(&["site", "status"])
            .lines()
            .nth(1)
            .is_some_and(|l| l.trim().ends_with('2'))
    );
}

#[test]
fn a_second_site_is_refused_and_the_first_keeps_running() {
    let (a, _b) = linked();
    a.resource("Site", "zzz", "{}");
    a.wait_message("Site", "zzz", "Error", "only one site is allowed");
    assert_eq!(a.wait_status("Site", "a", "Ready"), "OK");
    let output = a.skupper(&["site", "create", "other"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn namespaces_are_isolated() {
    let mut host = Site::new("default-site");
    for (namespace, name) in [("east", "east"), ("west", "west")] {
        host.ok(&[
            "-n",
            namespace,
            "site",
            "create",
            name,
            "--enable-link-access",
        ]);
    }
    host.start();
    let server = Server::echo(free_addr());
    let (target, port) = (server.addr.port().to_string(), free_port());
    let text = port.to_string();
    host.ok(&[
        "-n",
        "west",
        "connector",
        "create",
        "key",
        &target,
        "--host",
        "127.0.0.1",
    ]);
    host.ok(&[
        "-n",
        "east",
        "listener",
        "create",
        "key",
        &text,
        "--host",
        "127.0.0.1",
    ]);
    let state = |namespace: &str, noun: &str| {
        let text = host.ok(&["-n", namespace, noun, "status", "-o", "json"]);
        let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        all[0].clone()
    };
    wait_until("both sites to be ready", SOON, || {
        ["east", "west"]
            .iter()
            .all(|n| state(n, "site")["status"]["status"] == "Ready")
    });
    let ports = |namespace: &str| {
        let endpoints = state(namespace, "site")["status"]["endpoints"].clone();
        let list = endpoints.as_array().expect("endpoints").clone();
        list.iter()
            .map(|e| e["port"].to_string())
            .collect::<Vec<_>>()
    };
    let (east, west) = (ports("east"), ports("west"));
    assert!(east.iter().all(|p| !west.contains(p)), "{east:?} {west:?}");
    wait_until("the listener's status", SOON, || {
        state("east", "listener")["status"]["message"] == "No matching connectors"
    });
    assert!(
        refused(([127, 0, 0, 1], port).into()),
        "networks are not apart"
    );
}

#[test]
fn restart_keeps_identity_and_configuration() {
    let (mut a, b) = linked();
    let id = |site: &Site| {
        site.status("Site", "a")
            .map(|v| v["metadata"]["uid"].clone())
            .filter(|v| v.is_string())
    };
    wait_until("the site's id", SOON, || id(&a).is_some());
    let before = id(&a);
    assert_eq!(a.stop(), Some(0));
    a.start();
    wait_until("the link to be back (L13)", Duration::from_secs(10), || {
        b.status("Link", "to-a")
            .is_some_and(|v| v["status"]["status"] == "Ready")
    });
    a.wait_status("Site", "a", "Ready");
    assert_eq!(id(&a), before);
}

#[test]
fn deleting_a_site_ends_its_links() {
    let (a, mut b) = linked();
    b.ok(&["site", "delete", "b"]);
    wait_until("the peer's view", Duration::from_secs(30), || {
        a.status("Site", "a")
            .is_some_and(|v| v["status"]["sitesInNetwork"] == 1)
    });
    b.stop();
}

#[test]
fn three_sites_in_a_line_and_the_middle_dies() {
    let ([a, mut b, _c], server, addr, _) = line();
    wait_until("all three in the view", SOON, || {
        let Some(site) = a.status("Site", "a") else {
            return false;
        };
        let network = site["status"]["network"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let find = |name: &str| network.iter().find(|s| s["name"] == name).cloned();
        let (Some(b), Some(c)) = (find("b"), find("c")) else {
            return false;
        };
        let named = |s: &serde_json::Value| s["platform"] == "linux" && s["version"].is_string();
        named(&b) && named(&c) && c["services"][0]["routingKey"] == "echo"
    });
    let mut held = connect(addr).expect("a connection");
    round_trip(&mut held, b"before").expect("works");
    b.kill();
    assert!(
        !matches!(held.read(&mut [0; 1]), Ok(1..)),
        "the client must see the end"
    );
    wait_until("the server's side to end", SOON, || {
        server.open.load(std::sync::atomic::Ordering::SeqCst) == 0
    });
    b.start();
    wait_until(
        "new connections without help",
        Duration::from_secs(5),
        || works(addr),
    );
}

#[test]
fn a_silent_death_is_detected() {
    let ([_a, _b, c], _server, addr, _) = line();
    // SIGSTOP closes no connection, but nothing answers any more.
    c.signal(Signal::SIGSTOP);
    wait_until("the route to age out", Duration::from_secs(12), || {
        refused(addr)
            || connect(addr).is_ok_and(|mut s| {
                s.set_read_timeout(Some(Duration::from_millis(200))).is_ok()
                    && s.read(&mut [0; 1])
                        .is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
            })
    });
    c.signal(Signal::SIGCONT);
    wait_until("the service to be back", SOON, || works(addr));
}

#[test]
fn a_triangle_survives_the_loss_of_any_link() {
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(Site::new);
    let (at_a, at_b) = (free_addr(), free_addr());
    a.access(at_a);
    b.access(at_b);
    b.link_to(&a, at_a, 1);
    c.link_to(&a, at_a, 1);
    c.link_to(&b, at_b, 1);
    let server = Server::echo(free_addr());
    let addr = free_addr();
    c.connector("echo", "echo", server.addr);
    a.listener("echo", "echo", addr);
    for site in [&mut a, &mut b, &mut c] {
        site.start();
    }
    wait_until("the service", SOON, || works(addr));
    wait_until("all links", SOON, || {
        a.status("Site", "a")
            .is_some_and(|v| v["status"]["sitesInNetwork"] == 3)
    });
    let before = server.accepted.load(std::sync::atomic::Ordering::SeqCst);
    assert!(works(addr));
    let after = server.accepted.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(after - before, 1, "one client, one server connection");
    c.ok(&["link", "delete", "to-a"]);
    wait_until("the way round", SOON, || works(addr));
}

#[test]
fn a_site_that_cannot_start_is_retried_and_starts_once() {
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

#[test]
fn the_network_status_prints_in_skuppers_format() {
    let (a, b, _server, _addr) = service();
    let id =
        |site: &Site| site.status("Site", site.name()).expect("a site")["metadata"]["uid"].clone();
    let network = || -> Value {
        serde_json::from_str(&b.ok(&["network", "status", "--upstream"])).expect("JSON")
    };
    let echo = |network: &Value| {
        let addresses = network["addresses"].as_array().expect("addresses");
        addresses.iter().find(|a| a["name"] == "echo").cloned()
    };
    let network = wait_for("listener and connector to be counted", SOON, || {
        let network = network();
        let echo = echo(&network)?;
        (echo["listenerCount"] == 1 && echo["connectorCount"] == 1).then_some(network)
    });
    let sites = network["siteStatus"].as_array().expect("sites");
    let of = |site: &Site| {
        let id = id(site);
        let found = sites.iter().find(|s| s["site"]["identity"] == id);
        found.expect("a site")["routerStatus"][0].clone()
    };
    assert_eq!(of(&a)["connectors"][0]["address"], "echo");
    assert_eq!(of(&b)["listeners"][0]["address"], "echo");
    let mut links = [of(&a)["links"].clone(), of(&b)["links"].clone()];
    links.sort_by_key(|l| l.as_array().map(Vec::len));
    assert_eq!(links[0].as_array().map(Vec::len), Some(0));
    assert_eq!(
        (&links[1][0]["status"], &links[1][0]["linkCount"]),
        (&"up".into(), &1.into())
    );
}

#[test]
fn a_site_without_a_spec_is_the_site_of_every_command() {
    let head = "apiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata:\n  name: east\n";
    for spec in ["", "spec:\n", "spec: null\n", "spec: {}\n"] {
        let mut east = Site::new("empty");
        east.remove("Site", "empty");
        east.file("site.yaml", &format!("{head}{spec}"));
        east.start();
        east.wait_status("Site", "east", "Ready");
        for (args, says) in [
            (&["status"][..], "Site east in namespace default: Ready"),
            (&["site", "status"], "Ready"),
            (&["network", "status"], "east"),
            (&["system", "status"], "east"),
        ] {
            let output = east.skupper(args);
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && text.contains(says),
                "{spec:?} {args:?}: {text}"
            );
        }
    }
}

#[test]
fn system_status_counts_links_of_both_ways() {
    let (a, b) = linked();
    let counts = |site: &Site| {
        let text = site.ok(&["system", "status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let of = |name: &str| status["namespaces"][0][name].as_u64();
        (of("linksUp"), of("linksIn"))
    };
    wait_until("the link out", SOON, || counts(&b) == (Some(1), Some(0)));
    wait_until("the link in", SOON, || counts(&a) == (Some(0), Some(1)));
    let table = a.ok(&["system", "status"]);
    assert!(table.contains("INPUT-ERRORS  LINKS-IN"), "{table}");
}
