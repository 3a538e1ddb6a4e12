//! How client connections reach listeners: through sockets bound to each address ([`SocketBindings`]), or
//! steered by the kernel to a few accept sockets that all listeners share ([`start`], [`Steer`]).
//!
//! Either way, an open listener keeps other programs from its address, and an address that another
//! program uses is an error.
//!
//! The daemon calls [`start`] once, for its own network namespace; [`NetnsSteering`] steers in others. The
//! core binds the ranges of listeners to their owners ([`Steer::apply`]). Workers accept on the sockets
//! that the kernel steers to, and find the owner of a connection's destination in the [`OwnerTable`].
//!
//! A range is reserved, bound, moved to another owner without refusing a client, and ended. After a
//! restart it is adopted first, and ends unless a listener claims it: descriptors and pinned programs
//! outlive the process ([`SteeringHandover`]).
//!
//! [`accel`] shortens the path of bytes within the host. This room accepts no connections, and takes none
//! from a program that listens on the same address and port.

pub mod accel;
#[cfg(feature = "ebpf")]
mod accept_sockets;
pub mod bind_range;
#[cfg(feature = "ebpf")]
pub mod bpf;
#[cfg(feature = "ebpf")]
mod bpf_error;
#[cfg(feature = "ebpf")]
mod kernel;
mod listing;
pub mod netns;
mod netns_steering;
mod own;
#[cfg(feature = "ebpf")]
pub mod pins;
mod plain;
#[cfg(feature = "ebpf")]
mod reserve;
#[cfg(feature = "ebpf")]
mod slots;
mod table;

pub use listing::{AcceptSocket, Listing, SteeredAddress};
pub use netns_steering::NetnsSteering;
pub use own::OwnSockets;
pub use plain::SocketBindings;
pub use table::{Owner, OwnerTable, Owners};

use crate::{
    netlink::socket::Netlink,
    sys::{DescriptorStore, InheritedDescriptors},
};
use bind_range::BindRange;
use std::{fs::File, io, net::TcpListener, path::PathBuf, sync::Arc};

/// Directory for pinned BPF programs, below the mount point that systemd uses for the BPF file
/// system.
pub const HOME: &str = "/sys/fs/bpf/skupper";

/// Descriptors that a privileged process opens in a network namespace, so that an unprivileged one
/// can steer there.
#[cfg_attr(
    not(feature = "ebpf"),
    expect(dead_code, reason = "nothing is steered")
)]
struct NetnsDescriptors {
    netns: File,
    /// Lists listening sockets of the namespace.
    netlink: Netlink,
    /// Accept sockets that do not listen yet.
    sockets: Vec<TcpListener>,
}

/// An address of a listener could not be bound or steered.
#[derive(Debug, thiserror::Error)]
#[error("{range}: {}: {source}", .op)]
pub struct SteerError {
    pub range: BindRange,
    pub op: &'static str,
    source: io::Error,
}

impl SteerError {
    /// Returns a converter of system errors; `op` is the failed operation.
    pub fn at(range: impl Into<BindRange>, op: &'static str) -> impl Fn(io::Error) -> Self {
        let range = range.into();
        move |source| Self { range, op, source }
    }

    /// The error for a range that needs steering.
    pub fn only_steered(range: BindRange) -> Self {
        let text = "needs steering, which is off or unavailable";
        Self {
            range,
            op: "binding",
            source: io::Error::new(io::ErrorKind::Unsupported, text),
        }
    }
}

/// Bindings of address ranges to the listeners that own them.
pub trait Steer: Send {
    /// Ends bindings and begins others in one batch. Returns a result for each begun binding. A
    /// range in both lists changes its owner without refusing connections. Accepted connections
    /// stay.
    fn apply(
        &mut self,
        end: &[BindRange],
        begin: Vec<(BindRange, Owner)>,
    ) -> Vec<Result<(), SteerError>>;

    /// Leaves addresses to programs that have started to listen in ranges that cannot be reserved:
    /// prefixes, and all ports. Called a few times a second.
    fn rescan(&mut self);

