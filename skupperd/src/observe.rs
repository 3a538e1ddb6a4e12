//! Metrics, connections, health, the read-only API and the console, over HTTP on sockets of this host.

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
