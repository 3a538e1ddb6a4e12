//! Connectors that select units of a real systemd, with the daemon as the packages install it: a user
//! of its own that sees no other process.

use skupper_tests::{
    SOON,
    machine::{Machine, install},
    wait_until,
};

/// Asks a server for its name until it is told to end, and says what it has heard.
const CLIENT: &str = r#"
while ! test -e /root/end; do
    heard=$(echo who | timeout 10 socat -t 10 - TCP:127.0.0.1:7000 2>&1)
    case $heard in
        1) ones=$((ones + 1)) ;;
        2) twos=$((twos + 1)) ;;
        *) failed="$failed($heard)" ;;
    esac
done
echo "ones: $ones twos: $twos failed: $failed."
"#;

/// Says its name to everybody. It is ready late when it is told to be.
const SERVER: &str = r#"
socat TCP-LISTEN:700$1,bind=127.0.0.1,fork,reuseaddr,backlog=128 SYSTEM:"read x; echo $1" &
while test -e /run/late; do sleep 0.05; done
systemd-notify --ready
wait
"#;

/// The stop waits until no more connections come: what is in the queue of a socket that is closed would
/// be lost.
const UNIT: &str =
    "[Service]\nType=notify\nNotifyAccess=all\nExecStart=sh /root/server %i\nExecStop=sleep 1\n";

fn write(machine: &Machine, path: &str, text: &str) {
    std::fs::write(machine.root().join(path), text).expect("a file");
}

fn shows(machine: &Machine, what: &str, holds: impl Fn(&str) -> bool) {
    wait_until(what, SOON, || {
        let output = machine.run("skupper connector status web");
        holds(&String::from_utf8_lossy(&output.stdout))
    });
}

fn units_are_followed(suite: &str) {
    let Some(machine) = install(suite) else {
        return;
    };
    write(&machine, "root/client", CLIENT);
    write(&machine, "root/server", SERVER);
    write(&machine, "etc/systemd/system/web@.service", UNIT);
    machine.ok("systemctl daemon-reload");
    machine.ok("skupper site create here");
    machine.ok("skupper listener create web 7000 --host 127.0.0.1");
    // Every port of them but none of anybody else's.
    machine.ok("skupper connector create web 0 --workload 'unit/web@*.service' --wait none");
    shows(&machine, "no unit", |s| {
        s.contains("No servers: unit=web@*.service is not running")
    });
    machine.ok("systemctl start web@1");
    shows(&machine, "one unit", |s| {
        s.contains("web@1.service 127.0.0.1:7001")
    });
    // A unit that listens and is not ready yet is left alone, unless one wants it.
    machine.ok("touch /run/late && systemctl start --no-block web@2");
    wait_until("a listening socket", SOON, || {
        machine.run("ss -Hltn | grep -q :7002").status.success()
    });
    machine.ok("systemctl stop web@1");
    shows(&machine, "a unit that is not ready", |s| {
        s.contains("Not ready: web@2.service is activating")
    });
    machine.ok("skupper connector update web --include-not-ready --wait none");
    shows(&machine, "a unit that is used all the same", |s| {
        s.contains("127.0.0.1:7002")
    });
    machine.ok("skupper connector update web --include-not-ready=false --wait none");
    machine.ok("rm /run/late && systemctl start web@1");
    shows(&machine, "both", |s| {
        s.contains(":7001") && s.contains(":7002")
    });
    // Each is restarted under load while the other is up: no request fails.
    machine.ok(
        "systemd-run --quiet --unit=load --collect --property=StandardOutput=file:/root/said \
         sh /root/client /root/end",
    );
    for unit in ["web@1", "web@2", "web@1"] {
        machine.ok(&format!("systemctl restart {unit}"));
        shows(&machine, "both", |s| {
            s.contains(":7001") && s.contains(":7002")
        });
    }
    machine.ok("touch /root/end");
    wait_until("the client's report", SOON, || {
        machine.run("test -s /root/said").status.success()
    });
    let said = machine.ok("cat /root/said");
    assert!(said.contains("failed: ."), "{said}");
    assert!(
        !said.contains("ones:  ") && !said.contains("twos:  "),
        "{said}"
    );
    // By slice, and by user.
    machine.ok("skupper connector update web --workload slice/system-web.slice --port 7002");
    shows(&machine, "by slice", |s| {
        s.contains(":7002") && !s.contains(":7001")
    });
    machine.ok(
        "systemd-run --quiet --unit=lone --uid=nobody socat TCP-LISTEN:7009,bind=127.0.0.1,fork,reuseaddr EXEC:cat",
    );
    machine.ok("skupper connector update web --selector uid=65534 --port 7009");
    shows(&machine, "by user", |s| {
        s.contains("lone.service 127.0.0.1:7009")
    });
    // What it may not see it says.
    machine
        .ok("skupper connector update web --selector exe=/usr/bin/socat --port 7009 --wait none");
    shows(&machine, "by executable", |s| {
        s.contains("may not look into processes of other users")
    });
    machine.ok(
        "systemd-run --quiet --unit=apart --property=PrivateNetwork=yes \
         socat TCP-LISTEN:7009,bind=127.0.0.1,fork,reuseaddr EXEC:cat",
    );
    machine.ok("skupper connector update web --workload unit/apart --port 7009 --wait none");
    shows(&machine, "a unit with a network of its own", |s| {
        s.contains(
            "apart.service is running, and listens on TCP port 7009 not in the network namespace",
        )
    });
}

#[test]
fn v36_units_of_a_real_systemd_are_followed_on_debian_12() {
    units_are_followed("bookworm");
}

#[test]
fn v37_units_of_a_real_systemd_are_followed_on_debian_13() {
    units_are_followed("trixie");
}
