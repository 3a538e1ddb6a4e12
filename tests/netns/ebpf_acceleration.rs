//! The BPF programs of acceleration without a daemon. Each test has its own network namespace and
//! cgroup.

#![cfg(feature = "ebpf")]

use super::acceleration;
use nix::errno::Errno;
use skupper_ebpf::hop::{HopCounters, Tuple};
use skupper_tests::{netns, skip::skip};
use skupperd::{
    steer::accel::{Programs, Rules},
    sys,
};
use std::{
    env,
    error::Error as _,
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    process::{self, Command},
    thread,
    time::Duration,
};

/// The address of the accelerated "daemon" of these tests.
pub(crate) const HERE: &str = "127.0.0.1:7000";

const HERE6: &str = "[::1]:7000";

/// The first bytes of a TLS handshake, which make a direction fall back to TCP.
pub(crate) const TO_TCP: [u8; 3] = [0x16, 3, 1];

/// Environment variable with the cgroup for the part of a test that runs with few capabilities.
const INNER: &str = "SKUPPER_TEST_INNER";

/// A cgroup with this process in it; dropping it moves the process out.
pub(crate) struct Cgroup {
    dir: PathBuf,
}

impl Cgroup {
    fn enter() -> Option<Self> {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let Some(root) = mounts.into_iter().find(|m| m.join("cgroup.procs").exists()) else {
            skip("no cgroup v2 here");
            return None;
        };
        let dir = root.join(format!("skupper-test-{}", process::id()));
        fs::create_dir(&dir).expect("a cgroup");
        let cgroup = Self { dir };
        cgroup.take(&cgroup.dir);
        Some(cgroup)
    }

    fn take(&self, dir: &Path) {
        fs::write(dir.join("cgroup.procs"), process::id().to_string()).expect("a move");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.take(self.dir.parent().expect("a parent"));
        // Its sockets may still be closing.
        drop(fs::remove_dir(&self.dir));
    }
}

pub(crate) fn rules(netns: u64) -> Rules {
    Rules {
        netns,
        ahead: 16 * 1024,
        streak: 8 * 1024,
        directions: Rules::BOTH,
        fault: false,
    }
}

pub(crate) fn load(
    dir: &Path,
    change: impl Fn(&mut Rules),
) -> Result<(Programs, TcpListener), String> {
    let listener = TcpListener::bind(HERE).map_err(|e| e.to_string())?;
    let netns = sys::netns_cookie(listener.as_fd()).map_err(|e| e.to_string())?;
    let mut rules = rules(netns);
    change(&mut rules);
    let cgroup = File::open(dir).map_err(|e| e.to_string())?;
    let loaded = Programs::load(cgroup.as_fd(), rules);
    let mut programs = loaded.map_err(|error| {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        text
    })?;
    let here: SocketAddr = HERE.parse().expect("an address");
    let set = programs.listen(here.ip(), 32, here.port(), true);
    set.map_err(|e| e.to_string())?;
    Ok((programs, listener))
}

/// The programs, and a listener whose connections they accelerate. `None`, after a skip, without
/// eBPF.
pub(crate) fn accelerated(change: impl Fn(&mut Rules)) -> Option<(Programs, TcpListener, Cgroup)> {
    if !netns::enter() {
        return None;
    }
    let cgroup = Cgroup::enter()?;
    match load(&cgroup.dir, change) {
        Ok((programs, listener)) => Some((programs, listener, cgroup)),
        Err(e)
            if [Errno::EPERM, Errno::ENOSYS]
                .iter()
                .any(|n| e.contains(n.desc())) =>
        {
            skip(&format!("no BPF programs here, not even for root: {e}"));
            None
        }
        Err(e) => panic!("{e}"),
    }
}

/// Both ends of a connection: the client's and the daemon's.
pub(crate) fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let program = TcpStream::connect(listener.local_addr().expect("an address"));
    let program = program.expect("a connection");
    let (daemon, _) = listener.accept().expect("a connection");
    for socket in [&program, &daemon] {
        socket.set_nodelay(true).expect("an option");
        let long = Some(Duration::from_secs(5));
        socket.set_read_timeout(long).expect("an option");
    }
    (program, daemon)
}

pub(crate) fn receive(socket: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut got = vec![0; bytes];
    socket.read_exact(&mut got).expect("bytes");
    got
}

