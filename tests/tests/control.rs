//! D-Bus: every method and property, callers who may and who may not, and abuse.

use skupper_tests::{
    SOON,
    bus::{Bus, said},
    echo::{Server, works},
    free_addr, resident,
    site::Site,
    skip::skip,
    token::unstarted,
    wait_for, wait_until,
};
use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    os::unix::{fs::chown, net::UnixStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// Users that have nothing here, and that the bus knows: `daemon` and `bin`.
const STRANGER: u32 = 1;
const OTHER: u32 = 2;

/// A text from busctl, as it was: without its type and quotes.
fn unquoted(text: &str) -> String {
    let text = text.strip_prefix("s ").unwrap_or(text);
    // busctl escapes apostrophes too.
    let text = text.replace("\\'", "'");
    let value: String = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
    value
}

fn on_bus(mut site: Site, bus: &Bus, kind: &str) -> Site {
    site.start_on(bus, kind);
    wait_until("the service on the bus", SOON, || {
        bus.call(&["Dump"]).is_ok()
    });
    site
}

#[test]
fn o1_everything_can_be_done_over_the_bus() {
    let (bus_a, bus_b) = (Bus::session(), Bus::session());
    let a = on_bus(unstarted(), &bus_a, "session");
    let mut b = Site::new("b");
    b.remove("Site", "b");
    let b = {
        b.start_on(&bus_b, "session");
        b
    };
    wait_until("the service on the bus", SOON, || {
        bus_b.call(&["Dump"]).is_ok()
    });
    // A site by document.
    let site = "apiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata: {name: b}\n";
    let said = bus_b
        .call(&["Apply", "ss", "default", site])
        .expect("applied");
    assert!(said.starts_with("a(ss) 1 \"Site/b\""), "{said}");
    wait_until("the site as an object", SOON, || {
        bus_b
            .property("/default/Site/b", ".Resource", "Status")
            .as_deref()
            == Some("s \"Ready\"")
    });
    // Linked by token.
    let args = [
        "IssueToken",
        "sa{sv}",
        "default",
        "2",
        "name",
        "s",
        "east",
        "cost",
        "u",
        "3",
    ];
    let token = unquoted(&bus_a.call(&args).expect("a token"));
    assert!(token.contains("kind: AccessToken"), "{token}");
    let link = bus_b
        .call(&["RedeemToken", "ss", "default", &token])
        .expect("a link");
    assert_eq!(link, "s \"east\"");
    let property = |name: &str| bus_b.property("/default/Link/east", ".Link", name);
    wait_until("the link", SOON, || {
        property("RemoteSiteName").as_deref() == Some("s \"a\"")
    });
    assert_eq!(property("Cost").as_deref(), Some("u 3"));
    wait_until("the redemption as a property", SOON, || {
        let seen = bus_a.property("/default/AccessGrant/east", ".AccessGrant", "Redemptions");
        seen.as_deref() == Some("u 1")
    });
    // A service.
    let server = Server::echo(free_addr());
    let addr = free_addr();
    let resource = |kind: &str, addr: std::net::SocketAddr| {
        format!(
            "apiVersion: skupper.io/v2alpha1\nkind: {kind}\nmetadata: {{name: echo}}\n\
             spec: {{routingKey: echo, host: 127.0.0.1, port: {}}}\n",
            addr.port()
        )
    };
    bus_a
        .call(&[
            "Apply",
            "ss",
            "default",
            &resource("Connector", server.addr),
        ])
        .expect("applied");
    bus_b
        .call(&["Apply", "ss", "default", &resource("Listener", addr)])
        .expect("applied");
    wait_until("the service", SOON, || works(addr));
    let service = |name: &str| bus_b.property("/default/Listener/echo", ".Service", name);
    wait_until("the match", SOON, || {
        service("HasMatch").as_deref() == Some("b true")
    });
    assert_eq!(service("Port"), Some(format!("q {}", addr.port())));
    // A static link, and the rest.
    let args = [
        "GenerateLink",
        "sa{sv}",
        "default",
        "1",
        "host",
        "s",
        "127.0.0.1",
    ];
    let link = unquoted(&bus_a.call(&args).expect("a link"));
    assert!(
        link.contains("kind: Secret") && link.contains("kind: Link"),
        "{link}"
    );
    let listed = bus_b
        .call(&["List", "ss", "default", "Listener"])
        .expect("a list");
    assert!(listed.contains("routingKey"), "{listed}");
    let dump = bus_a.call(&["Dump"]).expect("a dump");
    let code = token
        .lines()
        .find_map(|l| l.trim().strip_prefix("code: "))
        .expect("a code");
    assert!(dump.contains("AccessGrant") && !dump.contains(code) && !dump.contains("PRIVATE"));
    let grants = bus_a
        .call(&["List", "ss", "default", "AccessGrant"])
        .expect("a list");
    assert!(
        grants.contains("redemptions") && !grants.contains(code),
        "{grants}"
    );
    bus_a.call(&["Reload"]).expect("reloaded");
    bus_a
        .call(&["RotateIssuers", "ss", "default", ""])
        .expect("rotated");
    wait_until("another CA", SOON, || a.log().contains("CA is replaced"));
    let revoked = bus_a
        .call(&["RevokeLink", "ss", "default", "b"])
        .expect("revoked");
    assert!(revoked.contains("\"b\""), "{revoked}");
    wait_until("the end of the link", SOON, || {
        property("RemoteSiteName").as_deref() == Some("s \"\"")
    });
    let gone = bus_b
        .call(&["Delete", "sss", "default", "Link", "east"])
        .expect("deleted");
    assert_eq!(gone, "as 2 \"Link/east\" \"Secret/east\"");
    wait_until("the object to go", SOON, || property("Cost").is_none());
    let mut b = b;
    bus_b.call(&["Drain"]).expect("ended");
    assert_eq!(b.ended(), Some(0));
}

#[test]
fn errors_are_typed_and_say_what_the_command_says() {
    let bus = Bus::session();
    let a = on_bus(unstarted(), &bus, "session");
    let bad =
        "apiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata: {name: x}\nspec: {port: 0}\n";
    let file = a.root().join("bad.yaml");
    fs::write(&file, bad).expect("a file");
    let output = a.skupper(&["system", "apply", "-f", file.to_str().expect("a path")]);
    let by_command = String::from_utf8_lossy(&output.stderr).replace(&*file.to_string_lossy(), "-");
    let by_bus = bus
        .call(&["Apply", "ss", "default", bad])
        .expect_err("refused");
    let text = by_bus.strip_prefix("Call failed: ").unwrap_or(&by_bus);
    assert_eq!(text.trim(), by_command.trim());
    let verbose = |args: &[&str]| {
        let mut all = vec![
            "--print-reply",
            "--type=method_call",
            "--dest=io.skupper.Skupper1",
            "/io/skupper/Skupper1",
        ];
        all.extend(args);
        let output = Command::new("dbus-send")
            .arg(format!("--bus={}", bus.address))
            .args(&all)
            .output();
        said(&output.expect("dbus-send")).expect_err("refused")
    };
    for (args, name) in [
        (
            vec![
                "io.skupper.Skupper1.Apply",
                "string:default",
                "string:kind: [",
            ],
            "Failed",
        ),
        (
            vec!["io.skupper.Skupper1.Apply", "string:No Name", "string:"],
            "Invalid",
        ),
        (
            vec![
                "io.skupper.Skupper1.Delete",
                "string:default",
                "string:Link",
                "string:x",
            ],
            "NotFound",
        ),
        (
            vec![
                "io.skupper.Skupper1.Delete",
                "string:default",
                "string:Lynk",
                "string:x",
            ],
            "Invalid",
        ),
        (
            vec![
                "io.skupper.Skupper1.RevokeLink",
                "string:default",
                "string:x",
            ],
            "Invalid",
        ),
        (
            vec![
                "io.skupper.Skupper1.RotateIssuers",
                "string:default",
                "string:soon",
            ],
            "Invalid",
        ),
        (
            vec![
                "io.skupper.Skupper1.RedeemToken",
                "string:default",
                "string:{}",
            ],
            "Invalid",
        ),
        (
            vec![
                "io.skupper.Skupper1.RedeemToken",
                "string:nowhere",
                "string:",
            ],
            "Invalid",
        ),
    ] {
        let said = verbose(&args);
        assert!(
            said.starts_with(&format!("Error io.skupper.Error.{name}: ")),
            "{args:?}: {said}"
        );
    }
    let options = ["GenerateLink", "sa{sv}", "default", "1", "hots", "s", "x"];
    let said = bus.call(&options).expect_err("refused");
    assert!(
        said.contains("option hots: there is no such option"),
        "{said}"
    );
    let options = ["GenerateLink", "sa{sv}", "default", "1", "cost", "s", "x"];
    let said = bus.call(&options).expect_err("refused");
    assert!(said.contains("option cost: wrong type"), "{said}");
    assert_eq!(
        fs::read_dir(a.input()).expect("input").count(),
        2,
        "nothing was written"
    );
}

#[test]
fn changes_are_told_with_their_values_and_objects_come_and_go() {
    let bus = Bus::session();
    let a = on_bus(unstarted(), &bus, "session");
    let mut monitor = Command::new("dbus-monitor")
        .args([
            "--address",
            &bus.address,
            "type='signal',sender='io.skupper.Skupper1'",
        ])
        .stdout(fs::File::create(a.root().join("signals")).expect("a file"))
        .spawn()
        .expect("dbus-monitor");
    let seen = || fs::read_to_string(a.root().join("signals")).unwrap_or_default();
    // It is listening once it has told of a change.
    let mut n = 0;
    wait_until("a signal", SOON, || {
        n += 1;
        a.connector(&format!("c{n}"), "key", free_addr());
        seen().contains("InterfacesAdded")
    });
    let addr = free_addr();
    a.listener("l", "key", addr);
    let interface = "interface=org.freedesktop.DBus.Properties; member=PropertiesChanged";
    wait_until("the listener to match", SOON, || {
        let seen = seen();
        seen.contains(interface)
            && seen.contains("/default/Listener/l")
            && seen.contains("HasMatch")
    });
    a.remove("Listener", "l");
    wait_until("the object to go", SOON, || {
        seen().contains("InterfacesRemoved")
    });
    monitor.kill().expect("killed");
    monitor.wait().expect("ended");
}

/// The interfaces of ours that an object has, as XML by name.
fn interfaces(bus: &Bus, path: &str) -> BTreeMap<String, String> {
    let output = bus.busctl(&[
        "introspect",
        "--xml-interface",
        "io.skupper.Skupper1",
        &format!("/io/skupper/Skupper1{path}"),
    ]);
    let xml = said(&output).expect("introspection");
    let mut found = BTreeMap::new();
    for part in xml.split("<interface name=\"io.skupper.").skip(1) {
        let (name, rest) = part.split_once('"').expect("a name");
        let (body, _) = rest.split_once("</interface>").expect("an end");
        let text = format!("  <interface name=\"io.skupper.{name}\"{body}</interface>\n");
        found.insert(format!("io.skupper.{name}"), text);
    }
    found
}

#[test]
fn o1_introspection_is_documented_and_as_shipped() {
    let bus = Bus::session();
    let a = on_bus(unstarted(), &bus, "session");
    a.listener("l", "key", free_addr());
    a.resource("AccessGrant", "g", "{}");
    a.link_to(&a, free_addr(), 1);
    let mut found = interfaces(&bus, "");
    for path in ["Site/a", "Listener/l", "AccessGrant/g", "Link/to_2da"] {
        let path = format!("/default/{path}");
        wait_until(&path, SOON, || {
            bus.property(&path, ".Resource", "Name").is_some()
        });
        found.extend(interfaces(&bus, &path));
    }
    assert_eq!(found.len(), 6, "{:?}", found.keys());
    let dir =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/root/usr/share/dbus-1/interfaces");
    for (name, interface) in &found {
        // What can be called or read says what it is for.
        for member in ["<method", "<property"] {
            for (before, _) in interface.match_indices(member) {
                let head = interface[..before].trim_end();
                assert!(
                    head.ends_with("-->"),
                    "{name}: {}",
                    &interface[before..][..60]
                );
            }
        }
        let text = format!(
            "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n \
             \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n<node>\n{interface}</node>\n"
        );
        let file = dir.join(format!("{name}.xml"));
        if std::env::var_os("SKUPPER_UPDATE").is_some() {
            fs::create_dir_all(&dir).expect("a directory");
            fs::write(&file, &text).expect("a file");
        }
        // Clients were written for what is shipped: a change of it is another version's.
        let shipped = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(shipped, text, "{}: see packaging/README.md", file.display());
    }
}

#[test]
fn without_polkit_only_root_and_owners_may_change_and_everybody_may_read() {
    if !nix::unistd::geteuid().is_root() {
        skip("calls as other users need root");
        return;
    }
    let bus = Bus::system();
    let a = on_bus(unstarted(), &bus, "system");
    // Reaching the programs and files is not what is tried here.
    let call = |user: u32, args: &[&str]| {
        let mut all = vec![
            "call",
            "io.skupper.Skupper1",
            "/io/skupper/Skupper1",
            "io.skupper.Skupper1",
        ];
        all.extend(args);
        said(&bus.as_user(Some(user), &all))
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
        assert!(said.contains("polkit can not be asked"), "{args:?}: {said}");
    }
    call(STRANGER, &["Dump"]).expect("everybody may read");
    call(STRANGER, &["List", "ss", "default", "Site"]).expect("everybody may read");
    // Nobody else gets the name.
    let owned = said(&bus.as_user(
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
    // A namespace that is given to somebody is theirs, and no other.
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

/// Memory that callers may make the daemon hold on to, whatever they do. What it once needed to answer
/// many at a time it keeps for the next time.
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
fn ten_thousand_calls_cost_bounded_memory_and_all_are_answered() {
    let bus = Bus::session();
    let a = on_bus(unstarted(), &bus, "session");
    bus.call(&["List", "ss", "default", "Site"])
        .expect("a list");
    let before = resident(a.pid());
    let begin = Instant::now();
    runtime().block_on(async {
        let mut callers = tokio::task::JoinSet::new();
        // As many at a time as a bus lets one client have (128 on the system's).
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
fn ten_megabytes_are_no_document_and_cost_bounded_memory() {
    let bus = Bus::session();
    let a = on_bus(unstarted(), &bus, "session");
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

/// A connection to a bus that is written to and never read from.
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
fn who_never_reads_costs_bounded_memory_and_others_go_on() {
    let bus = Bus::session();
    let a = on_bus(unstarted(), &bus, "session");
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
            // The bus stops taking from those who do not take, or throws them out.
            if socket.write_all(dump.data()).is_err() {
                break;
            }
        }
    }
    // Signals that nobody takes: a resource that comes and goes, with a status each time.
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
fn users_whom_nobody_knows_may_read_and_change_nothing() {
    if !nix::unistd::geteuid().is_root() {
        skip("calls as other users need root");
        return;
    }
    // No account has this number.
    const NOBODY: u32 = 3_000_000_001;
    let bus = Bus::system();
    let a = on_bus(unstarted(), &bus, "system");
    let call = |args: &[&str]| {
        let name = "io.skupper.Skupper1";
        let words = [&["call", name, "/io/skupper/Skupper1", name], args].concat();
        said(&bus.as_user(Some(NOBODY), &words))
    };
    for args in [
        &["Apply", "ss", "default", "{}"][..],
        &["Delete", "sss", "default", "Site", "a"],
        &["DeleteNamespace", "s", "default"],
        &["IssueToken", "sa{sv}", "default", "0"],
        &["Drain"],
    ] {
        let said = call(args).expect_err("refused");
        // By the service, or by a bus that lets in nobody without an account.
        assert!(
            said.contains("polkit can not be asked")
                || said.contains("Access denied")
                || said.contains("Permission denied")
                || said.contains("Transport endpoint is not connected")
                || said.contains("Connection reset"),
            "{args:?}: {said}"
        );
    }
    assert_eq!(a.wait_status("Site", "a", "Ready"), "OK");
}

#[test]
fn the_bus_may_come_and_go() {
    let mut bus = Bus::session();
    let mut a = on_bus(unstarted(), &bus, "session");
    a.wait_status("Site", "a", "Ready");
    // The bus ends; the site does not. Another one has the service again.
    let status = a.status("Site", "a").expect("a status");
    bus.stop();
    wait_until("the daemon to notice", SOON, || {
        a.log().contains("the bus has gone")
    });
    assert_eq!(a.status("Site", "a"), Some(status));
    assert_eq!(a.stop(), Some(0));
    let late = Bus::session();
    a.start_on(&late, "session");
    wait_for("the service again", SOON, || late.call(&["Dump"]).ok());
}
