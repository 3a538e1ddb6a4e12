//! What is told to those who watch: metrics, connections and health, over HTTP on a socket of this host.

mod api;
mod clients;
mod connections;
pub mod console;
mod health;
mod metrics;
mod server;
mod traffic;

pub use health::Health;
pub use metrics::render;
pub use server::{Doors, ObserveError, Steering, serve};
