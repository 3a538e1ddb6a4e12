//! D-Bus: authorization of callers, and callers that send too many requests.

use super::dbus::on_bus;
use skupper_tests::{
    SOON,
    bus::{Bus, output_text},
    free_addr, resident,
    skip::skip,
    token::stopped_grant_site,
    wait_until,
};
use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::chown, net::UnixStream},
    time::{Duration, Instant},
};

/// Users without rights that have accounts, as the bus requires: `daemon` and `bin`.
const STRANGER: u32 = 1;

const OTHER: u32 = 2;

#[test]
fn without_polkit_only_root_and_owners_may_change() {
    if !nix::unistd::geteuid().is_root() {
        skip("calls as other users need root");
        return;
    }
    let bus = Bus::system();
    let a = on_bus(stopped_grant_site(), &bus, "system");
    // Runs as root, so that file permissions do not interfere.
    let call = |user: u32, args: &[&str]| {
        let mut all = vec![
            "call",
            "io.skupper.Skupper1",
            "/io/skupper/Skupper1",
            "io.skupper.Skupper1",
        ];
        all.extend(args);
        output_text(&bus.as_user(Some(user), &all))
    };
    let document = "apiVersion: skupper.io/v2alpha1\nkind: Connector\nmetadata: {name: c}\n\
                    spec: {routingKey: k, host: 127.0.0.1, port: 1}\n";
    for args in [
        &["Apply", "ss", "default", document][..],
        &["Delete", "sss", "default", "Site", "a"],
        &["GenerateLink", "sa{sv}", "default", "0"],
        &["IssueToken", "sa{sv}", "default", "0"],
        &["RedeemToken", "ss", "default", "{}"],
        &["RevokeLink", "ss", "default", "x"],
        &["RotateIssuers", "ss", "default", ""],
        &["Reload"],
        &["Drain"],
    ] {
        let said = call(STRANGER, args).expect_err("refused");
        assert!(said.contains("cannot ask polkit"), "{args:?}: {said}");
    }
    call(STRANGER, &["Dump"]).expect("everybody may read");
    call(STRANGER, &["List", "ss", "default", "Site"]).expect("everybody may read");
    // No other user may own the name.
    let owned = output_text(&bus.as_user(
        Some(STRANGER),
        &[
            "call",
            "org.freedesktop.DBus",
            "/",
            "org.freedesktop.DBus",
            "RequestName",
            "su",
            "io.skupper.Skupper1",
            "2",
        ],
    ));
    assert!(owned.expect_err("refused").contains("Access denied"));
    // A user may change only namespaces whose directories they own.
    chown(a.root().join("namespaces/default"), Some(STRANGER), None).expect("chown");
    call(STRANGER, &["Apply", "ss", "default", document]).expect("the owner may");
    call(STRANGER, &["Apply", "ss", "other", document]).expect_err("not elsewhere");
    call(STRANGER, &["Reload"]).expect_err("the daemon is not theirs");
    call(OTHER, &["Apply", "ss", "default", document]).expect_err("nobody else may");
    wait_until("what the owner has applied", SOON, || {
        bus.property("/default/Connector/c", ".Resource", "Kind")
            .is_some()
    });
}

/// Memory in bytes that callers may cost the daemon. The allocator keeps what concurrent answers
/// once needed.
const GROWTH: usize = 32 * 1024 * 1024;

/// A runtime for clients that do more than busctl.
fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime")
}

async fn client(bus: &Bus) -> zbus::Connection {
    let builder = zbus::connection::Builder::address(bus.address.as_str());
    builder.build().await.expect("a connection")
}

async fn list(client: &zbus::Connection) -> zbus::Result<zbus::Message> {
    let (name, path) = ("io.skupper.Skupper1", "/io/skupper/Skupper1");
    let words = ("default", "Site");
    client
        .call_method(Some(name), path, Some(name), "List", &words)
        .await
}

#[test]
fn ten_thousand_calls_are_answered_in_bounded_memory() {
    let bus = Bus::session();
    let a = on_bus(stopped_grant_site(), &bus, "session");
    bus.call(&["List", "ss", "default", "Site"])
        .expect("a list");
    let before = resident(a.pid());
    let begin = Instant::now();
    runtime().block_on(async {
        let mut callers = tokio::task::JoinSet::new();
        // The limit of pending calls per client is 128 on a system bus.
        for _ in 0..10 {
            let client = client(&bus).await;
            callers.spawn(async move {
                for _ in 0..10 {
                    let calls: Vec<_> = (0..100)
                        .map(|_| {
                            let client = client.clone();
                            tokio::spawn(async move { list(&client).await })
                        })
                        .collect();
                    for call in calls {
                        call.await.expect("a call").expect("an answer");
                    }
                }
            });
        }
        while let Some(done) = callers.join_next().await {
            done.expect("a caller");
        }
    });
    let after = resident(a.pid());
    println!(
        "10,000 calls in {:?}; resident {before} bytes, then {after}",
        begin.elapsed()
    );
    assert!(after < before + GROWTH, "{before} -> {after}");
    assert_eq!(a.wait_status("Site", "a", "Ready"), "OK");
}

