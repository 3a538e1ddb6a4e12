//! Connections with other routers, until the core takes them: dialled, with backoff, failover and HTTP
//! proxies, and accepted, with limits on handshakes.
//!
//! The core spawns a task for each link ([`dial::run`]) and for each port that accepts links
//! ([`accept::port`]), on its thread; both report with [`CoreEvent`](crate::messages::CoreEvent)s and end
//! with the link or the port. A handshake is a task of its own, with a deadline of 10 s.
//!
//! A link is dialled again after 0.1 s, doubled up to 2 s. While it is up, its task waits: for new
//! credentials, another cost or an earlier endpoint it makes a second connection, which takes the place
//! of the first. A port has at most 512 handshakes under way.
//!
//! They own no connection that is up, decide nothing about identities, and know nothing of routing.

pub(crate) mod accept;
pub(crate) mod dial;
#[cfg(test)]
pub(crate) mod fixtures;

pub use dial::{DialTarget, LinkSpec};
