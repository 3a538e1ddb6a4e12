//! The interior router, sans-I/O: neighbours, link state, mobile addresses, shortest paths.
//!
//! The driver feeds it whole control messages and time, and takes messages, changes and snapshots
//! ([`Routes`]) out. It reads no clock.

mod engine;
mod paths;
mod routes;
#[cfg(test)]
mod tests;
mod wire;

pub use engine::{Config, NetworkRouter, Output, Router, TooMany, Work};
pub use paths::Origins;
pub use routes::{
    AddressRoute, Choice, Exclude, LocalCandidate, Outstanding, Remote, RouterRoute, Routes,
    Target, Treatment,
};
pub use wire::ControlError;

/// A link to a neighbour, as the driver names it: its control connection.
pub type ConnId = u64;
