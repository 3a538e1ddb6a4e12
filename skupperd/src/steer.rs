//! How client connections reach listeners: by sockets bound to each address ([`Plain`]), or steered
//! by the kernel to a few accept sockets that all listeners share ([`start`], [`Steer`]).
//!
//! Steered or not, an address is taken from other programs for as long as a listener is open on it,
//! and one that another program has is an error.

pub mod accel;
#[cfg(feature = "ebpf")]
mod accepting;
#[cfg(feature = "ebpf")]
pub mod bpf;
mod inside;
#[cfg(feature = "ebpf")]
mod kernel;
pub mod listening;
mod listing;
mod netlink;
pub mod netns;
mod own;
#[cfg(feature = "ebpf")]
pub mod pins;
pub mod place;
mod plain;
#[cfg(feature = "ebpf")]
mod reserve;
pub mod routes;
#[cfg(feature = "ebpf")]
mod slots;
mod table;

pub use inside::Inside;
pub use listing::{AcceptSocket, Bound, Listing};
pub use own::OwnSockets;
pub use plain::Plain;
pub use table::{Owner, Owners, Table};

use crate::sys::{Descriptors, Keeper};
use place::Place;
use std::{io, net::TcpListener, path::PathBuf, sync::Arc};

/// Where BPF programs outlive the daemons of this host: below the mount point that systemd gives the
/// BPF file system.
pub const HOME: &str = "/sys/fs/bpf/skupper";

/// A listener's place could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {}: {source}", .op)]
pub struct SteerError {
    /// The place.
    pub place: Place,
    /// What was being done.
    pub op: &'static str,
    source: io::Error,
}

impl SteerError {
    /// What makes one of the system's error: `op` is what was being done.
    pub fn at(place: impl Into<Place>, op: &'static str) -> impl Fn(io::Error) -> Self {
        let place = place.into();
        move |source| Self { place, op, source }
    }

    /// A place that sockets can not have.
    pub fn only_steered(place: Place) -> Self {
        let text = "only where the kernel steers, which it does not here";
        Self {
            place,
            op: "binding",
            source: io::Error::new(io::ErrorKind::Unsupported, text),
        }
    }
}

/// Bindings of places to the listeners that own them.
pub trait Steer: Send {
    /// Ends bindings and begins others, as one batch; says for each of the latter how it went. What
    /// is in both changes its owner, and no connection is refused meanwhile. Connections that were
    /// accepted go on.
    fn apply(&mut self, end: &[Place], begin: Vec<(Place, Owner)>) -> Vec<Result<(), SteerError>>;

    /// Leaves to other programs what they listen on by now in places that can not be taken from
    /// them: prefixes, and all ports. To be called a few times a second.
    fn look(&mut self);

    /// Where an earlier process has had listeners and nobody has begun to since, one place for each
    /// port or for all of them. Clients that come there wait.
    fn adopted(&self) -> Vec<Place>;

    /// Ends what nobody has begun since it was adopted.
    fn end_adopted(&mut self);

    /// Ends everything for new connections, and leaves nothing to another process.
    fn end(&mut self);
}

/// Whether a descriptor of this name is one that [`Kept`] has been given to keep.
pub fn is_kept(name: &str) -> bool {
    let ours = ["accept4-", "accept6-", "listen-", "reserve-"];
    name == "pins" || ours.iter().any(|ours| name.starts_with(ours))
}

/// What passes from one process of a service to the next.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Which of the daemons of this host.
    pub instance: String,
    /// Directory in the BPF file system for all of them.
    pub home: PathBuf,
    /// What was left to this one.
    pub descriptors: Descriptors,
    /// What it leaves.
    pub keeper: Keeper,
}

/// What has happened to new TCP connections to this host since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Given to one of our accept sockets.
    pub hits: u64,
    /// Left alone: no binding names where they go.
    pub misses: u64,
    /// Refused: no accept socket was there to take them.
    pub refused: u64,
}

/// Reads the totals; none when the kernel does not give them.
pub type Meter = Arc<dyn Fn() -> Option<Totals> + Send + Sync>;

/// Says what is steered where.
pub type Lister = Arc<dyn Fn() -> Listing + Send + Sync>;

/// The kernel steers connections.
pub struct Steered {
    /// Where bindings are made.
    pub steer: Box<dyn Steer>,
    /// Who owns the addresses that connections have come to.
    pub table: Arc<Table>,
    /// Listening, non-blocking sockets for each worker.
    pub sockets: Vec<Vec<TcpListener>>,
    /// Counts connections.
    pub meter: Meter,
    /// Says what is steered where.
    pub listing: Lister,
    /// Why clients are refused while the daemon is restarted; none if they wait.
    pub not_kept: Option<String>,
}

/// Why the kernel does not steer connections.
#[derive(Debug, thiserror::Error)]
pub enum NotSteered {
    /// So it is wished.
    #[error("switched off")]
    Off,
    /// This program can not.
    #[error("built without eBPF")]
    NotBuilt,
    /// The process may not.
    #[error("missing {0}")]
    Missing(String),
    /// The system has no such thing, or not for us.
    #[cfg(feature = "ebpf")]
    #[error(transparent)]
    Refused(#[from] bpf::BpfError),
    /// The accept sockets could not be made.
    #[error("making accept sockets: {0}")]
    Sockets(#[from] io::Error),
}

/// Has the kernel steer the connections of this network namespace, if it can be had.
#[cfg(feature = "ebpf")]
pub fn start(workers: usize, kept: &Kept) -> Result<Steered, NotSteered> {
    kernel::start(workers, kept)
}

/// Removes what an earlier process of this daemon has pinned: it is not to be steered any more.
#[cfg(feature = "ebpf")]
pub fn discard(kept: &Kept) {
    kernel::discard(kept);
}

/// Removes what dead instances have left in the kernel; says what.
#[cfg(feature = "ebpf")]
pub fn sweep() -> Result<Vec<PathBuf>, pins::PinError> {
    let home = std::path::Path::new(HOME);
    if !home.exists() {
        return Ok(Vec::new());
    }
    pins::Home::open(home)?.sweep()
}

/// Has the kernel steer connections: not in this program.
#[cfg(not(feature = "ebpf"))]
pub fn start(_workers: usize, _kept: &Kept) -> Result<Steered, NotSteered> {
    Err(NotSteered::NotBuilt)
}

/// Nothing was pinned by this program.
#[cfg(not(feature = "ebpf"))]
pub fn discard(_kept: &Kept) {}
