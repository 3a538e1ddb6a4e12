//! Services as workers see them: what a listener or connector does to connections beside carrying
//! them, and the snapshot of a site that it is part of.
//!
//! The reconcile loop makes policies of resources (`policy`: TLS, users, routing keys; `allowed`: sites
//! and users). The core publishes them with a [`view::SiteView`]. Workers read both, for each connection.
//! They are immutable except for counters and the last failure of a server.
//!
//! It opens no sockets and logs nothing. What it denies is logged by the proxy.

pub mod allowed;
pub mod failures;
pub mod keys;
pub mod origin;
pub mod policy;
pub mod tls;
pub mod view;
