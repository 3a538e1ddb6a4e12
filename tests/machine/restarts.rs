//! Kills, restarts and upgrades the daemon under systemd: clients wait, and none is refused.

use skupper_tests::{
    SOON,
    echo::{Server, connect, refused, round_trip, works},
    machine::{Machine, install},
    wait_until,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const PINS: &str = "/sys/fs/bpf/skupper/system";

/// Sequential clients, each with its own connection.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
    slowest: Arc<Mutex<Duration>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(addrs: &[SocketAddr]) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            served: Arc::default(),
            failed: Arc::default(),
            slowest: Arc::default(),
            threads: Vec::new(),
        };
        for addr in addrs.iter().flat_map(|addr| [*addr; 3]) {
            let (stop, served) = (load.stop.clone(), load.served.clone());
            let (failed, slowest) = (load.failed.clone(), load.slowest.clone());
            load.threads.push(thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let begin = Instant::now();
                    let mut phase = "connecting";
                    let result = connect(addr).and_then(|mut socket| {
                        phase = "talking";
                        round_trip(&mut socket, addr.to_string().as_bytes())
                    });
                    let took = begin.elapsed();
                    match result {
                        Ok(back) if back == addr.to_string().as_bytes() => {
                            served.fetch_add(1, Ordering::SeqCst);
                        }
                        other => {
                            let text = format!("{addr}: {phase}: {other:?} after {took:?}");
                            failed.lock().expect("a list").push(text);
                        }
                    }
                    let mut slowest = slowest.lock().expect("a time");
                    *slowest = slowest.max(took);
                }
            }));
        }
        load
    }

    /// Waits until this many further clients are served.
    fn more(&self, more: usize) {
        let seen = self.served.load(Ordering::SeqCst);
        wait_until("clients to be served", SOON, || {
            self.served.load(Ordering::SeqCst) >= seen + more
        });
    }

    /// Checks that no client failed. `allowed`: the error that connections get when they are cut.
    #[track_caller]
    fn end(self, what: &str, allowed: &str) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("a client");
        }
        let served = self.served.load(Ordering::SeqCst);
        let slowest = *self.slowest.lock().expect("a time");
        println!("{what}: {served} clients served, the slowest in {slowest:?}");
        let failed = self.failed.lock().expect("a list");
        let bad: Vec<_> = failed
            .iter()
            .filter(|text| allowed.is_empty() || !text.contains(allowed))
            .collect();
        assert!(bad.is_empty(), "{what}: {bad:#?}");
    }
}

/// Listeners that need steering, one for each site of the machine.
const LISTENERS: [(&str, &str); 2] = [
    (
        "default",
        "---
apiVersion: skupper.io/v2alpha1
kind: Listener
metadata: {name: range}
spec: {routingKey: echo, host: 127.0.0.9, port: 8000, settings: {ports: '8000-8003'}}
---
apiVersion: skupper.io/v2alpha1
kind: Listener
metadata: {name: all}
spec: {routingKey: echo, host: 127.0.0.10, port: 80, settings: {ports: all}}
",
    ),
    (
        "other",
        "---
apiVersion: skupper.io/v2alpha1
kind: Listener
metadata: {name: prefix}
spec: {routingKey: echo, host: 127.20.0.1, port: 443, settings: {host-prefix: 127.20.0.0/16}}
",
    ),
];

