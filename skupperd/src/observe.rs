//! Metrics, connections, health, the read-only API and the console, over HTTP on sockets of this host.
//!
//! The daemon calls [`serve`] once, which starts a task for each socket on the main thread: `metrics.sock`
//! in the runtime directory, and the TCP addresses of metrics and console if there are any. `server`
//! accepts, `readers` limits connections for each reader, `routes` answers.
//!
//! It reads and owns no state: the snapshot of resources and statuses that the reconcile loop publishes,
//! the records of [`crate::flows`], the health of the threads ([`LoopHealth`]), and counters of the
//! kernel. A lock of a worker's records is held while pointers are copied.
//!
//! It never changes anything. Connections and requests are only for root, the daemon's own user, and
//! holders of the console's token.

mod api;
mod attribution;
mod connections;
pub mod console;
mod health;
mod metrics;
mod readers;
mod routes;
mod server;

pub use health::LoopHealth;
pub use metrics::render;
pub use routes::SteeringSource;
pub use server::{ObserverServerError, ServeAddresses, serve};
