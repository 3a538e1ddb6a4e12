//! The transport of a link: TLS, records, an AMQP connection on a socket.
//!
//! A link is one control connection and a trunk of data connections, each owned by one worker
//! ([`crate::worker`]). The core ([`crate::core`]) owns the routers and never touches a stream.
//!
//! `handshake` makes a TCP connection a secured AMQP connection, for the tasks of [`crate::peering`].
//! Then a worker owns it: a [`conn::LinkConnection`] with the state, moved by a task of `driver` on that
//! worker's thread. `wire` seals and opens records (`record`) in the buffers that bytes are read into
//! (`outbuf`); `flow_window` bounds a stream, `send_budget` what is queued, `intake` what the core has
//! not handled yet.
//!
//! It never decides where a stream goes, takes no locks, and holds for a peer no more than the budgets
//! in `docs/guide/security.md`.

pub mod conn;
pub(crate) mod driver;
pub(crate) mod flow_window;
pub(crate) mod handshake;
pub(crate) mod intake;
pub mod names;
mod outbuf;
pub(crate) mod payload_queue;
pub mod peer_budget;
mod record;
pub(crate) mod send_budget;
mod socket;
mod tls;
pub(crate) mod wire;

pub use handshake::RevokedCertificates;
