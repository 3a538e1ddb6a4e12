//! Every D-Bus method by busctl, as root, as a member of the group and as another user; and the
//! host before installation and after removal.

use skupper_tests::{
    SOON,
    machine::{Machine, install_into},
    wait_until,
};
use std::collections::BTreeSet;

const XML: &str =
    include_str!("../../packaging/root/usr/share/dbus-1/interfaces/io.skupper.Skupper1.xml");

/// A successful call of each method in the named namespace, in this order. `%t` is the result of
/// IssueToken.
const CALLS: [&str; 17] = [
    "Apply ss NS '{apiVersion: skupper.io/v2alpha1, kind: Listener, metadata: {name: l}, spec: {routingKey: k, host: 127.0.0.1, port: PORT}}'",
    "ApplyWith ssa{sv} NS '{apiVersion: skupper.io/v2alpha1, kind: Listener, metadata: {name: m}, spec: {routingKey: k, host: 127.0.0.1, port: 1PORT}}' 1 create-only b true",
    "InputErrors s NS",
    "Update ssss NS Listener l '{\"spec\": {\"routingKey\": \"other\"}}'",
    "List ss NS Listener",
    "Dump",
    "Steering",
    "GenerateLink sa{sv} NS 1 host s 127.0.0.1",
    "IssueToken sa{sv} NS 1 name s NS",
    "RedeemToken ss other \"$(cat /srv/token)\"",
    "ListIssuers s NS",
    "RevokeLink ss NS link-s",
    "RotateIssuers ss NS 1h",
    "Delete sss NS Listener l",
    "Reload",
    "DeleteNamespace s NS",
    "Drain",
];
/// Methods that every user may call.
const READING: [&str; 5] = ["List", "InputErrors", "ListIssuers", "Dump", "Steering"];

fn word(call: &str) -> &str {
    call.split(' ').next().expect("a word")
}

#[test]
fn root_and_members_may_call_every_method_and_others_may_read() {
    let methods: BTreeSet<&str> = XML
        .split("<method name=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    let called: BTreeSet<&str> = CALLS.iter().map(|call| word(call)).collect();
    assert_eq!(called, methods, "each method is tried");
    for suite in ["bookworm", "trixie"] {
        let Some(machine) = Machine::boot(suite) else {
            return;
        };
        // An address that other hosts could reach.
        machine.ok("ip address add 198.18.0.1/32 dev lo");
        let before = host(&machine);
        if !install_into(&machine) {
            return;
        }
        each_user_can_do_what_is_allowed(&machine, suite);
        // Create traces of an address range, of steering and of a second namespace too.
        machine.ok("skupper site create here --timeout 60s");
        machine.ok("busctl call io.skupper.Skupper1 /io/skupper/Skupper1 io.skupper.Skupper1 Update ssss \
             default Site here '{\"spec\": {\"settings\": {\"service-addresses\": \"198.18.7.0/24\"}}}'");
        wait_until("the addresses", SOON, || {
            host(&machine).contains("198.18.7.0/24")
        });
        machine.ok("dpkg --purge skupper skupperd; userdel member; userdel stranger; rm /srv/*");
        let after = host(&machine);
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        let (before, after) = (lines(&before), lines(&after));
        let new: Vec<_> = after.difference(&before).collect();
        let gone: Vec<_> = before.difference(&after).collect();
        assert!(
            new.is_empty() && gone.is_empty(),
            "{suite}: new {new:?}, gone {gone:?}"
        );
    }
}

/// Everything on a host where a package may leave traces: files, routes, pinned BPF objects, bus
/// names, users, units, sockets.
fn host(machine: &Machine) -> String {
    machine.ok(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /root -o -path /var/log \
           -o -path /var/cache -o -path /var/lib/apt -o -path '/var/lib/dpkg/*' -o -path '/run/*' \
           -o -path '/tmp/*' -o -path '/var/tmp/*' -o -path /var/lib/systemd -o -path '/etc/*-' \
           -o -name .pwd.lock -o -path '/var/cache/*' \\) -prune -o -print; \
         find /sys/fs/bpf /run/skupper 2> /dev/null; \
         ip route show table all | sed 's/ proto .*//'; \
         busctl list --acquired --activatable --no-legend | awk '{ print \"bus\", $1 }' | grep -v ' :1\\.' || true; \
         getent passwd | sed 's/^/user /'; getent group | sed 's/^/group /'; \
         systemctl list-unit-files --no-legend | awk '{ print \"unit\", $1, $2 }'; \
         ss -Hltn | awk '{ print \"port\", $4 }'",
    )
}

fn each_user_can_do_what_is_allowed(machine: &Machine, suite: &str) {
    machine.ok("useradd --groups skupper member; useradd stranger");
    machine.ok("skupper -n other site create other --timeout 60s");
    for (number, user) in ["root", "member", "stranger"].into_iter().enumerate() {
        let (space, port) = (format!("of-{user}"), format!("{}", 7100 + number));
        machine.ok(&format!(
            "skupper -n {space} site create s --enable-link-access --timeout 60s"
        ));
        machine.ok("rm -f /srv/token; echo '{}' > /srv/token; chmod 666 /srv/token");
        for call in CALLS {
            let name = word(call);
            let line = call.replace("NS", &space).replace("PORT", &port);
            let line = format!(
                "busctl --timeout=60 call io.skupper.Skupper1 /io/skupper/Skupper1 io.skupper.Skupper1 {line}"
            );
            let script = format!("#!/bin/sh\n{line}\n");
            std::fs::write(machine.root().join("srv/call"), script).expect("a script");
            let output = machine.run(&format!("runuser -u {user} -- sh /srv/call"));
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let errors = text(&output.stderr);
            let may = user != "stranger" || READING.contains(&name);
            assert_eq!(
                output.status.success(),
                may,
                "{suite}: {user}, {name}: {errors}"
            );
            if !may {
                assert!(
                    errors.contains("authentication is required"),
                    "{user}, {name}: {errors}"
                );
            }
            if name == "IssueToken" && may {
                let said = text(&output.stdout);
                let quoted = said.trim().strip_prefix("s ").expect("a text");
                let token: String =
                    serde_json::from_str(&quoted.replace("\\'", "'")).expect("a token");
                std::fs::write(machine.root().join("srv/token"), token).expect("a file");
            }
        }
        // The next call activates the stopped service. Before its end it would still answer.
        if user != "stranger" {
            wait_until("the end of the service", SOON, || {
                let active = machine.run("systemctl is-active --quiet skupperd");
                !active.status.success()
            });
        }
        machine.ok(
            "busctl --timeout=60 call io.skupper.Skupper1 /io/skupper/Skupper1 \
             org.freedesktop.DBus.Peer Ping",
        );
    }
    let kept = machine.ok("ls /etc/skupper/namespaces");
    assert_eq!(
        kept.split_whitespace().collect::<Vec<_>>(),
        ["of-stranger", "other"]
    );
    let tree = machine.ok("busctl tree io.skupper.Skupper1");
    assert!(
        tree.contains("/io/skupper/Skupper1/other/Site/other"),
        "{tree}"
    );
}
