//! Links: created by file, by command and from generated documents; their cost, errors and
//! removal.

use super::router_access::port;
use skupper_tests::{
    SOON,
    echo::{Server, connect, read_to_close, refused, round_trip},
    free_addr, free_port, program,
    site::{Site, linked, service, start_linked},
    token::running_site,
    wait_for, wait_until,
};
use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

#[test]
fn link_delete_removes_its_secret() {
    let (_a, b) = linked();
    let text = b.ok(&["link", "delete", "to-a"]);
    assert!(text.contains("Secret \"to-a\" is deleted"), "{text}");
    wait_until("the link to be gone from the status", SOON, || {
        b.ok(&["link", "status"]).trim() == "There are no link resources in the namespace"
    });
}

#[test]
fn a_link_to_the_site_itself_is_reported() {
    let mut a = Site::new("a");
    let addr = free_addr();
    a.access(addr);
    a.link_to(&a, addr, 1);
    a.start();
    a.wait_message("Link", "to-a", "Error", "the endpoint is this site's own");
}

/// The texts of the servers of 20 connections that are open at once.
fn texts(addr: SocketAddr) -> Vec<String> {
    let held: Vec<_> = (0..20)
        .map(|_| connect(addr).expect("a connection"))
        .collect();
    let read = |mut socket: TcpStream| {
        let mut text = [0; 6];
        socket.read_exact(&mut text).expect("a text");
        String::from_utf8(text.into()).expect("a text")
    };
    // All stay open until the last is read.
    let copies = held
        .iter()
        .map(|socket| socket.try_clone().expect("a socket"));
    copies.map(read).collect()
}

#[test]
fn a_changed_cost_reaches_the_accepting_site_and_cuts_nothing() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    start_linked(&mut a, &mut b);
    let [near, far] = ["from a", "from b"].map(|text| Server::holds(free_addr(), text));
    let addr = free_addr();
    a.connector("c", "key", near.addr);
    b.connector("c", "key", far.addr);
    a.listener("l", "key", addr);
    let shared = |addr| ["from a", "from b"].map(|text| texts(addr).contains(&text.to_owned()));
    wait_until("both servers to be used", SOON, || {
        !refused(addr) && shared(addr) == [true, true]
    });
    // One of those that the other site serves stays open.
    let (mut held, mut text) = (Vec::new(), [0; 6]);
    while &text != b"from b" {
        held.push(connect(addr).expect("a connection"));
        let socket = held.last_mut().expect("a connection");
        socket.read_exact(&mut text).expect("a text");
    }
    b.ok(&["link", "update", "to-a", "--cost", "99999"]);
    wait_until("the far server to be the last resort", SOON, || {
        texts(addr).iter().all(|text| text == "from a")
    });
    let mut kept = held.pop().expect("a connection");
    kept.set_read_timeout(Some(Duration::from_millis(100)))
        .expect("a timeout");
    let error = kept.read(&mut text).expect_err("it is open");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    b.ok(&["link", "update", "to-a", "--cost", "1"]);
    wait_until("both servers to be used", SOON, || {
        shared(addr) == [true, true]
    });
}

/// Two operators may each link to the other's site: both links come up, and stay.
#[test]
fn two_sites_may_link_to_each_other() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    let (to_a, to_b) = (free_addr(), free_addr());
    a.access(to_a);
    b.access(to_b);
    b.link_to(&a, to_a, 1);
    a.link_to(&b, to_b, 1);
    let server = Server::holds(free_addr(), "here");
    let addr = free_addr();
    a.connector("c", "key", server.addr);
    b.listener("l", "key", addr);
    a.start();
    b.start();
    a.wait_status("Link", "to-b", "Ready");
    b.wait_status("Link", "to-a", "Ready");
    wait_until("the listener", SOON, || !refused(addr));
    // The link that is left carries the traffic, and the other comes back.
    fs::remove_file(a.input().join("link-b.yaml")).expect("the link's file");
    wait_until("the link to be gone", SOON, || {
        a.status("Link", "to-b").is_none()
    });
    let mut text = [0; 4];
    let mut socket = connect(addr).expect("a connection");
    socket.read_exact(&mut text).expect("an answer");
    assert_eq!(&text, b"here");
    a.link_to(&b, to_b, 1);
    a.wait_status("Link", "to-b", "Ready");
    for site in [&a, &b] {
        let log = site.log();
        assert!(!log.contains("belongs to another certificate"), "{log}");
    }
}

