//! Connections with other routers, until the core takes them: dialled, with backoff, failover and HTTP
//! proxies, and accepted, with limits on handshakes.
//!
//! The core spawns a task for each link ([`dial::run`]) and for each port that accepts links
//! ([`accept::port`]); both report with [`CoreEvent`](crate::messages::CoreEvent)s. They own no
//! connection that is up, and know nothing of routing.

pub(crate) mod accept;
pub(crate) mod dial;
#[cfg(test)]
pub(crate) mod fixtures;

pub use dial::{DialTarget, LinkSpec};
