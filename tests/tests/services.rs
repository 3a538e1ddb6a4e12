//! Listeners and connectors, held against the rows V of the checklist.

use skupper_tests::{
    SOON,
    echo::{Patient, Server, connect, hear, refused, round_trip, works},
    free_addr, resident,
    site::{Site, linked, service},
    wait_until,
};
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

#[test]
fn v1_v2_listener_and_connector_by_command() {
    let (a, b) = linked();
    let server = Server::echo(free_addr());
    let addr = free_addr();
    let (target, port) = (server.addr.port().to_string(), addr.port().to_string());
    a.ok(&["connector", "create", "db", &target, "--host", "127.0.0.1"]);
    b.ok(&["listener", "create", "db", &port, "--host", "127.0.0.1"]);
    wait_until("the service to work", Duration::from_secs(5), || {
        works(addr)
    });
    b.wait_status("Listener", "db", "Ready");
    a.wait_status("Connector", "db", "Ready");
}

#[test]
fn v3_v5_unmatched_listener_is_pending_and_closed() {
    let (a, b) = linked();
    let addr = free_addr();
    b.listener("echo", "echo", addr);
    assert_eq!(
        b.wait_status("Listener", "echo", "Pending"),
        "No matching connectors"
    );
    assert!(refused(addr), "a listener without a connector accepts");
    let server = Server::echo(free_addr());
    a.connector("echo", "echo", server.addr);
    b.wait_status("Listener", "echo", "Ready");
    assert!(works(addr));
    a.remove("Connector", "echo");
    b.wait_status("Listener", "echo", "Pending");
    wait_until("the listener to close", SOON, || refused(addr));
}

#[test]
fn v4_order_does_not_matter() {
    let (a, b) = linked();
    let server = Server::echo(free_addr());
    let (one, two) = (free_addr(), free_addr());
    a.connector("one", "one", server.addr);
    a.wait_status("Connector", "one", "Pending");
    b.listener("one", "one", one);
    b.listener("two", "two", two);
    b.wait_status("Listener", "two", "Pending");
    a.connector("two", "two", server.addr);
    wait_until("both to work", SOON, || works(one) && works(two));
}

#[test]
fn v6_v7_several_connectors_share_and_several_listeners_reach() {
    let (a, b) = linked();
    let servers: Vec<Server> = ["one", "two", "three"]
        .map(|text| Server::holds(free_addr(), text))
        .into();
    for (n, server) in servers.iter().enumerate() {
        a.connector(&format!("c{n}"), "key", server.addr);
    }
    let (here, there) = (free_addr(), free_addr());
    a.listener("l", "key", here);
    b.listener("l", "key", there);
    wait_until("both listeners", SOON, || !refused(here) && !refused(there));
    let before: Vec<usize> = servers
        .iter()
        .map(|s| s.accepted.load(std::sync::atomic::Ordering::SeqCst))
        .collect();
    let mut held = Vec::new();
    for n in 0..300 {
        let mut socket = connect(if n % 2 == 0 { here } else { there }).expect("a connection");
        let mut first = [0; 3];
        socket.read_exact(&mut first).expect("an answer");
        held.push(socket);
    }
    for (server, before) in servers.iter().zip(before) {
        let share = server.accepted.load(std::sync::atomic::Ordering::SeqCst) - before;
        assert!(
            (80..=120).contains(&share),
            "{share} of 300 at one of three servers"
        );
    }
}

#[test]
fn v8_same_site_needs_no_link() {
    let mut a = Site::new("a");
    a.start();
    let server = Server::echo(free_addr());
    let addr = free_addr();
    a.connector("echo", "echo", server.addr);
    a.listener("echo", "echo", addr);
    wait_until("the service to work", SOON, || works(addr));
    // Half-close is kept here too.
    let mut socket = connect(addr).expect("a connection");
    socket.write_all(&vec![7; 100_000]).expect("sent");
    socket.shutdown(Shutdown::Write).expect("half-closed");
    let mut back = Vec::new();
    let mut reader = Patient(&socket);
    reader.read_to_end(&mut back).expect("everything back");
    assert_eq!(back.len(), 100_000);
}

