//! Sockets in other network namespaces.
//!
//! A connection is answered where its socket is, so a listener that is placed in another namespace
//! has sockets that were made in there: where the kernel steers, a few for all listeners of that
//! namespace ([`Inside`]), else some of its own. Making them takes CAP_SYS_ADMIN. A daemon without it
//! asks [`HELPER`], which does this and nothing else, and gets sockets that are bound and do not
//! listen yet.

use super::{
    SteerError,
    inside::{Entrance, Inside},
    netlink::{About, Netlink},
    place::Place,
    plain::{LOOPBACKS, Plain, unreached},
};
use crate::{sys, telemetry};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    fmt,
    fs::{self, File},
    io,
    net::{Shutdown, SocketAddr},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

/// Where the system's helper is reached (`skupperd-netns.socket`).
const HELPER: &str = "/run/skupperd-netns.sock";
/// Longest time the helper may take: the service manager has to start it.
const ANSWER: Duration = Duration::from_secs(10);
/// Sockets of one listener: descriptors that a process may have without further ado.
const MAX_SOCKETS: usize = 512;
/// Longest request.
const MESSAGE: usize = 64 * 1024;
/// The service manager keeps a link for each unit that runs, which changes with every start.
const UNITS: &str = "/run/systemd/units";

/// A network namespace, by what it is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Netns {
    /// A file, as in `/run/netns`.
    Path(PathBuf),
    /// That of a unit's main process.
    Unit(String),
    /// That of a process.
    Pid(u32),
}

impl FromStr for Netns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is neither a path, nor unit:NAME.service, nor pid:NUMBER");
        if let Some(name) = text.strip_prefix("unit:") {
            let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
            let good = name.ends_with(".service") && name.len() < 256 && name.chars().all(allowed);
            return good.then(|| Self::Unit(name.to_owned())).ok_or_else(bad);
        }
        if let Some(pid) = text.strip_prefix("pid:") {
            let pid = pid.parse().ok().filter(|pid| (1..1 << 22).contains(pid));
            return pid.map(Self::Pid).ok_or_else(bad);
        }
        let path = Path::new(text);
        let plain = path.components().all(|part| {
            use std::path::Component::{Normal, RootDir};
            matches!(part, Normal(_) | RootDir)
        });
        (path.is_absolute() && plain)
            .then(|| Self::Path(path.to_owned()))
            .ok_or_else(bad)
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Unit(name) => write!(f, "unit:{name}"),
            Self::Pid(pid) => write!(f, "pid:{pid}"),
        }
    }
}

/// What tells a namespace from the next that is known by the same.
#[derive(Debug)]
enum Seen {
    File(u64, u64),
    Run(PathBuf),
    Process(OwnedFd),
}

/// A namespace that is there.
#[derive(Debug)]
pub struct Watch {
    target: Netns,
    seen: Seen,
}

impl Netns {
    /// Looks for the namespace, which takes no rights.
    pub fn watch(&self) -> Result<Watch, String> {
        let not = |e: io::Error| match (self, e.kind()) {
            (Self::Path(_), io::ErrorKind::NotFound) => format!("{self} is not there"),
            (_, io::ErrorKind::NotFound) => format!("{self} is not running"),
            _ if e.raw_os_error() == Some(NO_PROCESS) => format!("{self} is not running"),
            _ => format!("{self}: {e}"),
        };
        let seen = self.look().map_err(not)?;
        Ok(Watch {
            target: self.clone(),
            seen,
        })
    }

    fn look(&self) -> io::Result<Seen> {
        match self {
            Self::Path(path) => {
                if !sys::netns::is_namespace(path)? {
                    return Err(io::Error::other("it is no namespace"));
                }
                let meta = fs::metadata(path)?;
                Ok(Seen::File(meta.dev(), meta.ino()))
            }
            Self::Unit(name) => {
                let link = Path::new(UNITS).join(format!("invocation:{name}"));
                fs::read_link(link).map(Seen::Run)
            }
            Self::Pid(pid) => sys::netns::process(*pid).map(Seen::Process),
        }
    }

