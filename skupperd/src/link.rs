//! The transport of a link: TLS, records, an AMQP connection on a socket.
//!
//! A link is one control connection and a trunk of data connections, each owned by one worker
//! ([`crate::worker`]). The core ([`crate::core`]) owns the routers and never touches a stream.

pub mod conn;
pub(crate) mod driver;
pub(crate) mod flow_window;
pub(crate) mod handshake;
pub(crate) mod intake;
pub mod names;
mod outbuf;
pub(crate) mod payload_queue;
mod record;
pub(crate) mod send_budget;
mod socket;
mod tls;
pub(crate) mod wire;

pub use handshake::RevokedCertificates;