#[test]
fn v9_v10_r7_changes_touch_only_what_changed() {
    let (a, b, _server, addr) = service();
    let other = free_addr();
    b.listener("other", "echo", other);
    wait_until("the other listener", SOON, || works(other));
    let mut held = connect(addr).expect("a connection");
    round_trip(&mut held, b"before").expect("works");
    let moved = free_addr();
    b.listener("other", "echo", moved);
    wait_until("the new port", SOON, || works(moved));
    wait_until("the old port to close", SOON, || refused(other));
    let text = Server::says(free_addr(), "text");
    a.connector("text", "text", text.addr);
    b.listener("other", "text", moved);
    wait_until("the new key", SOON, || {
        hear(moved).is_ok_and(|t| t == "text")
    });
    round_trip(&mut held, b"after").expect("the untouched listener's connection lives");
}

#[test]
fn v12_duplicate_address_is_an_error_of_the_second() {
    let (_a, b, _server, addr) = service();
    let wild = SocketAddr::new([0, 0, 0, 0].into(), addr.port());
    b.listener("zz", "echo", wild);
    b.wait_message("Listener", "zz", "Error", "already mapped");
    assert!(works(addr), "the first listener goes on");
}

#[test]
fn v13_busy_port_is_said_and_recovers() {
    let (a, b) = linked();
    let server = Server::echo(free_addr());
    let addr = free_addr();
    let squatter = TcpListener::bind(addr).expect("the port");
    a.connector("echo", "echo", server.addr);
    b.listener("echo", "echo", addr);
    b.wait_message("Listener", "echo", "Error", "Address already in use");
    drop(squatter);
    wait_until("the listener to open", SOON, || works(addr));
    b.wait_status("Listener", "echo", "Ready");
}

#[test]
fn v17_deleted_listener_cuts_its_connections() {
    let (_a, b, server, addr) = service();
    let mut held = connect(addr).expect("a connection");
    round_trip(&mut held, b"x").expect("works");
    assert!(b.ok(&["listener", "delete", "echo"]).contains("is deleted"));
    wait_until("the port to close", SOON, || refused(addr));
    assert!(
        !matches!(held.read(&mut [0; 1]), Ok(1..)),
        "the connection goes on"
    );
    wait_until("the server to see it", SOON, || {
        server.open.load(std::sync::atomic::Ordering::SeqCst) == 0
    });
}

#[test]
fn v18_server_down_closes_the_client_promptly() {
    let (a, b) = linked();
    let (gone, addr) = (free_addr(), free_addr());
    a.connector("gone", "gone", gone);
    b.listener("gone", "gone", addr);
    wait_until("the listener to open", SOON, || !refused(addr));
    let begin = Instant::now();
    let mut socket = connect(addr).expect("accepted");
    assert!(!matches!(socket.read(&mut [0; 1]), Ok(1..)));
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn refused_server_is_retried_on_another_connector_with_nothing_lost() {
    let (a, b) = linked();
    let server = Server::echo(free_addr());
    a.connector("dead", "key", free_addr());
    a.connector("live", "key", server.addr);
    let addr = free_addr();
    b.listener("l", "key", addr);
    wait_until("the listener to open", SOON, || !refused(addr));
    for n in 0..50 {
        let mut socket = connect(addr).expect("accepted");
        // Sent at once: it must reach the second server after the first has refused.
        let text = format!("request {n}");
        assert_eq!(
            round_trip(&mut socket, text.as_bytes()).expect("an answer"),
            text.as_bytes()
        );
    }
}

#[test]
fn v20_half_close_then_100_mb() {
    let (a, b) = linked();
    let server = Server::start(free_addr(), |mut socket| {
        let mut request = String::new();
        socket
            .read_to_string(&mut request)
            .expect("a request up to its end");
        assert_eq!(request, "give");
        let chunk = vec![0xa5; 1 << 20];
        for _ in 0..100 {
            if socket.write_all(&chunk).is_err() {
                return;
            }
        }
    });
    let addr = free_addr();
    a.connector("c", "key", server.addr);
    b.listener("l", "key", addr);
    wait_until("the listener to open", SOON, || !refused(addr));
    let mut socket = connect(addr).expect("a connection");
    socket.write_all(b"give").expect("sent");
    socket.shutdown(Shutdown::Write).expect("half-closed");
    let (mut total, mut buf) = (0, vec![0; 1 << 16]);
    while let Ok(n @ 1..) = socket.read(&mut buf) {
        assert!(buf[..n].iter().all(|b| *b == 0xa5));
        total += n;
    }
    assert_eq!(total, 100 << 20);
}

#[test]
fn reset_of_the_client_reaches_the_server_as_reset() {
    let (seen, result) = std::sync::mpsc::channel();
    let (a, b) = linked();
    let server = Server::start(free_addr(), move |socket| {
        let mut buf = [0; 64];
        let end = loop {
            match Patient(&socket).read(&mut buf) {
                Ok(0) => break "end",
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => break "reset",
                Err(_) => break "other",
            }
        };
        seen.send(end).ok();
    });
    let addr = free_addr();
    a.connector("c", "key", server.addr);
    b.listener("l", "key", addr);
    wait_until("the listener to open", SOON, || !refused(addr));
    // Looking whether it is open was a connection too, and ended in order or by reset.
    while result.recv_timeout(Duration::from_millis(500)).is_ok() {}
    let mut socket = connect(addr).expect("a connection");
    socket.write_all(b"x").expect("sent");
    wait_until("the server", SOON, || {
        server.open.load(std::sync::atomic::Ordering::SeqCst) > 0
    });
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Linger, &linger)
        .expect("linger");
    drop(socket);
    assert_eq!(
        result.recv_timeout(SOON).expect("the server's view"),
        "reset"
    );
}

