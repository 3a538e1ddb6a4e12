//! The BPF programs of acceleration in a real kernel: each test in a network namespace and a cgroup
//! of its own, without a daemon.

#![cfg(feature = "ebpf")]

use nix::{
    errno::Errno,
    libc,
    sys::socket::{MsgFlags, send},
    unistd::gettid,
};
use skupper_ebpf::hop::{HopCounters, Tuple};
use skupper_tests::{SOON, netns, skip::skip, torture::torture, wait_until};
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
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    process::{self, Command},
    ptr,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Where the accelerated "daemon" of these tests listens.
const HERE: &str = "127.0.0.1:7000";
/// The same in IPv6.
const HERE6: &str = "[::1]:7000";
/// The first bytes of TLS: with them a direction goes over to TCP.
const TO_TCP: [u8; 3] = [0x16, 3, 1];
/// Set for the part of a test that runs with few capabilities: the cgroup it is in.
const INNER: &str = "SKUPPER_TEST_INNER";

/// A cgroup with this process in it, until dropped.
struct Cgroup {
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
        // Its sockets may still be ending.
        drop(fs::remove_dir(&self.dir));
    }
}

fn rules(netns: u64) -> Rules {
    Rules {
        netns,
        ahead: 16 * 1024,
        streak: 8 * 1024,
        ways: Rules::BOTH,
        fault: false,
    }
}

fn load(dir: &Path, change: impl Fn(&mut Rules)) -> Result<(Programs, TcpListener), String> {
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

/// The programs, and a listener whose connections they accelerate. None: that can not be had here.
fn accelerated(change: impl Fn(&mut Rules)) -> Option<(Programs, TcpListener, Cgroup)> {
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

/// A connection: the program's end, and that of the daemon.
fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
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

fn receive(socket: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut got = vec![0; bytes];
    socket.read_exact(&mut got).expect("bytes");
    got
}

/// A socket, as the programs know it.
fn tuple(socket: &TcpStream) -> Tuple {
    let own = socket.local_addr().expect("its own address");
    Tuple::of(own, socket.peer_addr().expect("the other"))
}

fn counted(programs: &Programs) -> HopCounters {
    programs.hops().read().expect("counters")
}

/// Echoes as the daemon reads: until there is nothing, and from any number of connections.
fn echo(listener: TcpListener) {
    thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            thread::spawn(move || {
                socket.set_nodelay(true).ok();
                let mut bytes = vec![0; 32 * 1024];
                loop {
                    match socket.read(&mut bytes) {
                        Ok(0) => break,
                        Ok(n) if socket.write_all(&bytes[..n]).is_err() => return,
                        Ok(_) => {}
                        // As it is with these sockets: not because there was nothing for long.
                        Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                        Err(_) => return,
                    }
                }
                socket.shutdown(Shutdown::Write).ok();
            });
        }
    });
}