#[test]
fn a_ten_megabyte_document_is_refused_in_bounded_memory() {
    let bus = Bus::session();
    let a = on_bus(stopped_grant_site(), &bus, "session");
    let before = resident(a.pid());
    let large = format!("# {}\n", "x".repeat(10 * 1024 * 1024));
    runtime().block_on(async {
        let client = client(&bus).await;
        for _ in 0..20 {
            let (name, path) = ("io.skupper.Skupper1", "/io/skupper/Skupper1");
            let words = ("default", &*large);
            let answer = client
                .call_method(Some(name), path, Some(name), "Apply", &words)
                .await;
            let error = answer.expect_err("too much").to_string();
            assert!(
                error.contains("io.skupper.Error.Invalid") && error.contains("is larger than"),
                "{error}"
            );
        }
    });
    let after = resident(a.pid());
    println!("20 documents of 10 MB; resident {before} bytes, then {after}");
    assert!(after < before + GROWTH, "{before} -> {after}");
    assert_eq!(fs::read_dir(a.input()).expect("input").count(), 2);
}

/// A connection to a bus that nothing reads from.
fn deaf(bus: &Bus) -> UnixStream {
    let path = bus.address.strip_prefix("unix:path=").expect("a path");
    let mut socket = UnixStream::connect(path).expect("a bus");
    let user = nix::unistd::geteuid().to_string();
    let user: String = user.bytes().map(|b| format!("{b:02x}")).collect();
    socket
        .write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())
        .expect("written");
    let mut answer = [0; 256];
    let n = socket.read(&mut answer).expect("an answer");
    assert!(answer[..n].starts_with(b"OK "));
    socket.write_all(b"BEGIN\r\n").expect("written");
    let bus_itself = "org.freedesktop.DBus";
    let call = |member| {
        zbus::Message::method_call("/org/freedesktop/DBus", member)
            .destination(bus_itself)
            .interface(bus_itself)
    };
    let hello = call("Hello").build(&()).expect("a message");
    let rule = "type='signal',sender='io.skupper.Skupper1'";
    let signals = call("AddMatch").build(&rule).expect("a message");
    for message in [hello, signals] {
        socket.write_all(message.data()).expect("written");
    }
    socket
}

#[test]
fn a_client_that_never_reads_costs_bounded_memory() {
    let bus = Bus::session();
    let a = on_bus(stopped_grant_site(), &bus, "session");
    let name = "io.skupper.Skupper1";
    let dump = zbus::Message::method_call("/io/skupper/Skupper1", "Dump")
        .destination(name)
        .interface(name)
        .build(&())
        .expect("a message");
    let before = resident(a.pid());
    let mut clients: Vec<_> = (0..5).map(|_| deaf(&bus)).collect();
    for socket in &mut clients {
        socket
            .set_write_timeout(Some(Duration::from_millis(200)))
            .expect("a timeout");
        for _ in 0..2000 {
            // The bus stops reading from such a client, or disconnects it.
            if socket.write_all(dump.data()).is_err() {
                break;
            }
        }
    }
    // Signals that nothing reads: create and delete a resource, each time with a status.
    for n in 0..200 {
        a.connector(&format!("c{}", n % 20), "key", free_addr());
        if n % 20 == 19 {
            bus.call(&["Reload"]).expect("others are served");
        }
    }
    let begin = Instant::now();
    bus.call(&["Dump"]).expect("others are served");
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    let after = resident(a.pid());
    println!("resident {before} bytes, then {after}");
    assert!(after < before + GROWTH, "{before} -> {after}");
    drop(clients);
}

#[test]
fn unknown_users_may_only_read() {
    if !nix::unistd::geteuid().is_root() {
        skip("calls as other users need root");
        return;
    }
    // No account has this number.
    const NOBODY: u32 = 3_000_000_001;
    let bus = Bus::system();
    let a = on_bus(stopped_grant_site(), &bus, "system");
    let call = |args: &[&str]| {
        let name = "io.skupper.Skupper1";
        let words = [&["call", name, "/io/skupper/Skupper1", name], args].concat();
        output_text(&bus.as_user(Some(NOBODY), &words))
    };
    for args in [
        &["Apply", "ss", "default", "{}"][..],
        &["Delete", "sss", "default", "Site", "a"],
        &["DeleteNamespace", "s", "default"],
        &["IssueToken", "sa{sv}", "default", "0"],
        &["Drain"],
    ] {
        let said = call(args).expect_err("refused");
        // Either the service refuses, or the bus, which requires an account.
        assert!(
            said.contains("cannot ask polkit")
                || said.contains("Access denied")
                || said.contains("Permission denied")
                || said.contains("Transport endpoint is not connected")
                || said.contains("Connection reset"),
            "{args:?}: {said}"
        );
    }
    assert_eq!(a.wait_status("Site", "a", "Ready"), "OK");
}