#[test]
fn cost_counts_as_connections() {
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
    // A changed cost applies to new connections; open ones stay.
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
    // Failover: the near server stops and returns.
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
fn link_without_secret_is_its_own_error() {
    let (a, b) = linked();
    let spec =
        "{endpoints: [{name: inter-router, host: 127.0.0.1, port: \"1\"}], tlsCredentials: no}";
    b.resource("Link", "broken", spec);
    b.wait_message("Link", "broken", "Error", "secret \"no\" not found");
    assert_eq!(b.wait_status("Link", "to-a", "Ready"), "OK");
    a.wait_status("Site", "a", "Ready");
}

#[test]
fn link_without_an_endpoint_of_our_role_is_an_error() {
    let (_a, b) = linked();
    let spec =
        "{endpoints: [{name: edge, host: 127.0.0.1, port: \"45671\"}], tlsCredentials: to-a}";
    b.resource("Link", "edge-only", spec);
    b.wait_message("Link", "edge-only", "Error", "no endpoint for the role");
}

#[test]
fn wrong_server_name_is_refused_with_a_reason() {
    let (a, b) = linked();
    // The certificate names 127.0.0.1, and this link dials another name of the same host.
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
fn generate_without_host_is_reachable_or_refused() {
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
fn the_dialling_side_can_offer_services() {
    let (a, b) = linked();
    let server = Server::says(free_addr(), "from b");
    let addr = free_addr();
    b.connector("c", "key", server.addr);
    a.listener("l", "key", addr);
    wait_until("a service of the dialling side", SOON, || {
        read_to_close(addr).is_ok_and(|t| t == "from b")
    });
}

#[test]
fn link_over_ipv6() {
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

/// Names and contents of all files below a directory.
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
fn generated_links_apply_and_nothing_is_written() {
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
    let b = running_site("b");
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
fn link_update_keeps_its_connections() {
    let (a, b, _server, addr) = service();
    let mut held = connect(addr).expect("a connection");
    round_trip(&mut held, b"before").expect("works");
    b.ok(&["link", "update", "to-a", "--cost", "12"]);
    wait_until("the cost", SOON, || {
        b.status("Link", "to-a")
            .is_some_and(|l| l["spec"]["cost"] == 12)
    });
    // The link switches to the credentials of another Secret.
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
            "secret none does not exist",
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
fn a_generated_link_connects_and_no_container_engine_is_called() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    let addr = free_addr();
    a.access(addr);
    // Fake container engines that record when they are called.
    let engines = b.root().join("bin");
    std::fs::create_dir(&engines).expect("a directory");
    for name in ["podman", "docker"] {
        let path = engines.join(name);
        let trace = b.root().join("called");
        std::fs::write(
            &path,
            format!("#!/bin/sh\necho $0 >> {}\n", trace.display()),
        )
        .expect("a script");
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("a script");
    }
    a.start();
    b.start();
    let run = |site: &Site, args: &[&str], input: &str| {
        let mut child = Command::new(program("skupper"))
            .arg("--root")
            .arg(site.root())
            .args(args)
            .env("PATH", &engines)
            .env_remove("SKUPPER_PLATFORM")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("skupper runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).expect("read");
        drop(stdin);
        let output = child.wait_with_output().expect("ended");
        assert!(output.status.success(), "skupper {args:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let link = run(
        &a,
        &["link", "generate", "--host", "127.0.0.1", "--name", "to-a"],
        "",
    );
    run(&b, &["system", "apply", "-f", "-"], &link);
    b.wait_status("Link", "to-a", "Ready");
    for noun in ["site", "link", "listener", "connector"] {
        run(&b, &[noun, "status"], "");
    }
    run(&b, &["version"], "");
    run(&b, &["system", "delete", "-f", "-"], &link);
    wait_until("the link to go", SOON, || {
        b.status("Link", "to-a").is_none()
    });
    assert!(!b.root().join("called").exists(), "no engine was called");
}

#[test]
fn a_link_to_the_wrong_peer_says_what_is_wrong() {
    let (mut a, mut c) = (Site::new("a"), Site::new("c"));
    let (addr_a, addr_c) = (free_addr(), free_addr());
    a.access(addr_a);
    c.access(addr_c);
    a.start();
    c.start();
    a.wait_status("RouterAccess", "access", "Ready");
    c.wait_status("RouterAccess", "access", "Ready");
    let mut b = Site::new("b");
    let link = |to: SocketAddr| {
        let quoted = |addr: SocketAddr| format!("'{}'", addr.port());
        let text = a.link(addr_a, 1);
        assert!(text.contains(&quoted(addr_a)), "{text}");
        text.replace(&quoted(addr_a), &quoted(to))
    };
    // The CA of each site has the same name.
    b.file("link-a.yaml", &link(addr_c));
    b.start();
    b.wait_message(
        "Link",
        "to-a",
        "Pending",
        "signed by another CA than the trusted one",
    );
    let http = Server::start(free_addr(), |mut socket| {
        drop(socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
        // The client closes first, so that the answer arrives.
        drop(socket.read_to_end(&mut Vec::new()));
    });
    b.file("link-a.yaml", &link(http.addr));
    b.wait_message("Link", "to-a", "Pending", "the peer does not speak TLS");
}
