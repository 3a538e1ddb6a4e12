//! Authorization by polkit, D-Bus activation and the watchdog, with a real systemd.

use nix::{
    sys::{ptrace, wait::WaitPidFlag, wait::waitpid},
    unistd::Pid,
};
use skupper_tests::{
    SOON,
    machine::{Machine, install},
    wait_for, wait_until,
};
use std::{
    fs,
    time::{Duration, Instant},
};

const BUS: &str = "busctl call io.skupper.Skupper1 /io/skupper/Skupper1 io.skupper.Skupper1";
const DOCUMENT: &str = "{apiVersion: skupper.io/v2alpha1, kind: Connector, metadata: {name: NAME}, \
                        spec: {routingKey: k, host: 127.0.0.1, port: 1}}";

fn apply(name: &str) -> String {
    let document = DOCUMENT.replace("NAME", name);
    format!("{BUS} Apply ss default '{document}'")
}

/// The process id of the service.
fn pid(machine: &Machine) -> String {
    machine
        .ok("systemctl show -P MainPID skupperd")
        .trim()
        .to_owned()
}

#[test]
fn polkit_allows_root_and_members_only() {
    for suite in ["bookworm", "trixie"] {
        let Some(machine) = install(suite) else {
            return;
        };
        machine.ok("useradd --groups skupper member; useradd stranger");
        machine.ok(&apply("by-root"));
        machine.ok(&format!("runuser -u member -- {}", apply("by-member")));
        machine.ok(&format!("runuser -u member -- {BUS} Reload"));
        for call in [
            apply("by-stranger"),
            format!("{BUS} GenerateLink 'sa{{sv}}' default 0"),
            format!("{BUS} Drain"),
        ] {
            let output = machine.run(&format!("runuser -u stranger -- {call}"));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success(), "{suite}: {call}");
            assert!(
                said.contains("io.skupper.") && said.contains("authentication is required"),
                "{suite}: {call}: {said}"
            );
        }
        machine.ok(&format!("runuser -u stranger -- {BUS} Dump"));
        // A namespace that belongs to another user.
        machine.ok("install -d -o skupper -g stranger -m 2770 /etc/skupper/namespaces/theirs");
        let theirs = apply("own").replace("default", "theirs");
        machine.ok(&format!("runuser -u stranger -- {theirs}"));
        let files = machine.ok("ls /etc/skupper/namespaces/default/input/resources");
        assert_eq!(
            files.split_whitespace().collect::<Vec<_>>(),
            ["Connector-by-member.yaml", "Connector-by-root.yaml"]
        );
        // Introspection shows every member of the shipped files.
        let seen = machine.ok("busctl introspect io.skupper.Skupper1 /io/skupper/Skupper1");
        for member in [
            ".Apply",
            ".IssueToken",
            ".GenerateLink",
            ".Version",
            "org.freedesktop.DBus.ObjectManager",
        ] {
            assert!(seen.contains(member), "{suite}: {member}: {seen}");
        }
        machine.ok("test -e /usr/share/dbus-1/interfaces/io.skupper.Skupper1.xml");
        machine.ok("pkaction --action-id io.skupper.manage");
        // Without polkit only root and the daemon's own user are authorized.
        machine.ok("systemctl mask --now polkit");
        machine.ok(&apply("by-root-again"));
        let output = machine.run(&format!("runuser -u member -- {}", apply("late")));
        assert!(!output.status.success(), "{suite}: it fails closed");
    }
}

#[test]
fn a_call_activates_the_service_and_a_killed_one_restarts() {
    let Some(machine) = install("bookworm") else {
        return;
    };
    machine.ok("skupper site create here");
    machine.ok("systemctl stop skupperd");
    machine.ok(&format!("{BUS} Dump"));
    machine.ok("systemctl is-active skupperd");
    wait_until("the line about the site", SOON, || {
        machine
            .ok("systemctl show -P StatusText skupperd")
            .contains("1 site")
    });
    let before = pid(&machine);
    let begin = Instant::now();
    machine.ok("systemctl kill --signal=KILL skupperd");
    wait_until("the service again", SOON, || {
        machine.run(&format!("{BUS} Dump")).status.success() && pid(&machine) != before
    });
    let back = begin.elapsed();
    println!("back {back:?} after SIGKILL");
    assert!(back < Duration::from_secs(4), "{back:?}");
    // systemctl returns once the reload is complete.
    machine.ok("systemctl reload skupperd");
    machine.ok("systemctl is-active skupperd");
    assert_eq!(
        machine.ok("systemctl show -P WatchdogUSec skupperd").trim(),
        "30s"
    );
}

/// The process id, on the host, of a process in the machine.
fn outside(machine: &Machine, inside: &str) -> i32 {
    let leader = machine.root().with_file_name("leader");
    let leader = fs::read_to_string(leader).expect("the leader");
    let space = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = space(leader.trim());
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let found = processes
        .filter_map(|p| p.file_name().into_string().ok())
        .find(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let ids = status.lines().find_map(|l| l.strip_prefix("NSpid:"));
            let inner = ids.and_then(|ids| ids.split_whitespace().last());
            inner == Some(inside) && space(pid) == own
        });
    found.and_then(|pid| pid.parse().ok()).expect("the process")
}

#[test]
fn the_watchdog_restarts_a_service_with_a_stuck_worker() {
    let Some(machine) = install("bookworm") else {
        return;
    };
    machine.ok("mkdir -p /run/systemd/system/skupperd.service.d; \
         printf '[Service]\\nWatchdogSec=2\\n' > /run/systemd/system/skupperd.service.d/soon.conf; \
         systemctl daemon-reload; systemctl restart skupperd");
    let before = pid(&machine);
    let daemon = outside(&machine, &before);
    let tasks = fs::read_dir(format!("/proc/{daemon}/task"))
        .expect("threads")
        .flatten();
    let worker = tasks.map(|t| t.path()).find(|task| {
        fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == "worker-0")
    });
    let worker = worker.and_then(|w| w.file_name()?.to_str()?.parse().ok());
    let worker = Pid::from_raw(worker.expect("a worker"));
    // Stops only this thread, as a debugger does.
    ptrace::seize(worker, ptrace::Options::empty()).expect("seized");
    ptrace::interrupt(worker).expect("stopped");
    waitpid(worker, Some(WaitPidFlag::__WALL)).expect("stopped");
    // A traced thread survives the signal of the service manager, so detach it once the signal has
    // arrived.
    wait_for("systemd to notice", SOON, || {
        let log = machine.ok("journalctl -u skupperd --no-pager -o cat");
        log.contains("Watchdog timeout").then_some(())
    });
    // If the thread has died, detaching fails and the tracer has reaped it, so the process can end.
    let _ = ptrace::detach(worker, None);
    let _ = waitpid(worker, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG));
    wait_until("another one", SOON, || {
        let _ = waitpid(worker, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG));
        let now = pid(&machine);
        now != before && now != "0" && machine.run(&format!("{BUS} Dump")).status.success()
    });
    let log = machine.ok("journalctl -u skupperd --no-pager -o cat");
    assert!(log.contains("event loops do not answer"), "{log}");
    assert!(log.contains("Watchdog timeout"), "{log}");
}
