//! D-Bus: every method, property and signal, and restarts of the bus.

use skupper_tests::{
    SOON,
    bus::{Bus, output_text},
    echo::{Server, works},
    free_addr,
    site::Site,
    token::stopped_grant_site,
    wait_for, wait_until,
};
use std::{collections::BTreeMap, fs, path::Path, process::Command};

/// A string printed by busctl, without its type and quotes.
pub(crate) fn unquoted(text: &str) -> String {
    let text = text.strip_prefix("s ").unwrap_or(text);
    // busctl escapes apostrophes too.
    let text = text.replace("\\'", "'");
    let value: String = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
    value
}

pub(crate) fn on_bus(mut site: Site, bus: &Bus, kind: &str) -> Site {
    site.start_on(bus, kind);
    wait_until("the service on the bus", SOON, || {
        bus.call(&["Dump"]).is_ok()
    });
    site
}

#[test]
fn every_operation_works_over_dbus() {
    let (bus_a, bus_b) = (Bus::session(), Bus::session());
    let a = on_bus(stopped_grant_site(), &bus_a, "session");
    let mut b = Site::new("b");
    b.remove("Site", "b");
    let b = {
        b.start_on(&bus_b, "session");
        b
    };
    wait_until("the service on the bus", SOON, || {
        bus_b.call(&["Dump"]).is_ok()
    });
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
    let link = unquoted(&bus_a.generate_link().expect("a link"));
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
    let logged = |site: &Site, event: &str, subject: &str| {
        let log = site.log();
        let mut lines = log.lines();
        lines.any(|l| l.contains(event) && l.contains(subject) && l.contains("uid="))
    };
    assert!(logged(
        &a,
        "token issued over D-Bus",
        "subject=\"AccessGrant east\""
    ));
    assert!(logged(
        &a,
        "credentials for a link issued over D-Bus",
        "namespace=\"default\""
    ));
    assert!(logged(
        &b,
        "token redeemed over D-Bus",
        "subject=\"Link east\""
    ));
    bus_a.call(&["Reload"]).expect("reloaded");
    bus_a
        .call(&["RotateIssuers", "ss", "default", ""])
        .expect("rotated");
    wait_until("another CA", SOON, || a.log().contains("CA replaced"));
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
fn errors_are_typed_with_the_commands_messages() {
    let bus = Bus::session();
    let a = on_bus(stopped_grant_site(), &bus, "session");
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
        output_text(&output.expect("dbus-send")).expect_err("refused")
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
    assert!(said.contains("option hots: unknown option"), "{said}");
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
fn property_changes_and_objects_are_signalled() {
    let bus = Bus::session();
    let a = on_bus(stopped_grant_site(), &bus, "session");
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
    // The monitor listens once it reports a change.
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

/// The `io.skupper` interfaces of an object: introspection XML by name.
fn interfaces(bus: &Bus, path: &str) -> BTreeMap<String, String> {
    let output = bus.busctl(&[
        "introspect",
        "--xml-interface",
        "io.skupper.Skupper1",
        &format!("/io/skupper/Skupper1{path}"),
    ]);
    let xml = output_text(&output).expect("introspection");
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
fn introspection_matches_the_shipped_interfaces() {
    let bus = Bus::session();
    let a = on_bus(stopped_grant_site(), &bus, "session");
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
        // Every member is documented.
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
        // Clients depend on the shipped interfaces: a change needs a new interface version.
        let shipped = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(shipped, text, "{}: see packaging/README.md", file.display());
    }
}

#[test]
fn the_daemon_survives_restarts_of_the_bus() {
    let mut bus = Bus::session();
    let mut a = on_bus(stopped_grant_site(), &bus, "session");
    a.wait_status("Site", "a", "Ready");
    // The site keeps working while the bus is down, and the daemon serves on the next bus.
    let status = a.status("Site", "a").expect("a status");
    bus.stop();
    wait_until("the daemon to notice", SOON, || {
        a.log().contains("D-Bus connection closed")
    });
    assert_eq!(a.status("Site", "a"), Some(status));
    assert_eq!(a.stop(), Some(0));
    let late = Bus::session();
    a.start_on(&late, "session");
    wait_for("the service again", SOON, || late.call(&["Dump"]).ok());
}

#[test]
fn calls_while_the_service_ends_are_answered_or_find_no_service() {
    let bus = Bus::session();
    let mut a = Site::new("a");
    for round in 0..3 {
        a.start_on(&bus, "session");
        wait_until("the service", SOON, || bus.call(&["Dump"]).is_ok());
        let calls = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..6)
                .map(|_| {
                    scope.spawn(|| {
                        let mut answered = 0;
                        loop {
                            match bus.call(&["ListIssuers", "s", "default"]) {
                                Ok(_) => answered += 1,
                                Err(error) => return (answered, error),
                            }
                        }
                    })
                })
                .collect();
            assert_eq!(bus.call(&["Drain"]), Ok(String::new()));
            let ended = callers.into_iter().map(|caller| caller.join());
            ended.collect::<Result<Vec<_>, _>>().expect("callers")
        });
        for (answered, error) in calls {
            assert!(
                error.contains("not provided by any .service files"),
                "round {round}, after {answered} answers: {error}"
            );
        }
        assert_eq!(a.ended(), Some(0));
    }
}
