//! The BPF programs of acceleration: fallback to TCP, known differences from TCP, and the order of
//! bytes.

#![cfg(feature = "ebpf")]

use super::ebpf_acceleration::{HERE, TO_TCP, accelerated, counted, echo, pair, receive, tuple};
use nix::{
    errno::Errno,
    libc,
    sys::socket::{MsgFlags, send},
    unistd::gettid,
};
use skupper_tests::{SOON, stress::stress_echo, wait_until};
use skupperd::steer::accel::Rules;
use std::{
    fs::{self},
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd,
    ptr,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// The number of readable bytes (FIONREAD).
fn readable(socket: &TcpStream) -> libc::c_int {
    let mut bytes = 0;
    // SAFETY: the kernel writes a number to where `bytes` is.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    assert_eq!(done, 0);
    bytes
}

/// Moves bytes by splice(2) and returns their number.
fn splice(socket: &TcpStream) -> Result<usize, Errno> {
    let (_out, into) = std::io::pipe().expect("a pipe");
    let (no, flags) = (ptr::null_mut(), libc::SPLICE_F_NONBLOCK);
    let (from, to) = (socket.as_raw_fd(), into.as_raw_fd());
    // SAFETY: no offsets are pointed to, and both descriptors are open.
    let moved = unsafe { libc::splice(from, no, to, no, 64, flags) };
    Errno::result(moved).map(|n| n as usize)
}

#[test]
fn known_difference_fionread_counts_only_redirected_bytes() {
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
fn known_difference_splice_sees_no_redirected_bytes() {
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
fn known_difference_urgent_data_is_inline() {
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
fn known_difference_a_blocking_read_gets_eagain_at_a_reset() {
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
fn peeking_leaves_bytes_in_place() {
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
fn fallback_to_tcp_keeps_the_order_and_is_final() {
    let Some((mut programs, listener, _cgroup)) = accelerated(|_| {}) else {
        return;
    };
    let (mut program, mut daemon) = pair(&listener);
    // Round trips never fall back.
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
    // A direction without answers becomes a stream after 8 KiB.
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
fn a_slow_reader_falls_back_to_tcp() {
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
    // A direction stays accelerated while the daemon reports its reads.
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
fn tls_falls_back_to_tcp() {
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
    stress_echo(at, 2_000, 8).expect("right");
    let after = counted(&programs);
    assert!(after.messages > 2_000 && after.bulk > 50, "{after:?}");
}

#[test]
fn a_wrong_order_of_bytes_is_detected() {
    let Some((_programs, listener, _cgroup)) = accelerated(|rules| rules.fault = true) else {
        return;
    };
    echo(listener);
    let at = HERE.parse().expect("an address");
    let found = stress_echo(at, 2_000, 8).expect_err("a fault that is not found");
    assert!(found.contains("wrong bytes"), "{found}");
}

/// The median round trip of messages of `size` bytes in microseconds.
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

/// Time in milliseconds to send 32 MiB in pieces of this size to a reader.
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
