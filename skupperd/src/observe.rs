//! What is told to those who watch: metrics and health, over HTTP on a socket of this host.

mod metrics;
mod server;

pub use metrics::render;
pub use server::{ObserveError, serve};
