//! What is told to those who watch: metrics and health, over HTTP on a socket of this host.

mod health;
mod metrics;
mod server;

pub use health::Health;
pub use metrics::render;
pub use server::{ObserveError, Steering, serve};