/// A machine with a service on 127.0.0.7:80 through a local connector, and on 127.0.0.8:80 through
/// a link between two of its sites; with steering, also on a port range, a prefix and all ports.
/// The thread moves into the machine's network namespace.
fn machine(suite: &str, options: &str) -> Option<(Machine, Server, Vec<SocketAddr>)> {
    let machine = install(suite)?;
    if !options.is_empty() {
        machine.ok(&format!(
            "echo 'SKUPPERD_OPTIONS={options}' >> /etc/default/skupperd; systemctl restart skupperd"
        ));
    }
    machine.enter_network();
    let server = Server::echo("127.0.0.1:7000".parse().expect("an address"));
    machine.ok("skupper site create here --enable-link-access");
    machine.ok("skupper -n other site create there");
    machine.ok("skupper connector create echo 7000 --host 127.0.0.1");
    machine.ok("skupper listener create echo 80 --host 127.0.0.7");
    machine.ok("skupper -n other listener create echo 80 --host 127.0.0.8");
    wait_until("a link", SOON, || {
        machine
            .run("skupper link generate --host 127.0.0.1 > /root/link.yaml")
            .status
            .success()
    });
    machine.ok("skupper -n other system apply -f /root/link.yaml");
    let mut addrs = vec!["127.0.0.7:80", "127.0.0.8:80"];
    if !options.contains("off") {
        for (namespace, manifest) in LISTENERS {
            machine.ok(&format!(
                "cat > /root/places.yaml <<'END'\n{manifest}END\n\
                 skupper -n {namespace} system apply -f /root/places.yaml"
            ));
        }
        addrs.extend(["127.0.0.9:8002", "127.0.0.10:4711", "127.20.3.4:443"]);
    }
    let addrs = addrs.into_iter().map(|a| a.parse().expect("an address"));
    let addrs: Vec<_> = addrs.collect();
    for addr in &addrs {
        wait_until("the service", SOON, || works(*addr));
    }
    Some((machine, server, addrs))
}

fn pid(machine: &Machine) -> String {
    machine.ok("systemctl show -P MainPID skupperd")
}

fn stored(machine: &Machine) -> usize {
    let count = machine.ok("systemctl show -P NFileDescriptorStore skupperd");
    count.trim().parse().expect("a number")
}

/// Kills the daemon several times under load. Only connections that it had accepted may fail.
fn killed(suite: &str, options: &str) {
    let Some((machine, _server, addrs)) = machine(suite, options) else {
        return;
    };
    let load = Load::on(&addrs);
    load.more(200);
    for _ in 0..3 {
        let before = pid(&machine);
        machine.ok("systemctl kill --signal=KILL skupperd");
        wait_until("the next process", SOON, || {
            let now = pid(&machine);
            now != before && now.trim() != "0"
        });
        load.more(200);
    }
    load.end(&format!("SIGKILL, {suite} {options}"), "talking");
    if options.is_empty() {
        let log = machine.ok("journalctl --unit=skupperd --output=cat");
        assert!(log.contains("clients will wait during restarts"), "{log}");
        assert!(
            log.contains("adopted programs of previous process"),
            "{log}"
        );
    }
}

#[test]
fn a_killed_daemon_refuses_no_client_on_debian_12() {
    killed("bookworm", "");
}

#[test]
fn a_killed_daemon_refuses_no_client_on_debian_13() {
    killed("trixie", "");
}

#[test]
fn a_killed_daemon_refuses_no_client_without_steering() {
    killed("bookworm", "--steering=off");
}

