//! How client connections reach listeners: by sockets bound to each address ([`Plain`]), or steered
//! by the kernel to a few accept sockets that all listeners share ([`start`], [`Steer`]).
//!
//! Steered or not, an address is taken from other programs for as long as a listener is open on it,
//! and one that another program has is an error.

pub mod accel;
#[cfg(feature = "ebpf")]
pub mod bpf;
#[cfg(feature = "ebpf")]
mod kernel;
#[cfg(feature = "ebpf")]
pub mod listening;
pub mod netns;
pub mod place;
mod plain;
#[cfg(feature = "ebpf")]
mod reserve;
pub mod routes;
mod table;

pub use plain::Plain;
pub use table::{Owner, Owners, Table};

use std::{io, net::TcpListener, sync::Arc};

use place::Place;

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
    /// A place whose sockets do not listen.
    pub fn listening(place: Place, source: io::Error) -> Self {
        let op = "listening";
        Self { place, op, source }
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
pub fn start(workers: usize) -> Result<Steered, NotSteered> {
    kernel::start(workers)
}

/// Has the kernel steer connections: not in this program.
#[cfg(not(feature = "ebpf"))]
pub fn start(_workers: usize) -> Result<Steered, NotSteered> {
    Err(NotSteered::NotBuilt)
}