/// The key of a socket in the maps of the programs.
pub(crate) fn tuple(socket: &TcpStream) -> Tuple {
    let own = socket.local_addr().expect("its own address");
    Tuple::of(own, socket.peer_addr().expect("the other"))
}

pub(crate) fn counted(programs: &Programs) -> HopCounters {
    programs.hops().read().expect("counters")
}

/// Echoes on any number of connections.
pub(crate) fn echo(listener: TcpListener) {
    thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(socket) = socket else { return };
            thread::spawn(move || acceleration::echo(socket));
        }
    });
}

#[test]
fn small_messages_are_redirected_both_ways() {
    let Some((programs, listener, _cgroup)) = accelerated(|_| {}) else {
        return;
    };
    let (mut program, mut daemon) = pair(&listener);
    for _ in 0..10 {
        program.write_all(b"question").expect("sent");
        assert_eq!(receive(&mut daemon, 8), b"question");
        daemon.write_all(b"answer").expect("sent");
        assert_eq!(receive(&mut program, 6), b"answer");
    }
    let after = counted(&programs);
    assert_eq!((after.messages, after.bytes), (20, 140));
    assert_eq!((after.sockets, after.bulk, after.late), (2, 0, 0));
    drop((program, daemon));
    assert_eq!(programs.sockets(), []);
}

#[test]
fn other_connections_are_not_touched() {
    let Some((programs, _listener, cgroup)) = accelerated(|_| {}) else {
        return;
    };
    // Another port, another address, and another cgroup are not accelerated.
    for at in ["127.0.0.1:7001", "127.0.0.2:7000"] {
        let other = TcpListener::bind(at).expect("an address");
        let (mut a, mut b) = pair(&other);
        a.write_all(b"theirs").expect("sent");
        assert_eq!(receive(&mut b, 6), b"theirs");
        assert_eq!(programs.sockets(), []);
    }
    assert_eq!(counted(&programs), HopCounters::default());
    // In another network namespace on the same address.
    thread::spawn(|| {
        assert!(netns::enter());
        let other = TcpListener::bind(HERE).expect("an address");
        let (mut a, mut b) = pair(&other);
        a.write_all(b"theirs").expect("sent");
        assert_eq!(receive(&mut b, 6), b"theirs");
    })
    .join()
    .expect("untouched");
    assert_eq!(counted(&programs), HopCounters::default());
    drop(cgroup);
}

#[test]
fn own_connections_are_known_by_their_sockets() {
    let Some((mut programs, _listener, _cgroup)) = accelerated(|_| {}) else {
        return;
    };
    let server = TcpListener::bind("127.0.0.1:7001").expect("an address");
    let to = server.local_addr().expect("an address");
    let ours = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let ours = ours.expect("a socket");
    programs
        .connecting(ours.cookie().expect("a cookie"))
        .expect("announced");
    // Another client of the same server is faster.
    let (_other, _) = pair(&server);
    assert_eq!(programs.sockets(), []);
    ours.connect(&to.into()).expect("a connection");
    let mut ours = TcpStream::from(ours);
    let (mut program, _) = server.accept().expect("a connection");
    assert_eq!(programs.sockets().len(), 2);
    ours.write_all(b"question").expect("sent");
    assert_eq!(receive(&mut program, 8), b"question");
    program.write_all(b"answer").expect("sent");
    assert_eq!(receive(&mut ours, 6), b"answer");
    assert_eq!(counted(&programs).messages, 2);
}

#[test]
fn ends_and_resets_arrive_after_the_data() {
    let Some((programs, listener, _cgroup)) = accelerated(|_| {}) else {
        return;
    };
    // A half-close leaves the other direction open.
    let (mut program, mut daemon) = pair(&listener);
    program.write_all(b"question").expect("sent");
    program.shutdown(Shutdown::Write).expect("shut");
    assert_eq!(receive(&mut daemon, 8), b"question");
    assert_eq!(daemon.read(&mut [0; 1]).expect("an end"), 0);
    daemon.write_all(b"answer").expect("sent");
    drop(daemon);
    let mut all = Vec::new();
    program.read_to_end(&mut all).expect("all");
    assert_eq!(all, b"answer");
    // A reset does not overtake data.
    let (mut program, mut daemon) = pair(&listener);
    daemon.write_all(b"last words").expect("sent");
    let now = socket2::SockRef::from(&daemon).set_linger(Some(Duration::ZERO));
    now.expect("an option");
    drop(daemon);
    assert_eq!(receive(&mut program, 10), b"last words");
    let reset = program.read(&mut [0; 1]).expect_err("a reset");
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    assert!(counted(&programs).messages >= 3);
}

