//! Ports for links: link access, RouterAccess, and the fallback when a port is busy.

use serde_json::Value;
use skupper_tests::{SOON, echo::refused, free_port, netns, site::Site, wait_for, wait_until};
use std::{fs, net::TcpListener};

#[test]
fn link_access_opens_and_closes_ports() {
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
fn router_access() {
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

pub(crate) fn port(a: &Site) -> Option<u64> {
    let access = a.status("RouterAccess", "a")?;
    let endpoints = access["status"]["endpoints"].as_array()?.clone();
    let inter = |e: &&Value| e["name"] == "a-inter-router";
    endpoints.iter().find(inter)?["port"].as_str()?.parse().ok()
}

#[test]
fn a_busy_port_moves_to_the_next_free_one_and_stays() {
    // Ports must not collide with those of other tests.
    if !netns::enter() {
        return;
    }
    let holder = TcpListener::bind("0.0.0.0:55671").expect("a port");
    let mut a = Site::new("a");
    a.ok(&["site", "update", "a", "--enable-link-access"]);
    a.start();
    let chosen = wait_for("a port", SOON, || port(&a));
    assert!((55_672..55_900).contains(&chosen), "{chosen}");
    drop(holder);
    a.stop();
    fs::remove_dir_all(a.root().join("namespaces/default/runtime/resources")).expect("statuses");
    a.start();
    assert_eq!(wait_for("a port", SOON, || port(&a)), chosen);
    let link = a.ok(&["link", "generate", "--host", "127.0.0.1"]);
    assert!(link.contains(&format!("port: '{chosen}'")), "{link}");
}

#[test]
fn link_access_of_an_unknown_word_opens_no_ports() {
    let mut a = Site::new("a");
    a.resource("Site", "a", "{linkAccess: no}");
    a.start();
    wait_until("the error", SOON, || {
        a.log().contains("is \"no\", but must be none or default")
    });
    a.resource("Site", "a", "{linkAccess: NONE}");
    a.wait_status("Site", "a", "Ready");
    assert_eq!(port(&a), None);
    a.resource("Site", "a", "{linkAccess: route}");
    wait_for("ports", SOON, || port(&a));
    // The last good one stays in force.
    a.resource("Site", "a", "{linkAccess: off}");
    wait_until("the error", SOON, || a.log().contains("is \"off\""));
    assert!(port(&a).is_some());
}

/// Names in the certificate that a site shows on a port.
fn names(port: u64) -> String {
    let script = format!(
        "openssl s_client -connect 127.0.0.1:{port} < /dev/null 2> /dev/null \
         | openssl x509 -noout -ext subjectAltName"
    );
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .output()
        .expect("openssl");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn new_host_names_keep_ports_and_the_names_that_links_dial() {
    let mut a = Site::new("a");
    a.ok(&["site", "update", "a", "--enable-link-access"]);
    a.start();
    let before = wait_for("a port", SOON, || port(&a));
    let host = |name: &str| {
        let settings = format!("{{linkAccess: default, settings: {{link-access-hosts: {name}}}}}");
        a.resource("Site", "a", &settings);
        wait_until(name, SOON, || names(before).contains(name));
    };
    for number in 0..10 {
        host(&format!("h{number}.example.com"));
        assert_eq!(port(&a), Some(before));
    }
    let all = |names: &str| (0..10).all(|n| names.contains(&format!("h{n}.example.com")));
    let shown = names(before);
    assert!(shown.contains("127.0.0.1") && all(&shown), "{shown}");
    a.stop();
    // Another program takes the port: an error, and no other port.
    let holder = TcpListener::bind(("0.0.0.0", u16::try_from(before).expect("a port")));
    let holder = holder.expect("the port");
    a.start();
    a.wait_message("RouterAccess", "a", "Error", "Address already in use");
    drop(holder);
    a.wait_status("RouterAccess", "a", "Ready");
    assert_eq!(port(&a), Some(before));
    assert!(all(&names(before)));
}
