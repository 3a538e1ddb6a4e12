//! Two hosts with only the packages, joined by a cable: linked by token, used, and rebooted.

use skupper_tests::{
    SOON,
    machine::{Machine, install_with},
    netns::run,
    skip::skip,
    wait_until,
};
use std::path::Path;

/// A cable between two network namespaces that machines boot into; dropping it removes it.
struct Cable {
    names: [String; 2],
}

/// Addresses of its ends, from the benchmarking range (RFC 2544).
const ADDRESSES: [&str; 2] = ["198.18.0.1", "198.18.0.2"];

impl Cable {
    fn new() -> Self {
        let id = nix::unistd::gettid();
        let names = ["w", "e"].map(|end| format!("skt{id}{end}"));
        for name in &names {
            run("ip", &["netns", "add", name]);
            run("ip", &["-n", name, "link", "set", "lo", "up"]);
        }
        let [west, east] = &names;
        run(
            "ip",
            &[
                "-n", west, "link", "add", "cable0", "type", "veth", "peer", "name", "cable0",
                "netns", east,
            ],
        );
        for (name, address) in names.iter().zip(ADDRESSES) {
            run(
                "ip",
                &[
                    "-n",
                    name,
                    "address",
                    "add",
                    &format!("{address}/30"),
                    "dev",
                    "cable0",
                ],
            );
            run("ip", &["-n", name, "link", "set", "cable0", "up"]);
        }
        Self { names }
    }

    fn option(&self, end: usize) -> String {
        format!("--network-namespace-path=/run/netns/{}", self.names[end])
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in &self.names {
            // `ip` prints its own errors, and the next namespace has another name.
            drop(
                std::process::Command::new("ip")
                    .args(["netns", "delete", name])
                    .status(),
            );
        }
    }
}

fn works(machine: &Machine, port: u16) -> bool {
    let line = format!("echo hello | timeout 5 socat -t 5 - TCP:127.0.0.1:{port}");
    let output = machine.run(&line);
    output.status.success() && output.stdout == b"hello\n"
}

#[test]
fn two_hosts_link_by_token_serve_each_other_and_survive_a_reboot() {
    if !nix::unistd::geteuid().is_root() || !Path::new("/run").exists() {
        skip("machines of their own need root");
        return;
    }
    let cable = Cable::new();
    let [west, east] = [0, 1].map(|end| {
        let suite = ["trixie", "bookworm"][end];
        let mark = ["-w", "-e"][end];
        install_with(suite, mark, &[&cable.option(end)])
    });
    let (Some(west), Some(east)) = (west, east) else {
        return;
    };
    west.ok("skupper site create west --enable-link-access");
    east.ok("skupper site create east");
    west.ok("skupper token issue /root/token.yaml --redemptions-allowed 2");
    east.copy(&west.root().join("root/token.yaml"), "/root/token.yaml");
    let said = east.ok("skupper token redeem /root/token.yaml");
    assert!(said.contains("is up: west"), "{said}");
    // One server and one client on each host.
    for (server, client, port) in [(&west, &east, 7001), (&east, &west, 7002)] {
        server.ok(&format!(
            "systemd-run --quiet --unit=echo socat TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr EXEC:cat"
        ));
        server.ok(&format!(
            "skupper connector create echo{port} {port} --host 127.0.0.1"
        ));
        client.ok(&format!(
            "skupper listener create echo{port} {port} --host 127.0.0.1"
        ));
        wait_until("the service", SOON, || works(client, port));
    }
    // An ordinary user's site links to the site of the other host.
    east.ok("useradd --create-home joe; loginctl enable-linger joe");
    let joe = |line: &str| {
        let runtime = "export XDG_RUNTIME_DIR=/run/user/$(id -u); \
                       export DBUS_SESSION_BUS_ADDRESS=unix:path=$XDG_RUNTIME_DIR/bus";
        east.run(&format!("su joe -s /bin/sh -c '{runtime}; cd; {line}'"))
    };
    wait_until("joe's service manager", SOON, || {
        joe("systemctl --user enable --now skupperd")
            .status
            .success()
    });
    assert!(joe("skupper site create joes").status.success());
    east.ok("install -m 600 -o joe /root/token.yaml /home/joe/token.yaml");
    let output = joe("skupper token redeem token.yaml");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("is up: west"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        joe("skupper listener create mine 7003 --host 127.0.0.1 --routing-key echo7001")
            .status
            .success()
    );
    wait_until("joe's service", SOON, || works(&east, 7003));
    // After a reboot everything works without further commands.
    east.reboot();
    east.ok("systemd-run --quiet --unit=echo socat TCP-LISTEN:7002,bind=127.0.0.1,fork,reuseaddr EXEC:cat");
    for port in [7001, 7003] {
        wait_until("the service again", SOON, || works(&east, port));
    }
    wait_until("the way back", SOON, || works(&west, 7002));
    let links = east.ok("skupper link status");
    assert!(links.contains("Ready") && links.contains("west"), "{links}");
}
