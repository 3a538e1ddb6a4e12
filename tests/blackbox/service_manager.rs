//! Notifications to the service manager: readiness, reloads, status, watchdog, stopping.

use nix::{
    sys::{ptrace, signal::Signal, wait::waitpid},
    unistd::Pid,
};
use skupper_tests::{
    SOON,
    echo::{Server, connect, round_trip, works},
    free_addr,
    site::Site,
    wait_for, wait_until,
};
use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_millis(900);

/// A fake service manager.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    /// A manager, and the environment in which a service finds it.
    fn new(site: &Site) -> (Self, Vec<(&'static str, OsString)>) {
        let path = site.root().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a timeout");
        let environment = vec![
            ("NOTIFY_SOCKET", path.into()),
            ("WATCHDOG_USEC", LIMIT.as_micros().to_string().into()),
        ];
        let heard = Vec::new();
        (Self { socket, heard }, environment)
    }

    /// Reads the notifications that have arrived, line by line.
    fn listen(&mut self) {
        let mut buf = [0; 4096];
        while let Ok(n) = self.socket.recv(&mut buf) {
            let text = String::from_utf8_lossy(&buf[..n]).into_owned();
            self.heard.extend(text.lines().map(str::to_owned));
        }
    }

    fn wait(&mut self, line: &str) {
        let begin = Instant::now();
        while !self.heard.iter().any(|l| l == line) {
            assert!(
                begin.elapsed() < SOON,
                "{line} was not said: {:?}",
                self.heard
            );
            self.listen();
        }
    }

    /// Counts watchdog notifications within this time.
    fn signs(&mut self, time: Duration) -> usize {
        self.listen();
        self.heard.clear();
        let begin = Instant::now();
        while begin.elapsed() < time {
            self.listen();
        }
        self.heard.iter().filter(|l| *l == "WATCHDOG=1").count()
    }
}

/// A site with an echo service, started by a manager, after its readiness notification.
fn ready_service() -> (Site, Server, SocketAddr, Manager) {
    let mut site = Site::new("a");
    let server = Server::echo(free_addr());
    let addr = free_addr();
    site.connector("c", "key", server.addr);
    site.listener("l", "key", addr);
    let (mut manager, environment) = Manager::new(&site);
    site.start_with_environment(&environment);
    manager.wait("READY=1");
    (site, server, addr, manager)
}

/// Finds a thread of a process by name.
fn thread(pid: u32, name: &str) -> Pid {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let found = tasks.flatten().find(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    });
    let id = found.expect("a thread").file_name();
    Pid::from_raw(id.to_str().and_then(|id| id.parse().ok()).expect("an id"))
}

#[test]
fn readiness_reloads_status_and_stopping_are_notified() {
    let (mut a, _server, _, mut manager) = ready_service();
    manager.wait("STATUS=1 site, listeners ready 1/1, connectors ready 1/1");
    a.remove("Listener", "l");
    manager.wait("STATUS=1 site, connectors ready 0/1");
    // A reload ends once the daemon has applied the files on disk.
    manager.heard.clear();
    a.signal(Signal::SIGHUP);
    manager.wait("RELOADING=1");
    manager.wait("READY=1");
    let place = |line: &str| manager.heard.iter().position(|l| l == line);
    assert!(place("RELOADING=1") < place("READY=1"));
    assert!(
        manager
            .heard
            .iter()
            .any(|l| l.starts_with("MONOTONIC_USEC="))
    );
    assert_eq!(a.stop(), Some(0));
    manager.wait("STOPPING=1");
}

#[test]
fn ready_means_that_listeners_serve() {
    let (_a, _server, addr, _manager) = ready_service();
    let mut socket = connect(addr).expect("it serves at once");
    assert_eq!(round_trip(&mut socket, b"hello").expect("works"), b"hello");
}

#[test]
fn a_stuck_event_loop_is_unhealthy_and_starves_the_watchdog() {
    for name in ["worker-0", "core", "skupperd"] {
        let mut a = Site::new("a");
        let (mut manager, environment) = Manager::new(&a);
        a.start_with_environment(&environment);
        manager.wait("READY=1");
        assert!(manager.signs(LIMIT * 2) >= 2, "signs of life");
        // Stops only this thread, as a debugger does.
        let stuck = thread(a.pid(), name);
        ptrace::seize(stuck, ptrace::Options::empty()).expect("seized");
        ptrace::interrupt(stuck).expect("stopped");
        waitpid(stuck, Some(nix::sys::wait::WaitPidFlag::__WALL)).expect("stopped");
        if name != "skupperd" {
            let health = a.http("GET /healthz");
            assert!(health.starts_with("HTTP/1.1 503"), "{health}");
            assert!(health.contains(&format!("no answer: {name}")), "{health}");
        }
        // A notification sent before the stop may still arrive.
        manager.signs(LIMIT);
        assert_eq!(manager.signs(LIMIT * 2), 0, "{name} is stuck");
        ptrace::detach(stuck, None).expect("goes on");
        wait_until("health", SOON, || {
            a.http("GET /healthz").starts_with("HTTP/1.1 200")
        });
        wait_until("signs of life again", SOON, || manager.signs(LIMIT) > 0);
        if name != "skupperd" {
            let words = format!("event loops do not answer threads=[\"{name}\"]");
            wait_for("the name in the log", SOON, || {
                a.log().contains(&words).then_some(())
            });
        }
    }
}

#[test]
fn the_watchdog_is_fed_while_connections_drain() {
    let (mut a, _server, addr, mut manager) = ready_service();
    wait_until("the service", SOON, || works(addr));
    let mut held = connect(addr).expect("a connection");
    round_trip(&mut held, b"before").expect("works");
    a.signal(Signal::SIGTERM);
    manager.wait("STOPPING=1");
    assert!(manager.signs(LIMIT * 2) >= 2, "signs of life");
    round_trip(&mut held, b"while draining").expect("works");
    drop(held);
    assert_eq!(a.ended(), Some(0));
}

#[test]
fn a_reload_under_five_hundred_connections_loses_none() {
    let (a, _server, addr, mut manager) = ready_service();
    let mut held: Vec<_> = (0..500)
        .map(|_| connect(addr).expect("a connection"))
        .collect();
    for n in 0..5 {
        manager.heard.clear();
        // Change another resource each time.
        a.connector("other", "other", free_addr());
        a.signal(Signal::SIGHUP);
        manager.wait("READY=1");
        for socket in &mut held {
            let text = format!("after {n}");
            assert_eq!(
                round_trip(socket, text.as_bytes()).expect("it goes on"),
                text.as_bytes()
            );
        }
    }
}