    /// Ranges adopted from the previous process that no listener has claimed yet, one for each port
    /// or for all ports. Clients that connect to them wait.
    fn adopted(&self) -> Vec<BindRange>;

    /// Ends the adopted bindings that no listener has claimed.
    fn end_adopted(&mut self);

    /// Ends all bindings for new connections and leaves nothing for a next process.
    fn end(&mut self);
}

/// Whether a stored descriptor of this name belongs to a [`SteeringHandover`].
pub fn is_handover_name(name: &str) -> bool {
    let ours = ["accept4-", "accept6-", "listen-", "reserve-"];
    name == "pins" || ours.iter().any(|ours| name.starts_with(ours))
}

/// What one process of a service passes to the next.
#[derive(Clone, Debug, Default)]
pub struct SteeringHandover {
    /// Identifies the daemon among those of this host.
    pub instance: String,
    /// Directory in the BPF file system that all daemons share.
    pub home: PathBuf,
    /// Descriptors from the previous process.
    pub descriptors: InheritedDescriptors,
    /// Descriptors for the next process.
    pub descriptor_store: DescriptorStore,
}

/// Counts of new TCP connections to this host since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteeringTotals {
    /// Steered to an accept socket of this daemon.
    pub hits: u64,
    /// Left alone, because no binding names their destination.
    pub misses: u64,
    /// Refused, because no accept socket existed for them.
    pub refused: u64,
}

/// Reads the totals; `None` if that fails.
pub type ReadTotals = Arc<dyn Fn() -> Option<SteeringTotals> + Send + Sync>;

/// Lists bindings and accept sockets.
pub type ListBindings = Arc<dyn Fn() -> Listing + Send + Sync>;

/// Steering by the kernel, in operation.
pub struct ActiveSteering {
    pub steer: Box<dyn Steer>,
    /// Finds the owner of a connection's destination.
    pub table: Arc<OwnerTable>,
    /// Listening, non-blocking sockets for each worker.
    pub sockets: Vec<Vec<TcpListener>>,
    /// Counts connections.
    pub meter: ReadTotals,
    /// Lists bindings and accept sockets.
    pub listing: ListBindings,
    /// Why clients are refused during a restart; `None` if they wait.
    pub not_kept: Option<String>,
}

/// Why the kernel does not steer connections.
#[derive(Debug, thiserror::Error)]
pub enum SteeringUnavailable {
    /// Switched off by the configuration.
    #[error("switched off")]
    Off,
    #[error("built without eBPF")]
    NotBuilt,
    #[error("missing {0}")]
    Missing(String),
    #[cfg(feature = "ebpf")]
    #[error(transparent)]
    Refused(#[from] bpf::BpfError),
    /// Accept sockets could not be created.
    #[error("making accept sockets: {0}")]
    Sockets(#[from] io::Error),
}

/// Starts steering in this network namespace, if possible.
#[cfg(feature = "ebpf")]
pub fn start(
    workers: usize,
    handover: &SteeringHandover,
) -> Result<ActiveSteering, SteeringUnavailable> {
    kernel::start(workers, handover)
}

/// Removes the pins of a previous process, when steering is off.
#[cfg(feature = "ebpf")]
pub fn discard(handover: &SteeringHandover) {
    kernel::discard(handover);
}

/// Removes pins of dead instances and returns their paths.
#[cfg(feature = "ebpf")]
pub fn sweep() -> Result<Vec<PathBuf>, pins::PinError> {
    let home = std::path::Path::new(HOME);
    if !home.exists() {
        return Ok(Vec::new());
    }
    pins::PinRoot::open(home)?.sweep()
}

/// Built without eBPF: always an error.
#[cfg(not(feature = "ebpf"))]
pub fn start(
    _workers: usize,
    _handover: &SteeringHandover,
) -> Result<ActiveSteering, SteeringUnavailable> {
    Err(SteeringUnavailable::NotBuilt)
}

/// Built without eBPF: there are no pins.
#[cfg(not(feature = "ebpf"))]
pub fn discard(_handover: &SteeringHandover) {}