    /// Opens it; only who may look into every process can.
    fn open(&self) -> io::Result<File> {
        let path = match self {
            Self::Path(path) => path.clone(),
            Self::Unit(name) => of_process(main_process(name)?),
            Self::Pid(pid) => of_process(*pid),
        };
        if !sys::netns::is_namespace(&path)? {
            return Err(io::Error::other("it is no namespace"));
        }
        sys::open_without_waiting(&path)
    }
}

/// ESRCH of errno.h.
const NO_PROCESS: i32 = 3;

fn of_process(pid: u32) -> PathBuf {
    format!("/proc/{pid}/ns/net").into()
}

/// The main process of a service.
fn main_process(unit: &str) -> io::Result<u32> {
    let output = Command::new("systemctl")
        .args(["show", "--property=MainPID", "--value", "--", unit])
        .output()?;
    let pid = String::from_utf8_lossy(&output.stdout).trim().parse().ok();
    let none = || io::Error::new(io::ErrorKind::NotFound, "it has no main process");
    pid.filter(|pid| *pid > 0).ok_or_else(none)
}

impl Watch {
    /// Whether it is still the same namespace.
    pub fn holds(&self) -> bool {
        match &self.seen {
            Seen::Process(process) => !sys::netns::has_ended(process.as_fd()),
            Seen::File(..) | Seen::Run(_) => match (self.target.look(), &self.seen) {
                (Ok(Seen::File(dev, ino)), Seen::File(d, i)) => (dev, ino) == (*d, *i),
                (Ok(Seen::Run(now)), Seen::Run(then)) => now == *then,
                _ => false,
            },
        }
    }
}

/// How a listener is reached in another namespace.
#[derive(Clone, Debug)]
pub enum Placed {
    /// By sockets of its own.
    Own(Bound),
    /// By those that it shares with all others there.
    Steered(Arc<Inside>),
}

impl PartialEq for Placed {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Own(a), Self::Own(b)) => Arc::ptr_eq(&a.0, &b.0),
            (Self::Steered(a), Self::Steered(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Eq for Placed {}

/// Sockets that were bound in another namespace, by place and worker.
#[derive(Clone, Debug)]
pub struct Bound(Arc<Vec<Socket>>);

impl Bound {
    /// Has them listen, and gives each to the worker of its turn.
    pub fn listen(&self, workers: usize) -> io::Result<Vec<(usize, std::net::TcpListener)>> {
        let mut open = Vec::new();
        for (n, socket) in self.0.iter().enumerate() {
            // What is left of earlier connections is no conflict.
            socket.set_reuse_address(true)?;
            socket.listen(super::plain::BACKLOG)?;
            open.push((n % workers.max(1), socket.try_clone()?.into()));
        }
        Ok(open)
    }

    /// Has clients refused; the addresses stay taken.
    pub fn refuse(&self) {
        for socket in self.0.iter() {
            if let Err(error) = keep(socket) {
                tracing::warn!(%error, "keeping an address in another namespace");
            }
            // One that does not listen refuses already.
            drop(socket.shutdown(Shutdown::Both));
        }
    }
}

/// Keeps the address of a socket that does not listen from others that would share it.
fn keep(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(false)
}

/// What the helper is asked for.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    target: String,
    addrs: Vec<SocketAddr>,
    workers: usize,
    /// What it takes to steer in there, instead of sockets that are bound to addresses.
    #[serde(default)]
    entrance: bool,
}

/// What it says before it gives sockets.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Sockets(usize),
    Error(String),
}

/// Has listeners reached in a namespace: steered where that is wished and can be had, else by sockets
/// that are bound to these places, one for each worker.
pub fn place(
    target: &Netns,
    places: &[Place],
    workers: usize,
    steered: bool,
) -> Result<Placed, String> {
    if steered {
        match enter(target, workers) {
            Ok(inside) => return Ok(Placed::Steered(inside)),
            Err(why) => tracing::info!(%target, why, "listeners there have sockets of their own"),
        }
    }
    bind(target, places, workers).map(Placed::Own)
}

