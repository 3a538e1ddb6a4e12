//! Links: sockets, TLS, SASL, trunks; the workers that carry streams and the core that steers them.
//!
//! A link is one control connection and a trunk of data connections, each owned by one worker. The
//! core ([`core`]) owns the routers and never touches a stream; a worker ([`worker`]) owns sockets and
//! never computes a route. They talk by events and commands; what workers know of the network is an
//! immutable [`view::SiteView`].

mod accept;
pub mod conn;
pub mod core;
mod dial;
mod driver;
pub mod ends;
mod handshake;
pub mod ledger;
pub mod origin;
mod outbuf;
pub mod policy;
mod probe;
mod record;
mod tls;
mod transit;
pub mod upstream;
mod vanflow;
pub mod view;
mod wire;
pub mod worker;

pub use dial::{LinkSpec, Target};
pub use handshake::Refused;
pub use probe::{Probe, ProbeKind};

/// Application property of a stream's head by which an end of our own kind is known to the other.
/// It goes from hop to hop for as long as routers of our own kind pass it on.
pub const NATIVE_END: &str = "io.skupper.native";
