//! Links, sites and the network, held against the rows S, L and R of the checklist.

use nix::sys::signal::Signal;
use skupper_tests::{
    SOON,
    echo::{Server, connect, hear, refused, round_trip, works},
    free_addr, free_port,
    site::{Site, echo, linked},
    wait_until,
};
use std::{
    io::{Read, Write},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
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
fn s1_s18_l9_l12_status_says_what_there_is() {
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
fn s2_second_site_is_refused_and_the_first_goes_on() {
    let (a, _b) = linked();
    a.resource("Site", "zzz", "{}");
    a.wait_message("Site", "zzz", "Error", "only one site is allowed");
    assert_eq!(a.wait_status("Site", "a", "Ready"), "OK");
    let output = a.skupper(&["site", "create", "other"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn s3_s4_namespaces_are_apart() {
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
fn s5_s13_restart_keeps_identity_and_configuration() {
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
fn s12_l17_deleting_a_site_ends_its_links() {
    let (a, mut b) = linked();
    b.ok(&["site", "delete", "b"]);
    wait_until("the peer's view", Duration::from_secs(30), || {
        a.status("Site", "a")
            .is_some_and(|v| v["status"]["sitesInNetwork"] == 1)
    });
    b.stop();
}

#[test]
fn l17_link_delete_takes_its_secret() {
    let (_a, b) = linked();
    let text = b.ok(&["link", "delete", "to-a"]);
    assert!(text.contains("Secret \"to-a\" is deleted"), "{text}");
    wait_until("the link to be gone from the status", SOON, || {
        b.ok(&["link", "status"]).trim() == "There are no link resources in the namespace"
    });
}

#[test]
fn s15_s17_three_in_a_line_and_the_middle_dies() {
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
fn s16_silent_death_is_noticed() {
    let ([_a, _b, c], _server, addr, _) = line();
    // Stopped, not killed: nothing is closed, nothing answers.
    c.signal(Signal::SIGSTOP);
    wait_until("the route to age out", Duration::from_secs(12), || {
        refused(addr)
            || connect(addr).is_ok_and(|mut s| {
                s.set_read_timeout(Some(Duration::from_millis(200))).is_ok()
                    && matches!(s.read(&mut [0; 1]), Ok(0))
            })
    });
    c.signal(Signal::SIGCONT);
    wait_until("the service to be back", SOON, || works(addr));
}

#[test]
fn l14_l15_l16_cost_is_a_number_of_connections() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    let link = free_addr();
    a.access(link);
    b.link_to(&a, link, 10);
    let (near, far) = (
        Server::holds(free_addr(), "near"),
        Server::holds(free_addr(), "far-"),
    );
    let addr = free_addr();
    a.connector("c", "key", far.addr);
    b.connector("c", "key", near.addr);
    b.listener("l", "key", addr);
    a.start();
    b.start();
    b.wait_status("Link", "to-a", "Ready");
    wait_until("the remote connector to be known", SOON, || {
        b.status("Site", "b")
            .is_some_and(|v| v["status"]["sitesInNetwork"] == 2)
    });
    wait_until("the listener", SOON, || !refused(addr));
    let open = |n: usize| {
        let mut held = Vec::new();
        let mut far = 0;
        for _ in 0..n {
            let mut socket = connect(addr).expect("a connection");
            let mut text = [0; 4];
            socket.read_exact(&mut text).expect("an answer");
            far += usize::from(&text == b"far-");
            held.push(socket);
        }
        (held, far)
    };
    let (held, far_first) = open(10);
    assert_eq!(far_first, 0, "a cost of 10 keeps about the first ten here");
    let (more, far_more) = open(40);
    assert!(
        (15..=25).contains(&far_more),
        "{far_more} of the next 40 went to the other site"
    );
    // Another cost: what is open stays, what is new follows.
    let text = std::fs::read_to_string(b.input().join("link-a.yaml")).expect("the link");
    b.file("link-a.yaml", &text.replace("cost: 10", "cost: 99999"));
    wait_until("the new cost", SOON, || {
        b.status("Link", "to-a")
            .is_some_and(|v| v["spec"]["cost"] == 99_999)
    });
    wait_until("new connections to stay here", SOON, || open(3).1 == 0);
    for mut socket in held.into_iter().chain(more) {
        socket.set_nonblocking(true).expect("non-blocking");
        let still = socket.read(&mut [0; 1]).expect_err("open, and silent");
        assert_eq!(still.kind(), std::io::ErrorKind::WouldBlock);
    }
    // Failover: the near server goes, and comes back.
    let near_addr = near.addr;
    drop(near);
    wait_until("failover", SOON, || {
        connect(addr).is_ok_and(|mut s| {
            let mut text = [0; 4];
            s.read_exact(&mut text).is_ok() && &text == b"far-"
        })
    });
    let _near = Server::holds(near_addr, "near");
    wait_until("failback", SOON, || {
        connect(addr).is_ok_and(|mut s| {
            let mut text = [0; 4];
            s.read_exact(&mut text).is_ok() && &text == b"near"
        })
    });
}

#[test]
fn l10_link_without_secret_is_its_own_error() {
    let (a, b) = linked();
    let spec =
        "{endpoints: [{name: inter-router, host: 127.0.0.1, port: \"1\"}], tlsCredentials: no}";
    b.resource("Link", "broken", spec);
    b.wait_message("Link", "broken", "Error", "secret \"no\" not found");
    assert_eq!(b.wait_status("Link", "to-a", "Ready"), "OK");
    a.wait_status("Site", "a", "Ready");
}

#[test]
fn l11_link_without_an_endpoint_of_our_role_says_so() {
    let (_a, b) = linked();
    let spec =
        "{endpoints: [{name: edge, host: 127.0.0.1, port: \"45671\"}], tlsCredentials: to-a}";
    b.resource("Link", "edge-only", spec);
    b.wait_message("Link", "edge-only", "Error", "no endpoint for the role");
}

#[test]
fn l7_wrong_server_name_is_refused_with_a_reason() {
    let (a, b) = linked();
    // The access is for 127.0.0.1; this one is dialled by another name of the same host.
    let text = a.ok(&["link", "generate", "--host", "127.0.0.1", "--name", "wrong"]);
    b.file(
        "wrong.yaml",
        &text.replace("host: 127.0.0.1", "host: localhost"),
    );
    let deadline = Instant::now() + SOON;
    loop {
        let message = b.wait_status("Link", "wrong", "Pending");
        if message.contains("certificate") {
            break;
        }
        assert!(Instant::now() < deadline, "{message}");
    }
}

#[test]
fn l19_generate_without_host_is_reachable_or_says_so() {
    let site = Site::new("a");
    site.ok(&["site", "update", "a", "--enable-link-access"]);
    let output = site.skupper(&["link", "generate"]);
    if output.status.success() {
        let text = String::from_utf8(output.stdout).expect("text");
        for host in ["0.0.0.0", "127.0.0.1", "localhost", "\"::\""] {
            assert!(
                !text.contains(&format!("host: {host}")),
                "{host} is of no use elsewhere"
            );
        }
    } else {
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("--host"), "{errors}");
    }
}

#[test]
fn l20_r13_private_keys_are_private() {
    let (a, b) = linked();
    fn walk(dir: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
            if entry.path().is_dir() {
                walk(&entry.path(), found);
            } else {
                found.push(entry.path());
            }
        }
    }
    let applied = a
        .link(([127, 0, 0, 1], 1).into(), 1)
        .replace("name: to-a", "name: second");
    let file = b.root().join("second.yaml");
    std::fs::write(&file, &applied).expect("a file");
    b.ok(&["system", "apply", "-f", file.to_str().expect("a path")]);
    std::fs::remove_file(file).expect("removed");
    let mut keys = 0;
    for site in [&a, &b] {
        let mut files = Vec::new();
        walk(site.root(), &mut files);
        for path in files {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            // What a test put there itself is the test's.
            let own = path.file_name().is_some_and(|n| n == "link-a.yaml");
            if !own && (text.contains("PRIVATE KEY") || text.contains("tls.key:")) {
                let mode = std::fs::metadata(&path)
                    .expect("metadata")
                    .permissions()
                    .mode();
                assert_eq!(mode & 0o077, 0, "{} is {mode:o}", path.display());
                keys += 1;
            }
        }
    }
    assert!(keys >= 3, "only {keys} files with keys were looked at");
}

#[test]
fn l21_the_dialling_side_can_offer() {
    let (a, b) = linked();
    let server = Server::says(free_addr(), "from b");
    let addr = free_addr();
    b.connector("c", "key", server.addr);
    a.listener("l", "key", addr);
    wait_until("a service of the dialling side", SOON, || {
        hear(addr).is_ok_and(|t| t == "from b")
    });
}

#[test]
fn l22_l23_triangle_survives_any_single_link() {
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
fn l1_link_access_opens_and_closes_ports() {
    let mut a = Site::new("a");
    a.ok(&["site", "update", "a", "--enable-link-access"]);
    a.start();
    a.wait_status("Site", "a", "Ready");
    let site = a.status("Site", "a").expect("a status");
    let ports: Vec<u16> = site["status"]["endpoints"]
        .as_array()
        .expect("endpoints")
        .iter()
        .filter_map(|e| e["port"].as_str()?.parse().ok())
        .collect();
    assert_eq!(ports.len(), 2, "{site:#}");
    let open = |port: u16| !refused(([127, 0, 0, 1], port).into());
    assert!(ports.iter().all(|p| open(*p)));
    a.ok(&["site", "update", "a", "--enable-link-access=false"]);
    wait_until("the ports to close", SOON, || {
        ports.iter().all(|p| !open(*p))
    });
}

#[test]
fn l3_l4_l5_router_access() {
    let mut a = Site::new("a");
    let (one, two) = (free_port(), free_port());
    let spec = |port: u16| {
        format!(
            "{{bindHost: 127.0.0.1, roles: [{{name: inter-router, port: {port}}}], \
             subjectAlternativeNames: [my.example.com]}}"
        )
    };
    a.resource("RouterAccess", "one", &spec(one));
    a.resource("RouterAccess", "two", &spec(two));
    a.start();
    let open = |port: u16| !refused(([127, 0, 0, 1], port).into());
    wait_until("both to open", SOON, || open(one) && open(two));
    a.resource("RouterAccess", "bad", "{roles: []}");
    a.wait_message(
        "RouterAccess",
        "bad",
        "Error",
        "spec.roles: roles are required",
    );
    a.resource("RouterAccess", "bad", "{roles: [{name: foo}]}");
    wait_until("the other error", SOON, || {
        a.wait_status("RouterAccess", "bad", "Error")
            .contains("invalid role: foo")
    });
    assert!(
        open(one) && open(two),
        "a bad resource leaves the good ones alone"
    );
}

#[test]
fn l25_link_over_ipv6() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    let addr = SocketAddr::new("::1".parse().expect("an address"), free_port());
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        skupper_tests::skip::skip("this host has no IPv6 loopback");
        return;
    }
    a.access(addr);
    b.link_to(&a, addr, 1);
    a.start();
    b.start();
    b.wait_status("Link", "to-a", "Ready");
}

#[test]
fn r6_second_daemon_refuses() {
    let mut a = Site::new("a");
    a.start();
    a.wait_status("Site", "a", "Ready");
    let output = std::process::Command::new(skupper_tests::program("skupperd"))
        .arg("--root")
        .arg(a.root())
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("another skupperd runs already"), "{errors}");
}

#[test]
fn r11_c25_invalid_change_leaves_what_runs() {
    let (a, b) = linked();
    let (_server, addr) = echo(&a, &b);
    let mut held = connect(addr).expect("a connection");
    b.file("broken.yaml", "kind: Listener\n  nonsense: [");
    b.file(
        "elsewhere.yaml",
        "apiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata:\n  name: x\n  namespace: other\n\
         spec: {routingKey: x, host: 127.0.0.1, port: 1}\n",
    );
    wait_until("both errors in the log", SOON, || {
        let log = b.log();
        log.contains("broken.yaml") && log.contains("namespace must be")
    });
    round_trip(&mut held, b"still").expect("the connection lives");
    assert!(works(addr));
}

#[test]
fn r12_no_key_in_log_or_arguments() {
    let (a, b) = linked();
    let key = std::fs::read_to_string(
        a.root()
            .join("namespaces/default/runtime/issuers/skupper-site-ca/tls.key"),
    )
    .expect("the CA's key");
    let secret = key.lines().nth(1).expect("base64");
    for site in [&a, &b] {
        assert!(!site.log().contains(secret) && !site.log().contains("PRIVATE KEY"));
        let arguments = std::fs::read(format!("/proc/{}/cmdline", site.pid())).expect("arguments");
        assert!(!String::from_utf8_lossy(&arguments).contains("PRIVATE"));
    }
}

#[test]
fn r14_newer_state_is_refused_with_a_message() {
    let mut a = Site::new("a");
    let dir = a.root().join("namespaces/default/internal");
    std::fs::create_dir_all(&dir).expect("a directory");
    std::fs::write(dir.join("site.json"), r#"{"version": 99, "site_id": "x"}"#).expect("a file");
    a.start();
    a.wait_message("Site", "a", "Error", "version 99");
}

#[test]
fn sigterm_drains_open_connections() {
    let (a, mut b) = linked();
    let (_server, addr) = echo(&a, &b);
    let mut held = connect(addr).expect("a connection");
    round_trip(&mut held, b"before").expect("works");
    b.signal(Signal::SIGTERM);
    wait_until("new clients to be refused", SOON, || refused(addr));
    round_trip(&mut held, b"during").expect("an open connection goes on");
    drop(held);
    assert_eq!(b.ended(), Some(0));
}

#[test]
fn l6_hostile_peers_are_refused_logged_once_and_harmless() {
    let (a, b) = linked();
    let (_server, addr) = echo(&a, &b);
    let mut held = connect(addr).expect("a connection");
    let text = std::fs::read_to_string(a.input().join("RouterAccess-access.yaml")).expect("access");
    let port = text
        .split("port: ")
        .nth(1)
        .and_then(|t| t.split('}').next())
        .expect("port");
    let link: SocketAddr = format!("127.0.0.1:{port}").parse().expect("an address");
    // Plain text, random bytes, a frame of 2^31 bytes, silence.
    let attacks: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0x9f; 4096],
        b"AMQP\x00\x01\x00\x00\x80\x00\x00\x00\x02\x00\x00\x00",
        b"",
    ];
    for attack in attacks {
        let before = a.log().matches("connection refused").count();
        let mut socket = connect(link).expect("accepted");
        socket.write_all(attack).expect("sent");
        socket.shutdown(std::net::Shutdown::Write).ok();
        // What comes back, if anything, is an alert and the end.
        socket.read_to_end(&mut Vec::new()).ok();
        wait_until("one line in the log", SOON, || {
            a.log().matches("connection refused").count() == before + 1
        });
    }
    assert!(
        a.log().contains("connection refused peer=127.0.0.1:"),
        "{}",
        a.log()
    );
    round_trip(&mut held, b"undisturbed").expect("others go on");
}

#[test]
fn o13_log_lines_have_fields() {
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
fn the_port_for_clients_of_this_host_comes_moves_and_goes_on_a_running_site() {
    let mut site = Site::new("a");
    let (one, two) = (free_addr(), free_addr());
    let spec = |addr: SocketAddr| format!("{{settings: {{local-amqp-port: \"{}\"}}}}", addr.port());
    site.start();
    assert!(refused(one));
    site.resource("Site", "a", &spec(one));
    wait_until("the port", SOON, || !refused(one));
    let mut held = connect(one).expect("accepted");
    // One that another program has is said, and the old one stays.
    let busy = std::net::TcpListener::bind(two).expect("a port");
    site.resource("Site", "a", &spec(two));
    site.wait_message("Site", "a", "Error", "spec.settings[local-amqp-port]");
    assert!(!refused(one));
    drop(busy);
    wait_until("the other port", SOON, || !refused(two) && refused(one));
    site.wait_status("Site", "a", "Ready");
    // Who is connected stays.
    held.write_all(b"AMQP\x03\x01\x00\x00").expect("sent");
    let mut answer = [0; 8];
    held.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"AMQP\x03\x01\x00\x00");
    site.resource("Site", "a", "{}");
    wait_until("the port to go", SOON, || refused(two));
}

/// What a quiet peer hears from us must not depend on what it says itself.
#[test]
fn a_talkative_peer_gets_its_heartbeats() {
    let mut site = Site::new("a");
    let port = free_port();
    let spec = format!("{{settings: {{local-amqp-port: \"{port}\"}}}}");
    site.resource("Site", "a", &spec);
    site.start();
    let mut socket = None;
    wait_until("the local port", SOON, || {
        socket = connect(SocketAddr::from(([127, 0, 0, 1], port))).ok();
        socket.is_some()
    });
    let mut socket = socket.expect("a connection");
    // SASL ANONYMOUS, then an open with an idle timeout of a second.
    socket.write_all(b"AMQP\x03\x01\x00\x00").expect("sent");
    let init = b"\0\x53\x41\xc0\x0c\x01\xa3\x09ANONYMOUS";
    frame(&mut socket, 1, init);
    socket.write_all(b"AMQP\x00\x01\x00\x00").expect("sent");
    frame(
        &mut socket,
        0,
        b"\0\x53\x10\xc0\x0c\x05\xa1\x01p\x40\x40\x40\x70\0\0\x03\xe8",
    );
    let empty = [0, 0, 0, 8, 2, 0, 0, 0];
    let (mut heard, mut buf) = (Vec::new(), [0; 1024]);
    let timeout = Some(Duration::from_millis(50));
    socket.set_read_timeout(timeout).expect("a timeout");
    wait_until("a heartbeat", SOON, || {
        socket.write_all(&empty).expect("still open");
        if let Ok(n) = socket.read(&mut buf) {
            assert_ne!(n, 0, "closed: {}", site.log());
            heard.extend_from_slice(&buf[..n]);
        }
        heard.ends_with(&empty)
    });
}

fn frame(socket: &mut std::net::TcpStream, kind: u8, body: &[u8]) {
    let size = u32::try_from(body.len() + 8).expect("a small frame");
    socket.write_all(&size.to_be_bytes()).expect("sent");
    socket.write_all(&[2, kind, 0, 0]).expect("sent");
    socket.write_all(body).expect("sent");
}