#[test]
fn v22_slow_reader_holds_nobody_else() {
    let (a, b) = linked();
    let flood = Server::start(free_addr(), |mut socket| {
        let chunk = vec![1; 1 << 16];
        while socket.write_all(&chunk).is_ok() {}
    });
    let echo = Server::echo(free_addr());
    let (slow, fast) = (free_addr(), free_addr());
    a.connector("flood", "flood", flood.addr);
    a.connector("echo", "echo", echo.addr);
    b.listener("flood", "flood", slow);
    b.listener("echo", "echo", fast);
    wait_until("both", SOON, || !refused(slow) && works(fast));
    // Connections that are flooded and never read.
    let stuck: Vec<_> = (0..8)
        .map(|_| connect(slow).expect("a connection"))
        .collect();
    wait_until("floods to begin", SOON, || {
        flood.open.load(std::sync::atomic::Ordering::SeqCst) >= stuck.len()
    });
    let mut socket = connect(fast).expect("a connection");
    let begin = Instant::now();
    for _ in 0..200 {
        round_trip(&mut socket, &[9; 4096]).expect("works beside them");
    }
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    let rss = resident(b.pid());
    assert!(rss < 256 << 20, "{} MiB resident", rss >> 20);
}

#[test]
fn v23_v45_thousands_of_idle_connections_beside_bulk_and_echo() {
    let (a, b, server, addr) = service();
    let flood = Server::start(free_addr(), |mut socket| {
        let chunk = vec![1; 1 << 16];
        while socket.write_all(&chunk).is_ok() {}
    });
    let bulk = free_addr();
    a.connector("flood", "flood", flood.addr);
    b.listener("flood", "flood", bulk);
    wait_until("the bulk listener", SOON, || !refused(bulk));
    let (limit, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        .expect("limit of open files");
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        .expect("limit of open files");
    if limit < hard {
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard)
            .expect("more open files");
    }
    // Test, server, and both daemons need a descriptor each.
    let count = usize::try_from(hard / 3).unwrap_or(5000).min(5000);
    let before = resident(a.pid()) + resident(b.pid());
    let mut idle = Vec::with_capacity(count);
    for _ in 0..count {
        let mut socket = connect(addr).expect("a connection");
        round_trip(&mut socket, b"hi").expect("works");
        idle.push(socket);
    }
    let each = (resident(a.pid()) + resident(b.pid())).saturating_sub(before) / count;
    println!("{count} idle connections: {each} bytes each in both daemons together");
    assert!(each < 24 * 1024, "{each} bytes for an idle connection");
    let mut stream = connect(bulk).expect("bulk");
    let reader = thread::spawn(move || {
        let (mut total, mut buf) = (0, vec![0; 1 << 16]);
        while total < 200 << 20 {
            total += stream.read(&mut buf).expect("bulk goes on");
        }
    });
    let mut socket = connect(addr).expect("a connection");
    for _ in 0..500 {
        round_trip(&mut socket, &[3; 64]).expect("echo beside bulk");
    }
    reader.join().expect("bulk");
    for socket in &mut idle {
        round_trip(socket, b"still here").expect("an idle connection lives");
    }
    drop(idle);
    drop(socket);
    wait_until("the server's connections to end", SOON, || {
        server.open.load(std::sync::atomic::Ordering::SeqCst) == 0
    });
}

