//! The BPF program of steering, with exactly the capabilities of the unit.

#![cfg(feature = "ebpf")]

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    sched::{CloneFlags, setns, unshare},
    unistd::geteuid,
};
use skupper_ebpf::{Binding, Counters, UNBOUND};
use skupper_tests::skip::skip;
use skupperd::steer::bpf::Steering;
use std::{
    env,
    fs::File,
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
    process::Command,
    time::Duration,
};

const TEST: &str = "steers_connections_with_the_capabilities_of_the_unit";

/// Environment variable that is set for the part of the test with few capabilities.
const INNER: &str = "SKUPPER_TEST_INNER";

/// Environment variable with the path of another network namespace, for that part.
const OTHER: &str = "SKUPPER_TEST_OTHER";

/// Timeout of sockets, so that a misrouted connection fails the test instead of hanging it.
const LONG: Duration = Duration::from_secs(5);

#[test]
fn steers_connections_with_the_capabilities_of_the_unit() -> Result<()> {
    if env::var_os(INNER).is_some() {
        return steering();
    }
    if !geteuid().is_root() {
        skip("loading BPF programs needs root");
        return Ok(());
    }
    match unshare(CloneFlags::CLONE_NEWNET) {
        Err(e @ (Errno::EPERM | Errno::ENOSYS)) => {
            skip(&format!("no network namespaces here: {e}"));
            return Ok(());
        }
        other => other.context("making a network namespace")?,
    }
    match load() {
        Err(e) if refused_to_root(&e) => {
            skip(&format!("no BPF programs here, not even for root: {e:?}"));
            return Ok(());
        }
        other => drop(other?),
    }
    let other = other_namespace()?;
    fcntl(&other, FcntlArg::F_SETFD(FdFlag::empty())).context("to be inherited")?;
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()
        .context("ip")?;
    ensure!(up.success(), "ip link set lo up: {up}");
    // The bounding set limits the capabilities of a root process after exec.
    let inner = Command::new("setpriv")
        .args([
            "--bounding-set",
            "-all,+bpf,+net_admin",
            "--inh-caps",
            "-all",
            "--no-new-privs",
        ])
        .arg(env::current_exe()?)
        .args(["--exact", TEST, "--nocapture"])
        .env(INNER, "1")
        .env(OTHER, format!("/proc/self/fd/{}", other.as_raw_fd()))
        .status()
        .context("setpriv")?;
    ensure!(
        inner.success(),
        "with the capabilities of the unit: {inner}"
    );
    Ok(())
}

/// A new, empty network namespace.
fn other_namespace() -> Result<File> {
    let made = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(File::open("/proc/thread-self/ns/net")?)
    });
    made.join().map_err(|_| anyhow::anyhow!("panicked"))?
}

/// Attaching needs an open file of the other network namespace, not the right to enter it.
fn attaches_elsewhere() -> Result<()> {
    let other = File::open(env::var(OTHER)?).context("another network namespace")?;
    let entered = setns(other.as_fd(), CloneFlags::CLONE_NEWNET);
    ensure!(entered == Err(Errno::EPERM), "entered: {entered:?}");
    drop(Steering::load_small(other.as_fd())?);
    Ok(())
}

/// Loads the programs for the network namespace of this thread.
fn load() -> Result<Steering> {
    // /proc/self would be the main thread.
    let netns = File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")?;
    Ok(Steering::load(netns.as_fd())?)
}

/// Whether root lacks the right to load programs, as in some containers.
fn refused_to_root(error: &anyhow::Error) -> bool {
    let system = error.chain().find_map(|e| e.downcast_ref::<io::Error>());
    let number = system.and_then(io::Error::raw_os_error);
    [Errno::EPERM, Errno::ENOSYS]
        .map(|e| Some(e as i32))
        .contains(&number)
}

fn steering() -> Result<()> {
    attaches_elsewhere()?;
    let mut steering = load()?;

    // One accept socket for each of two workers, on ports that no binding below names.
    let worker4 = TcpListener::bind("127.0.0.1:0")?;
    let worker6 = TcpListener::bind("[::1]:0")?;
    for (index, worker) in [(0, &worker4), (1, &worker6)] {
        worker.set_nonblocking(true)?;
        steering.set_socket(index, worker)?;
    }
    let any4 = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let [slot4, slot6, slot_none] = [4, 6, 7];
    steering.bind(
        any4,
        0,
        80,
        Binding {
            first: 0,
            sockets: 1,
            slot: slot4,
            prefix: 0,
        },
    )?;
    let local6 = IpAddr::from(Ipv6Addr::LOCALHOST);
    steering.bind(
        local6,
        128,
        80,
        Binding {
            first: 1,
            sockets: 1,
            slot: slot6,
            prefix: 0,
        },
    )?;
    let without_socket = Binding {
        first: 2,
        sockets: 1,
        slot: slot_none,
        prefix: 0,
    };
    steering.bind("127.1.0.0".parse()?, 16, 80, without_socket)?;

    // Binding a privileged port would need CAP_NET_BIND_SERVICE; steering does not.
    carries("127.0.0.7:80", &worker4)?;
    carries("[::1]:80", &worker6)?;
    assert_eq!(
        steering.counts().of(slot4)?,
        Counters {
            steered: 1,
            refused: 0,
            passed: 0
        }
    );
    assert_eq!(
        steering.counts().of(slot6)?,
        Counters {
            steered: 1,
            refused: 0,
            passed: 0
        }
    );

    // The longer prefix wins: its connections are refused, not passed on to the shorter one.
    refuses("127.1.2.3:80")?;
    assert_eq!(
        steering.counts().of(slot_none)?,
        Counters {
            steered: 0,
            refused: 1,
            passed: 0
        }
    );
    assert_eq!(
        steering.counts().of(slot4)?,
        Counters {
            steered: 1,
            refused: 0,
            passed: 0
        }
    );

    // Connections without a binding are left alone and counted.
    refuses("127.0.0.7:81")?;
    ensure!(steering.counts().of(UNBOUND)?.passed >= 1);
    let local = TcpListener::bind("127.0.0.7:0")?;
    local.set_nonblocking(true)?;
    carries(&local.local_addr()?.to_string(), &local)?;

    steering.unbind(any4, 0, 80)?;
    refuses("127.0.0.7:80")?;
    drop(steering);
    refuses("[::1]:80")
}

/// A connection to `to` arrives at `worker` with its own destination, and carries bytes.
fn carries(to: &str, worker: &TcpListener) -> Result<()> {
    let to: SocketAddr = to.parse()?;
    let mut client = TcpStream::connect_timeout(&to, LONG).with_context(|| to.to_string())?;
    // The handshake is complete, so the connection is in the queue of the chosen socket.
    let (mut server, _) = worker
        .accept()
        .with_context(|| format!("{to} went elsewhere"))?;
    ensure!(server.local_addr()? == to);
    client.write_all(b"through")?;
    server.set_nonblocking(false)?;
    server.set_read_timeout(Some(LONG))?;
    let mut got = [0; 7];
    server.read_exact(&mut got)?;
    ensure!(&got == b"through");
    Ok(())
}

fn refuses(to: &str) -> Result<()> {
    match TcpStream::connect_timeout(&to.parse()?, LONG) {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => bail!("{to} should be refused: {other:?}"),
    }
}
