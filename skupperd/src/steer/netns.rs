//! Sockets in other network namespaces.
//!
//! A connection is answered where its socket is, so a listener that is placed in another namespace
//! has sockets of its own that were made in there. Making them takes CAP_SYS_ADMIN. A daemon without
//! it asks [`HELPER`], which does this and nothing else, and gets sockets that are bound and do not
//! listen yet.

use super::{SteerError, place::Place, plain::Plain};
use crate::sys;
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

/// Sockets that were bound in another namespace, by place and worker.
#[derive(Clone, Debug)]
pub struct Placed(Arc<Vec<Socket>>);

impl PartialEq for Placed {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Placed {}

impl Placed {
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
}

/// What it says before it gives sockets.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Sockets(usize),
    Error(String),
}

/// Makes sockets in a namespace, bound to these places; for each worker one.
pub fn bind(target: &Netns, places: &[Place], workers: usize) -> Result<Placed, String> {
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
        ask(target, addrs, workers)?
    };
    Ok(Placed(Arc::new(sockets)))
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

fn ask(target: &Netns, addrs: Vec<SocketAddr>, workers: usize) -> Result<Vec<Socket>, String> {
    let count = addrs.len() * workers;
    let request = Request {
        target: target.to_string(),
        addrs,
        workers,
    };
    let asked = || {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.cloexec(), None)?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.set_write_timeout(Some(ANSWER))?;
        socket.connect(&SockAddr::unix(HELPER)?)?;
        exchange(&socket, &request, count)
    };
    let why =
        |e: io::Error| format!("{target}: CAP_SYS_ADMIN is missing, and asking {HELPER}: {e}");
    asked().map_err(why)?
}

fn exchange(
    socket: &Socket,
    request: &Request,
    count: usize,
) -> io::Result<Result<Vec<Socket>, String>> {
    sys::netns::send(socket.as_fd(), &serde_json::to_vec(request)?, &[])?;
    let mut buf = vec![0; MESSAGE];
    let (length, _) = sys::netns::receive(socket, &mut buf)?;
    match serde_json::from_slice(buf.get(..length).unwrap_or_default())? {
        Answer::Error(error) => return Ok(Err(error)),
        Answer::Sockets(n) if n != count => return Err(io::Error::other("another answer")),
        Answer::Sockets(_) => {}
    }
    let mut sockets = Vec::new();
    while sockets.len() < count {
        let (_, descriptors) = sys::netns::receive(socket, &mut buf)?;
        if descriptors.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        sockets.extend(descriptors.into_iter().map(Socket::from));
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
            if request.addrs.len().saturating_mul(request.workers) > MAX_SOCKETS {
                return Err("too many sockets".to_owned());
            }
            make(&target, &request.addrs, request.workers)
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
        };
        let error = exchange(&ours, &request, 1).unwrap().unwrap_err();
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
