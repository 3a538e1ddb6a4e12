//! BPF programs that outlive the process that loaded them, in a network namespace and a BPF file
//! system of the test.

#![cfg(feature = "ebpf")]

use nix::sched::{CloneFlags, unshare};
use skupper_ebpf::Binding;
use skupper_tests::{SOON, echo::refused, netns, skip::skip, wait_until};
use skupperd::steer::{
    bpf::{PinState, Steering},
    pins::{PinError, PinRoot},
};
use std::{
    fs::File,
    net::{SocketAddr, TcpListener, TcpStream},
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

const INSTANCE: &str = "one";

/// A directory for pins. `None`, after a skip, without eBPF.
fn home(dir: &Path) -> Option<PinRoot> {
    if !netns::enter() {
        return None;
    }
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    netns::run("mount", &["--make-rprivate", "/"]);
    let at = dir.to_str().expect("text");
    netns::run("mount", &["-t", "bpf", "bpf", at]);
    let home = PinRoot::open(&dir.join("skupper")).expect("a place for pins");
    match open(&home, "probe", 0) {
        Ok((mut probe, _)) => {
            probe.end().expect("ended");
            Some(home)
        }
        Err(PinError::Bpf(e)) => {
            skip(&format!("no BPF programs here: {e:?}"));
            None
        }
        Err(e) => panic!("{e}"),
    }
}

fn open(home: &PinRoot, instance: &str, release: u64) -> Result<(Steering, PinState), PinError> {
    let netns = File::open("/proc/thread-self/ns/net").expect("a network namespace");
    Steering::open_release(netns.as_fd(), home, instance, None, release)
}

fn addr() -> SocketAddr {
    "127.0.0.7:80".parse().expect("an address")
}

fn bind(steering: &mut Steering, socket: &TcpListener) {
    steering.set_socket(0, socket).expect("a socket");
    let (first, sockets, slot) = (0, 1, 5);
    let binding = Binding {
        first,
        sockets,
        slot,
        prefix: 32,
    };
    steering
        .bind(addr().ip(), 32, addr().port(), binding)
        .expect("a binding");
}

fn connects() -> bool {
    TcpStream::connect_timeout(&addr(), Duration::from_secs(5)).is_ok()
}

/// A listening socket whose clients are accepted and closed.
fn socket() -> TcpListener {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let accepting = socket.try_clone().expect("a copy");
    thread::spawn(move || {
        for client in accepting.incoming() {
            drop(client.expect("a client"));
        }
    });
    socket
}

#[test]
fn another_version_of_the_program_takes_over_under_load() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(home) = home(dir.path()) else { return };
    let socket = socket();
    let (mut steering, found) = open(&home, INSTANCE, 1).expect("programs");
    assert_eq!(found, PinState::Nothing);
    bind(&mut steering, &socket);
    let mode = |path: &str| {
        let path = dir.path().join("skupper").join(path);
        path.metadata().expect("a pin").permissions().mode() & 0o7777
    };
    assert_eq!(
        (mode(""), mode("one"), mode("one/LINK")),
        (0o750, 0o750, 0o640)
    );

    let (stop, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let (stop, served) = (stop.clone(), served.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let socket = TcpStream::connect_timeout(&addr(), Duration::from_secs(5));
                    socket.expect("nobody is refused");
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let mut last = steering;
    for release in [2, 2, 3, 4, 5, 5, 6] {
        let seen = served.load(Ordering::SeqCst);
        wait_until("clients", SOON, || {
            served.load(Ordering::SeqCst) > seen + 50
        });
        // The owner of the pins locks them.
        assert!(matches!(
            open(&home, INSTANCE, release),
            Err(PinError::InUse(_))
        ));
        assert!(home.sweep().expect("a look").is_empty());
        drop(last);
        let (next, found) = open(&home, INSTANCE, release).expect("programs");
        let other = [PinState::Same, PinState::OtherProgram];
        assert!(other.contains(&found), "{found:?}");
        last = next;
    }
    let bindings = last.bindings().expect("bindings");
    assert_eq!(bindings.len(), 1);
    assert_eq!(
        (bindings[0].0, bindings[0].1, bindings[0].2),
        (addr().ip(), 32, 80)
    );
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().expect("a client");
    }
    println!("{} clients served", served.load(Ordering::SeqCst));
    last.end().expect("ended");
    // The kernel detaches asynchronously.
    wait_until("the end", SOON, || refused(addr()));
}

#[test]
fn incompatible_pins_serve_until_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(home) = home(dir.path()) else { return };
    let socket = socket();
    let (mut steering, _) = open(&home, INSTANCE, 1).expect("programs");
    bind(&mut steering, &socket);
    drop(steering);
    assert!(connects());
    std::fs::remove_file(dir.path().join("skupper/one/STATE")).expect("removed");
    let (mut steering, found) = open(&home, INSTANCE, 1).expect("programs");
    assert_eq!(found, PinState::Other);
    assert!(steering.bindings().expect("bindings").is_empty());
    assert!(connects(), "until the new ones are complete");
    bind(&mut steering, &socket);
    steering.detach_replaced().expect("settled");
    assert!(connects());
    steering.unbind(addr().ip(), 32, 80).expect("a binding");
    // The kernel detaches the old ones asynchronously.
    wait_until("the end", SOON, || refused(addr()));
}

#[test]
fn leftover_pins_are_harmless_and_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(home) = home(dir.path()) else { return };
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let (mut steering, _) = open(&home, INSTANCE, 1).expect("programs");
    bind(&mut steering, &socket);
    let (live, _) = open(&home, "two", 1).expect("programs");
    drop(steering);
    assert!(connects(), "the socket is there: clients wait");
    drop(socket);
    assert!(refused(addr()));
    // Without an owner the binding has no effect: the program on the address is reached.
    let other = TcpListener::bind(addr()).expect("a free address");
    assert!(connects());
    drop(other);
    let swept = home.sweep().expect("swept");
    assert_eq!(swept, [dir.path().join("skupper/one")]);
    assert!(dir.path().join("skupper/two/LINK").exists());
    drop(live);
    assert_eq!(home.sweep().expect("swept").len(), 1);
}