#[test]
fn small_messages_take_the_short_way_in_both_directions() {
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
fn connections_of_others_are_not_touched() {
    let Some((programs, _listener, cgroup)) = accelerated(|_| {}) else {
        return;
    };
    // On another port of the same address; on another address; of another cgroup.
    for at in ["127.0.0.1:7001", "127.0.0.2:7000"] {
        let other = TcpListener::bind(at).expect("an address");
        let (mut a, mut b) = pair(&other);
        a.write_all(b"theirs").expect("sent");
        assert_eq!(receive(&mut b, 6), b"theirs");
        assert_eq!(programs.sockets(), []);
    }
    assert_eq!(counted(&programs), HopCounters::default());
    // In another network namespace on the very address.
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
fn a_connection_of_ours_is_known_by_its_socket_and_no_other() {
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
    // Somebody else is faster to the same server.
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
fn ends_and_resets_come_after_what_was_sent() {
    let Some((programs, listener, _cgroup)) = accelerated(|_| {}) else {
        return;
    };
    // A half that ends leaves the other open.
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
    // A reset does not overtake.
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
fn ipv6_takes_the_short_way_too() {
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
    // Of all addresses, and on another one that is not.
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
    // The port goes before all of them.
    programs.listen(ip("127.0.3.0"), 24, 80, true).expect("set");
    assert!(taken_up(&programs, "127.0.3.2:80"));
    programs
        .listen(ip("127.0.3.3"), 32, 80, false)
        .expect("set");
    assert!(!taken_up(&programs, "127.0.3.3:80"));
}

/// Bytes that can be read, by FIONREAD.
fn readable(socket: &TcpStream) -> libc::c_int {
    let mut bytes = 0;
    // SAFETY: the kernel writes a number to where `bytes` is.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    assert_eq!(done, 0);
    bytes
}

/// Bytes that splice moves now.
fn splice(socket: &TcpStream) -> Result<usize, Errno> {
    let (_out, into) = std::io::pipe().expect("a pipe");
    let (no, flags) = (ptr::null_mut(), libc::SPLICE_F_NONBLOCK);
    let (from, to) = (socket.as_raw_fd(), into.as_raw_fd());
    // SAFETY: no offsets are pointed to, and both descriptors are open.
    let moved = unsafe { libc::splice(from, no, to, no, 64, flags) };
    Errno::result(moved).map(|n| n as usize)
}

#[test]
fn differs_fionread_counts_only_what_came_the_short_way() {
    let Some((_programs, listener, _cgroup)) = accelerated(|_| {}) else {
        return;
    };
    let (mut program, mut daemon) = pair(&listener);
    daemon.write_all(b"abc").expect("sent");
    daemon.write_all(&TO_TCP).expect("sent");
    assert_eq!(readable(&program), 3);
    assert_eq!(receive(&mut program, 6), [b"abc", &TO_TCP[..]].concat());
}

#[test]
fn differs_splice_sees_nothing_of_what_came_the_short_way() {
    let Some((_programs, listener, _cgroup)) = accelerated(|_| {}) else {
        return;
    };
    let (mut program, mut daemon) = pair(&listener);
    daemon.write_all(b"abc").expect("sent");
    assert_eq!(program.peek(&mut [0; 8]).expect("a look"), 3);
    assert_eq!(splice(&program), Err(Errno::EAGAIN));
    assert_eq!(receive(&mut program, 3), b"abc");
}

#[test]
fn differs_urgent_data_comes_in_line() {
    let Some((programs, listener, _cgroup)) = accelerated(|_| {}) else {
        return;
    };
    let (mut program, daemon) = pair(&listener);
    let urgent = send(daemon.as_raw_fd(), b"ab!", MsgFlags::MSG_OOB);
    assert_eq!(urgent, Ok(3));
    assert_eq!(receive(&mut program, 3), b"ab!");
    assert_eq!(counted(&programs).messages, 1);
}

#[test]
fn differs_a_read_that_blocks_ends_with_eagain_at_a_reset() {
    let Some((_programs, listener, _cgroup)) = accelerated(|_| {}) else {
        return;
    };
    let (mut program, mut daemon) = pair(&listener);
    daemon.write_all(b"abc").expect("sent");
    assert_eq!(receive(&mut program, 3), b"abc");
    let (tell, told) = mpsc::channel();
    let reader = thread::spawn(move || {
        tell.send(gettid()).expect("told");
        program.read(&mut [0; 8])
    });
    let stat = format!("/proc/self/task/{}/stat", told.recv().expect("a thread"));
    wait_until("the reader to wait", SOON, || {
        let stat = fs::read_to_string(&stat).expect("its state");
        stat.rsplit(") ").next().is_some_and(|s| s.starts_with('S'))
    });
    let now = socket2::SockRef::from(&daemon).set_linger(Some(Duration::ZERO));
    now.expect("an option");
    drop(daemon);
    let ended = reader.join().expect("a thread").expect_err("an error");
    assert_eq!(ended.kind(), ErrorKind::WouldBlock);
}

#[test]
fn looking_at_bytes_leaves_them_there() {
    let Some((programs, listener, _cgroup)) = accelerated(|_| {}) else {
        return;
    };
    let (mut program, mut daemon) = pair(&listener);
    daemon.write_all(b"abc").expect("sent");
    daemon.write_all(b"def").expect("sent");
    let mut seen = [0; 8];
    assert_eq!(program.peek(&mut seen[..2]).expect("a look"), 2);
    assert_eq!(program.peek(&mut seen).expect("a look"), 6);
    assert_eq!(&seen[..6], b"abcdef");
    assert_eq!(receive(&mut program, 6), b"abcdef");
    assert_eq!(counted(&programs).messages, 2);
}

#[test]
fn a_stream_is_left_to_tcp_in_order_and_for_good() {
    let Some((mut programs, listener, _cgroup)) = accelerated(|_| {}) else {
        return;
    };
    let (mut program, mut daemon) = pair(&listener);
    // Round trips go on and on.
    for n in 1..=64 {
        program.write_all(&[1; 1024]).expect("sent");
        assert_eq!(receive(&mut daemon, 1024), [1; 1024]);
        daemon.write_all(b"more").expect("sent");
        receive(&mut program, 4);
        programs.has_read(tuple(&program), n * 1024).expect("told");
    }
    assert_eq!(
        (counted(&programs).messages, counted(&programs).bulk),
        (128, 0)
    );
    // Without an answer it is a stream from 8 KiB on.
    for n in 0..40 {
        program.write_all(&[n; 1024]).expect("sent");
    }
    let after = counted(&programs);
    assert!((128 + 7..128 + 17).contains(&after.messages), "{after:?}");
    assert_eq!(after.bulk, 1);
    for n in 0..40 {
        assert_eq!(receive(&mut daemon, 1024), [n; 1024]);
    }
    daemon.write_all(b"more").expect("sent");
    program.write_all(b"never again").expect("sent");
    assert_eq!(receive(&mut daemon, 11), b"never again");
    assert_eq!(counted(&programs).messages, after.messages + 1);
}

#[test]
fn a_reader_that_is_behind_is_left_to_tcp() {
    let streams = |rules: &mut Rules| rules.streak = u64::MAX >> 1;
    let Some((mut programs, listener, _cgroup)) = accelerated(streams) else {
        return;
    };
    let (mut program, mut daemon) = pair(&listener);
    for n in 0..40 {
        program.write_all(&[n; 1024]).expect("sent");
    }
    let after = counted(&programs);
    assert_eq!((after.messages, after.bulk), (16, 1));
    for n in 0..40 {
        assert_eq!(receive(&mut daemon, 1024), [n; 1024]);
    }
    // One whose reading is told goes on.
    let (mut program, mut daemon) = pair(&listener);
    for n in 1..=64 {
        program.write_all(&[7; 1024]).expect("sent");
        receive(&mut daemon, 1024);
        programs.has_read(tuple(&program), n * 1024).expect("told");
    }
    assert_eq!(
        (counted(&programs).messages, counted(&programs).bulk),
        (16 + 64, 1)
    );
}

#[test]
fn what_begins_with_tls_is_left_to_tcp() {
    let Some((programs, listener, _cgroup)) = accelerated(|_| {}) else {
        return;
    };
    let (mut program, mut daemon) = pair(&listener);
    program.write_all(b"STARTTLS\n").expect("sent");
    receive(&mut daemon, 9);
    program.write_all(&[0x16, 0x03, 0x01, 0, 5]).expect("sent");
    receive(&mut daemon, 5);
    daemon.write_all(&[0x17, 0x03, 0x03]).expect("sent");
    receive(&mut program, 3);
    program.write_all(b"ciphertext").expect("sent");
    receive(&mut daemon, 10);
    assert_eq!(counted(&programs).messages, 1);
}

#[test]
fn bytes_of_any_pattern_arrive_in_order() {
    let Some((programs, listener, _cgroup)) = accelerated(|_| {}) else {
        return;
    };
    echo(listener);
    let at = HERE.parse().expect("an address");
    torture(at, 2_000, 8).expect("right");
    let after = counted(&programs);
    assert!(after.messages > 2_000 && after.bulk > 50, "{after:?}");
}

#[test]
fn a_fault_in_the_order_is_found() {
    let Some((_programs, listener, _cgroup)) = accelerated(|rules| rules.fault = true) else {
        return;
    };
    echo(listener);
    let at = HERE.parse().expect("an address");
    let found = torture(at, 2_000, 8).expect_err("a fault that is not found");
    assert!(found.contains("wrong bytes"), "{found}");
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
    // Another user than the one whose file this is may not be able to run it where it lies.
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

/// The median of round trips of so many bytes over a connection, in microseconds.
fn round_trip(listener: &TcpListener, size: usize) -> f64 {
    const ROUNDS: usize = 2_000;
    let (mut program, mut daemon) = pair(listener);
    let other = thread::spawn(move || {
        let mut bytes = vec![0; size];
        while daemon.read_exact(&mut bytes).is_ok() && daemon.write_all(&bytes).is_ok() {}
    });
    let mut bytes = vec![7; size];
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            program.write_all(&bytes).expect("sent");
            program.read_exact(&mut bytes).expect("received");
            begin.elapsed()
        })
        .collect();
    drop(program);
    other.join().expect("the other end");
    times.sort();
    times[ROUNDS / 2].as_secs_f64() * 1e6
}

/// Time to send 32 MiB in pieces of this size to somebody who reads, in milliseconds.
fn stream(listener: &TcpListener, size: usize) -> f64 {
    const ALL: usize = 32 << 20;
    let (mut program, mut daemon) = pair(listener);
    let begin = Instant::now();
    let other = thread::spawn(move || {
        let mut bytes = vec![0; 128 * 1024];
        let mut left = ALL;
        while left > 0 {
            left -= daemon.read(&mut bytes).expect("received");
        }
    });
    let bytes = vec![7; size];
    for _ in 0..ALL / size {
        program.write_all(&bytes).expect("sent");
    }
    other.join().expect("the other end");
    begin.elapsed().as_secs_f64() * 1e3
}

#[test]
fn round_trips_and_streams_by_size() {
    let all = |rules: &mut Rules| (rules.streak, rules.ahead) = (u64::MAX >> 1, u64::MAX >> 1);
    let Some((programs, listener, _cgroup)) = accelerated(all) else {
        return;
    };
    let plain = TcpListener::bind("127.0.0.1:7001").expect("an address");
    let show = |what, size, short: f64, tcp: f64, unit| {
        let ratio = short / tcp;
        println!(
            "{what} {size} bytes: {short:.1} {unit} short, {tcp:.1} {unit} by TCP: {ratio:.2}"
        );
    };
    for size in [6, 10, 12, 13, 14, 15, 16, 17].map(|bits| 1 << bits) {
        let least = |at| {
            let runs = (0..3).map(|_| round_trip(at, size));
            runs.fold(f64::MAX, f64::min)
        };
        show(
            "there and back",
            size,
            least(&listener),
            least(&plain),
            "us",
        );
    }
    for size in [6, 10, 12, 13, 14, 15, 16, 17].map(|bits| 1 << bits) {
        let least = |at| (0..3).map(|_| stream(at, size)).fold(f64::MAX, f64::min);
        show("32 MiB in", size, least(&listener), least(&plain), "ms");
    }
    assert_eq!(counted(&programs).bulk, 0);
}
