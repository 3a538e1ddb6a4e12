//! Connectors that select units of systemd, with the packaged daemon: it is unprivileged and cannot
//! see other processes.

use skupper_tests::{
    SOON,
    machine::{Machine, install},
    wait_until,
};

/// A client that asks for the server's name in a loop and prints the answers.
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

/// A server that sends its name. It becomes ready late if `/run/late` exists.
const SERVER: &str = r#"
socat TCP-LISTEN:700$1,bind=127.0.0.1,fork,reuseaddr,backlog=128 SYSTEM:"read x; echo $1" &
while test -e /run/late; do sleep 0.05; done
systemd-notify --ready
wait
"#;

/// The stop waits until no connections arrive: the kernel resets connections in the accept queue of
/// a closed socket.
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
    // Selects every port of these units and of no other.
    machine.ok("skupper connector create web 0 --workload 'unit/web@*.service' --wait none");
    shows(&machine, "no unit", |s| {
        s.contains("No servers: unit=web@*.service is not running")
    });
    machine.ok("systemctl start web@1");
    shows(&machine, "one unit", |s| {
        s.contains("web@1.service 127.0.0.1:7001")
    });
    // A unit that listens before it is ready is selected only with the setting.
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
    // No request fails while each unit in turn restarts under load.
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
    // The status names the processes that the daemon may not inspect.
    machine
        .ok("skupper connector update web --selector exe=/usr/bin/socat --port 7009 --wait none");
    shows(&machine, "by executable", |s| {
        s.contains("may not inspect the processes of other users")
    });
    machine.ok(
        "systemd-run --quiet --unit=apart --property=PrivateNetwork=yes \
         socat TCP-LISTEN:7009,bind=127.0.0.1,fork,reuseaddr EXEC:cat",
    );
    machine.ok("skupper connector update web --workload unit/apart --port 7009 --wait none");
    shows(&machine, "a unit with a network of its own", |s| {
        s.contains("apart.service is running but does not listen on TCP port 7009")
    });
}

#[test]
fn units_are_followed_on_debian_12() {
    units_are_followed("bookworm");
}

#[test]
fn units_are_followed_on_debian_13() {
    units_are_followed("trixie");
}
