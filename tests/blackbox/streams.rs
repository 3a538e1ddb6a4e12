//! Bytes through a service: half-close, resets, large transfers, slow readers and idle connections.

use skupper_tests::{
    SOON,
    echo::{RetryingReader, Server, connect, refused, round_trip, works},
    free_addr, resident,
    site::{linked, service},
    wait_until,
};
use std::{
    io::{Read, Write},
    net::Shutdown,
    thread,
    time::{Duration, Instant},
};

#[test]
fn half_close_then_100_mb() {
    let (a, b) = linked();
    let server = Server::start(free_addr(), |mut socket| {
        let mut request = String::new();
        RetryingReader(&socket)
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
    while let Ok(n @ 1..) = RetryingReader(&socket).read(&mut buf) {
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
            match RetryingReader(&socket).read(&mut buf) {
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
    // Drop the result of the connection that only probed whether the listener is open.
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
fn slow_reader_blocks_nobody_else() {
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
    // Connections whose reader is stuck while the server floods them.
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
fn thousands_of_idle_connections_beside_bulk_and_echo() {
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
    // Each connection needs a descriptor in the test, in the server and in both daemons.
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
fn tls_passes_through_untouched() {
    let (_a, _b, _server, addr) = service();
    // A TLS ClientHello followed by opaque bytes in both directions.
    let hello: Vec<u8> = [0x16, 3, 1, 2, 0]
        .into_iter()
        .chain((0..=255).cycle().take(512))
        .collect();
    let mut socket = connect(addr).expect("a connection");
    assert_eq!(round_trip(&mut socket, &hello).expect("back"), hello);
}

#[test]
fn large_transfers_both_ways_are_equal() {
    let (_a, _b, _server, addr) = service();
    let socket = connect(addr).expect("a connection");
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
            let mut reader = RetryingReader(&socket);
            match reader.read(&mut buf[filled..]).expect("received") {
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