/// Restarts and upgrades the daemon, also with another number of workers: no new client fails.
fn restarted(suite: &str, options: &str) {
    let Some((machine, _server, addrs)) = machine(suite, options) else {
        return;
    };
    let kept = stored(&machine);
    assert!(kept > 0);
    let load = Load::on(&addrs);
    load.more(200);
    let workers = |n: usize| {
        machine.ok(&format!(
            "echo 'SKUPPERD_OPTIONS={options} --workers={n}' >> /etc/default/skupperd"
        ));
    };
    let again = "systemctl restart skupperd";
    for (workers_then, command) in [
        (2, again),
        (4, again),
        (1, "dpkg -i /root/*.deb"),
        (2, again),
    ] {
        workers(workers_then);
        let before = pid(&machine);
        machine.ok(command);
        assert_ne!(before, pid(&machine), "{command}");
        load.more(200);
    }
    load.end(&format!("restart and upgrade, {suite} {options}"), "");
    // The new process closes sockets without a listener.
    machine.ok("skupper -n other listener delete echo");
    wait_until("the listener to close", SOON, || refused(addrs[1]));
    let with_one = stored(&machine);
    machine.ok("skupper -n other listener create echo 80 --host 127.0.0.8");
    wait_until("the listener", SOON, || works(addrs[1]));
    wait_until("it to be kept", SOON, || stored(&machine) > with_one);

    // A stopped service refuses clients at once, although connections are open, and leaves no
    // sockets.
    let mut open = connect(addrs[0]).expect("a connection");
    round_trip(&mut open, b"open").expect("an echo");
    machine.ok("systemctl stop --no-block skupperd");
    wait_until("the service to refuse", Duration::from_secs(3), || {
        addrs.iter().copied().all(refused)
    });
    assert_eq!(
        machine.ok("systemctl show -P ActiveState skupperd").trim(),
        "deactivating"
    );
    round_trip(&mut open, b"still").expect("an open connection gets its time");
    drop(open);
    wait_until("the end", SOON, || {
        machine.ok("systemctl show -P ActiveState skupperd").trim() == "inactive"
    });
    assert_eq!(stored(&machine), 0);
    assert!(!machine.run(&format!("test -e {PINS}")).status.success());
    for addr in &addrs {
        drop(std::net::TcpListener::bind(addr).expect("a free address"));
    }
    machine.ok("systemctl start skupperd");
    for addr in &addrs {
        wait_until("the service", SOON, || works(*addr));
    }
}

#[test]
fn upgrades_and_restarts_refuse_no_client_on_debian_12() {
    restarted("bookworm", "");
}

#[test]
fn upgrades_and_restarts_refuse_no_client_on_debian_13() {
    restarted("trixie", "");
}

#[test]
fn upgrades_and_restarts_refuse_no_client_without_steering() {
    restarted("bookworm", "--steering=off");
}

#[test]
fn leftovers_of_a_dead_daemon_are_harmless_and_removed() {
    let Some((machine, _server, addrs)) = machine("bookworm", "") else {
        return;
    };
    assert_eq!(
        machine.ok(&format!("stat -c '%a %U' {PINS} {PINS}/*")),
        format!("750 skupper\n{}", "640 skupper\n".repeat(6))
    );
    let shown = machine.ok("skupper debug steer");
    assert!(
        shown.contains("127.0.0.7/32") && shown.contains("Steering: on"),
        "{shown}"
    );
    assert!(shown.contains("Clients in a restart: wait"), "{shown}");
    let status = machine.ok("skupper system status");
    assert!(status.contains("Steering: on"), "{status}");
    let status = machine.ok("skupper listener status echo");
    assert!(
        status.contains("Reached: steered by the kernel"),
        "{status}"
    );
    // A sweep does not remove the pins of a running daemon.
    assert!(
        machine
            .ok("skupper debug sweep")
            .contains("Nothing to remove")
    );
    assert!(works(addrs[0]));
    // The daemon is killed, is not restarted and cannot clean up.
    machine.ok("mkdir -p /run/systemd/system/skupperd.service.d");
    machine.ok(
        "printf '[Service]\\nRestart=no\\n' > /run/systemd/system/skupperd.service.d/no.conf; \
         systemctl daemon-reload; systemctl kill --signal=KILL skupperd",
    );
    wait_until("the end", SOON, || {
        machine.ok("systemctl show -P ActiveState skupperd").trim() == "failed"
    });
    wait_until("the service to refuse", SOON, || refused(addrs[0]));
    machine.ok(&format!("test -e {PINS}"));
    let other = Server::says(addrs[0], "another program");
    let heard = skupper_tests::echo::read_to_close(addrs[0]).expect("another program's service");
    assert_eq!(heard, "another program");
    drop(other);
    let swept = machine.ok("skupper debug sweep");
    let left = machine.ok("skupper debug sweep -o json");
    assert!(left.contains("\"removed\": []"), "{left}");
    assert!(swept.contains(PINS), "{swept}");
    assert!(!machine.run(&format!("test -e {PINS}")).status.success());
}