fn enter(target: &Netns, workers: usize) -> Result<Arc<Inside>, String> {
    let failed = |e: io::Error| format!("{target}: {e}");
    let given = if sys::netns::may_enter() {
        make_entrance(target, workers)?
    } else {
        let request = Request {
            target: target.to_string(),
            addrs: Vec::new(),
            workers,
            entrance: true,
        };
        ask(target, &request, None)?
    };
    let entrance = entrance(given).map_err(failed)?;
    let inside = Inside::open(workers, entrance);
    inside.map_err(|e| format!("{target}: {}", telemetry::chain(&e)))
}

/// What an entrance is, in the order in which it is given: the namespace, a socket to ask who listens
/// there, and accept sockets of each family.
fn make_entrance(target: &Netns, workers: usize) -> Result<Vec<OwnedFd>, String> {
    let failed = |e: io::Error| format!("{target}: {e}");
    let netns = target.open().map_err(failed)?;
    let all = || {
        let asked = Netlink::open(About::Sockets)?.into_socket();
        let mut made = vec![OwnedFd::from(asked)];
        for (family, host) in LOOPBACKS.into_iter().enumerate() {
            for _ in 0..workers {
                match unreached(host) {
                    Ok(socket) => made.push(socket.into()),
                    // Without IPv6 there are no connections of it.
                    Err(_) if family == 1 => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(made)
    };
    let made = sys::netns::within(netns.as_fd(), all).map_err(failed)?;
    let mut entrance = vec![OwnedFd::from(netns)];
    entrance.extend(made.map_err(failed)?);
    Ok(entrance)
}

fn entrance(given: Vec<OwnedFd>) -> io::Result<Entrance> {
    let short = || io::Error::other("another answer");
    let mut given = given.into_iter();
    Ok(Entrance {
        netns: File::from(given.next().ok_or_else(short)?),
        asked: Netlink::of(Socket::from(given.next().ok_or_else(short)?))?,
        sockets: given.map(std::net::TcpListener::from).collect(),
    })
}

/// Makes sockets in a namespace, bound to these places; for each worker one.
fn bind(target: &Netns, places: &[Place], workers: usize) -> Result<Bound, String> {
    let mut addrs = Vec::new();
    for place in places {
        let of_place = place.sockets();
        addrs.extend(of_place.ok_or_else(|| {
            format!("{place}: in another namespace, addresses and ports are named one by one")
        })?);
    }
    if addrs.len() * workers > MAX_SOCKETS {
        return Err(format!(
            "{} addresses for {workers} workers are too many: {MAX_SOCKETS} sockets at most",
            addrs.len()
        ));
    }
    let sockets = if sys::netns::may_enter() {
        make(target, &addrs, workers)?
    } else {
        let count = addrs.len() * workers;
        let request = Request {
            target: target.to_string(),
            addrs,
            workers,
            entrance: false,
        };
        let given = ask(target, &request, Some(count))?;
        given.into_iter().map(Socket::from).collect()
    };
    Ok(Bound(Arc::new(sockets)))
}

fn make(target: &Netns, addrs: &[SocketAddr], workers: usize) -> Result<Vec<Socket>, String> {
    let failed = |e: io::Error| format!("{target}: {e}");
    let netns = target.open().map_err(failed)?;
    let all = || {
        let each = addrs.iter().map(|addr| Plain.bound(*addr, workers));
        each.collect::<Result<Vec<_>, SteerError>>()
    };
    let made = sys::netns::within(netns.as_fd(), all).map_err(failed)?;
    let made = made.map_err(|e| format!("{target}: {e}"))?;
    let made: Vec<Socket> = made.into_iter().flatten().collect();
    made.iter().try_for_each(keep).map_err(failed)?;
    Ok(made)
}

/// Asks the helper, who is to give so many descriptors, or as many as it takes.
fn ask(target: &Netns, request: &Request, count: Option<usize>) -> Result<Vec<OwnedFd>, String> {
    let asked = || {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.cloexec(), None)?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.set_write_timeout(Some(ANSWER))?;
        socket.connect(&SockAddr::unix(HELPER)?)?;
        exchange(&socket, request, count)
    };
    let why =
        |e: io::Error| format!("{target}: CAP_SYS_ADMIN is missing, and asking {HELPER}: {e}");
    asked().map_err(why)?
}

fn exchange(
    socket: &Socket,
    request: &Request,
    wanted: Option<usize>,
) -> io::Result<Result<Vec<OwnedFd>, String>> {
    sys::netns::send(socket.as_fd(), &serde_json::to_vec(request)?, &[])?;
    let mut buf = vec![0; MESSAGE];
    let (length, _) = sys::netns::receive(socket, &mut buf)?;
    let count = match serde_json::from_slice(buf.get(..length).unwrap_or_default())? {
        Answer::Error(error) => return Ok(Err(error)),
        Answer::Sockets(n) if n > MAX_SOCKETS || wanted.is_some_and(|wanted| n != wanted) => {
            return Err(io::Error::other("another answer"));
        }
        Answer::Sockets(n) => n,
    };
    let mut sockets = Vec::new();
    while sockets.len() < count {
        let (_, descriptors) = sys::netns::receive(socket, &mut buf)?;
        if descriptors.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        sockets.extend(descriptors);
    }
    Ok(Ok(sockets))
}

/// The helper: does what one request on this socket asks for.
pub fn serve(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut buf = vec![0; MESSAGE];
    let (length, _) = sys::netns::receive(&socket, &mut buf)?;
    let made = serde_json::from_slice::<Request>(buf.get(..length).unwrap_or_default())
        .map_err(|e| e.to_string())
        .and_then(|request| {
            let target: Netns = request.target.parse()?;
            let places = match request.entrance {
                // One of each family; the namespace and who is asked have a place as well.
                true => 4,
                false => request.addrs.len(),
            };
            if places.saturating_mul(request.workers) > MAX_SOCKETS {
                return Err("too many sockets".to_owned());
            }
            if request.entrance {
                return make_entrance(&target, request.workers);
            }
            let made = make(&target, &request.addrs, request.workers)?;
            Ok(made.into_iter().map(OwnedFd::from).collect())
        });
    let sockets = match made {
        Ok(sockets) => sockets,
        Err(error) => {
            return sys::netns::send(socket, &serde_json::to_vec(&Answer::Error(error))?, &[]);
        }
    };
    let answer = serde_json::to_vec(&Answer::Sockets(sockets.len()))?;
    sys::netns::send(socket, &answer, &[])?;
    for some in sockets.chunks(sys::netns::MAX_DESCRIPTORS) {
        let some: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
        sys::netns::send(socket, &[0], &some)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written() {
        for good in ["/run/netns/blue", "unit:web@1.service", "pid:17"] {
            assert_eq!(good.parse::<Netns>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "run/netns/blue",
            "/run/../etc",
            "unit:",
            "unit:web",
            "unit:-x y.service",
            "unit:a/b.service",
            "pid:0",
            "pid:-1",
            "pid:99999999",
            "pid:x",
        ] {
            assert!(bad.parse::<Netns>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_there_is_said() {
        for (target, why) in [
            ("/run/netns/none-of-this-name", "is not there"),
            ("/etc/passwd", "it is no namespace"),
            ("unit:none-of-this-name.service", "is not running"),
            ("pid:4194303", "is not running"),
        ] {
            let error = target.parse::<Netns>().unwrap().watch().unwrap_err();
            assert!(error.contains(why) && error.starts_with(target), "{error}");
        }
    }

    #[test]
    fn a_process_is_seen_to_end() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let watch = Netns::Pid(child.id()).watch().unwrap();
        assert!(watch.holds());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!watch.holds());
    }

    #[test]
    fn the_helper_says_what_is_wrong_with_a_request() {
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let helper = std::thread::spawn(move || serve(theirs.as_fd()));
        let request = Request {
            target: "pid:4194303".to_owned(),
            addrs: vec!["127.0.0.1:1".parse().unwrap()],
            workers: 1,
            entrance: false,
        };
        let error = exchange(&ours, &request, Some(1)).unwrap().unwrap_err();
        assert!(error.starts_with("pid:4194303: "), "{error}");
        helper.join().unwrap().unwrap();
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        sys::netns::send(ours.as_fd(), b"{", &[]).unwrap();
        serve(theirs.as_fd()).unwrap();
        let mut buf = [0; 1024];
        let (length, _) = sys::netns::receive(&ours, &mut buf).unwrap();
        assert!(buf[..length].starts_with(b"{\"Error\":"));
    }
}