#[test]
fn v29_tls_passes_through_untouched() {
    let (_a, _b, _server, addr) = service();
    // A TLS client hello, and what would follow it: opaque bytes in both directions.
    let hello: Vec<u8> = [0x16, 3, 1, 2, 0]
        .into_iter()
        .chain((0..=255).cycle().take(512))
        .collect();
    let mut socket = connect(addr).expect("a connection");
    assert_eq!(round_trip(&mut socket, &hello).expect("back"), hello);
}

#[test]
fn v43_udp_is_refused_with_a_message() {
    let site = Site::new("a");
    let output = site.skupper(&["listener", "create", "dns", "53", "--type", "udp"]);
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("value udp not allowed") && errors.contains("[tcp]"),
        "{errors}"
    );
}

#[test]
fn v46_ipv6_and_host_names() {
    let (a, b) = linked();
    let Ok(probe) = TcpListener::bind("[::1]:0") else {
        skupper_tests::skip::skip("this host has no IPv6 loopback");
        return;
    };
    let port = probe.local_addr().expect("its address").port();
    drop(probe);
    let server = Server::echo(SocketAddr::new("::1".parse().expect("an address"), port));
    let addr = SocketAddr::new(
        "::1".parse().expect("an address"),
        skupper_tests::free_port(),
    );
    a.connector("six", "six", server.addr);
    b.listener("six", "six", addr);
    wait_until("IPv6 both ways", SOON, || works(addr));
    let named = skupper_tests::free_port();
    b.resource(
        "Listener",
        "name",
        &format!("{{routingKey: six, host: localhost, port: {named}}}"),
    );
    wait_until("a listener by name", SOON, || {
        works(([127, 0, 0, 1], named).into())
    });
    let target = Server::echo(free_addr());
    let spec = format!(
        "{{routingKey: name, host: localhost, port: {}}}",
        target.addr.port()
    );
    a.resource("Connector", "name", &spec);
    let four = free_addr();
    b.listener("four", "name", four);
    wait_until("a connector by name", SOON, || works(four));
}

#[test]
fn v21_large_transfers_both_ways_are_equal() {
    let (_a, _b, _server, addr) = service();
    let mut socket = connect(addr).expect("a connection");
    let mut writer = socket.try_clone().expect("a clone");
    const TOTAL: u64 = 1 << 30;
    let word = |n: u64| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes();
    let sender = thread::spawn(move || {
        let mut chunk = vec![0; 1 << 18];
        let mut at = 0;
        while at < TOTAL {
            for (n, part) in chunk.chunks_exact_mut(8).enumerate() {
                part.copy_from_slice(&word(at / 8 + n as u64));
            }
            writer.write_all(&chunk).expect("sent");
            at += chunk.len() as u64;
        }
        writer.shutdown(Shutdown::Write).expect("half-closed");
    });
    let (mut at, mut buf) = (0u64, vec![0; 1 << 18]);
    loop {
        let mut filled = 0;
        while filled < buf.len() {
            match socket.read(&mut buf[filled..]).expect("received") {
                0 => break,
                n => filled += n,
            }
        }
        for (n, part) in buf[..filled].chunks_exact(8).enumerate() {
            assert_eq!(part, word(at / 8 + n as u64), "at byte {at}");
        }
        at += filled as u64;
        if filled < buf.len() {
            break;
        }
    }
    sender.join().expect("sender");
    assert_eq!(at, TOTAL);
}