#[test]
fn ipv6_is_redirected() {
    let Some((mut programs, _listener, _cgroup)) = accelerated(|_| {}) else {
        return;
    };
    let here: SocketAddr = HERE6.parse().expect("an address");
    let listener = TcpListener::bind(here).expect("an address");
    programs
        .listen(here.ip(), 128, here.port(), true)
        .expect("set");
    let (mut program, mut daemon) = pair(&listener);
    program.write_all(b"question").expect("sent");
    assert_eq!(receive(&mut daemon, 8), b"question");
    daemon.write_all(b"answer").expect("sent");
    assert_eq!(receive(&mut program, 6), b"answer");
    assert_eq!(counted(&programs).messages, 2);
    assert!(programs.sockets().contains(&tuple(&program)));
    // A listener on all addresses, with one address excluded.
    let port = 7001;
    programs
        .listen("::".parse().expect("all"), 0, port, true)
        .expect("set");
    let listener = TcpListener::bind(("::1", port)).expect("an address");
    let (mut program, mut daemon) = pair(&listener);
    program.write_all(b"question").expect("sent");
    assert_eq!(receive(&mut daemon, 8), b"question");
    assert_eq!(counted(&programs).messages, 3);
    programs.listen(here.ip(), 128, port, false).expect("set");
    let (mut program, mut daemon) = pair(&listener);
    program.write_all(b"question").expect("sent");
    assert_eq!(receive(&mut daemon, 8), b"question");
    assert_eq!(counted(&programs).messages, 3);
}

#[test]
fn a_longer_prefix_with_all_ports_hides_a_shorter_one() {
    let Some((mut programs, _listener, _cgroup)) = accelerated(|_| {}) else {
        return;
    };
    let ip = |text: &str| text.parse().expect("an address");
    let taken_up = |programs: &Programs, at: &str| {
        let before = counted(programs).sockets;
        let listener = TcpListener::bind(at).expect("an address");
        let _pair = pair(&listener);
        counted(programs).sockets > before
    };
    programs.listen(ip("0.0.0.0"), 0, 80, true).expect("set");
    programs.listen(ip("127.0.3.0"), 24, 0, true).expect("set");
    assert!(taken_up(&programs, "127.0.2.1:80"));
    assert!(!taken_up(&programs, "127.0.3.1:80"));
    // A single port takes precedence over all ports.
    programs.listen(ip("127.0.3.0"), 24, 80, true).expect("set");
    assert!(taken_up(&programs, "127.0.3.2:80"));
    programs
        .listen(ip("127.0.3.3"), 32, 80, false)
        .expect("set");
    assert!(!taken_up(&programs, "127.0.3.3:80"));
}

#[test]
fn loads_and_attaches_with_the_capabilities_of_the_unit() {
    if let Some(dir) = env::var_os(INNER) {
        let loaded = load(Path::new(&dir), |_| {});
        let (programs, listener) = loaded.expect("loaded");
        let (mut program, mut daemon) = pair(&listener);
        program.write_all(b"short").expect("sent");
        assert_eq!(receive(&mut daemon, 5), b"short");
        assert_eq!(counted(&programs).messages, 1);
        return;
    }
    let Some((programs, listener, cgroup)) = accelerated(|_| {}) else {
        return;
    };
    drop((programs, listener));
    // Copy the program: another user may not be able to reach its path.
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), mode(0o755)).expect("a mode");
    let program = dir.path().join("test");
    fs::copy(env::current_exe().expect("a path"), &program).expect("a copy");
    assert_eq!(fs::metadata(&cgroup.dir).expect("a cgroup").uid(), 0);
    let status = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args(["--inh-caps", "-all,+bpf,+net_admin"])
        .args(["--ambient-caps", "-all,+bpf,+net_admin"])
        .args(["--bounding-set", "-all,+bpf,+net_admin", "--no-new-privs"])
        .arg(&program)
        .args([
            "--exact",
            "loads_and_attaches_with_the_capabilities_of_the_unit",
        ])
        .arg("--nocapture")
        .env(INNER, &cgroup.dir)
        .status()
        .expect("setpriv");
    assert!(status.success(), "{status}");
}

fn mode(bits: u32) -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    fs::Permissions::from_mode(bits)
}
