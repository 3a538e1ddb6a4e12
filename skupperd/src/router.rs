//! The router of a site, sans-I/O: control messages and time in, messages and routes out.
//!
//! A [`Router`] owns a site's knowledge of its network: its links to neighbours and what they cost, the
//! link states of all other routers, who consumes which address, and the edges that it serves. From
//! that follow the shortest paths, and from these the [`Routes`]: an immutable snapshot by which the
//! workers choose where a delivery goes. The same type, with a mesh and an uplink, is the router of an
//! edge, which takes no part in the control protocol.
//!
//! The core of a site calls it: links, edges and consumers that come and go, control messages
//! ([`Router::control`]), and time ([`Router::handle_timeout`] when [`Router::poll_timeout`] is due).
//! After each call it carries out the outputs of [`Router::poll_output`].
//!
//! A neighbour is heard (its HELLO has come), then in two-way contact (its HELLO names us), then lost.
//! Another router is named (in another router's link state), known (its RA or link state has come),
//! unreachable for a while, and forgotten.
//!
//! It never reads a clock or a socket, never waits, and never carries deliveries other than control
//! messages. All routers of a network must compute the same trees ([`paths`]), or a multicast loops.

mod control;
mod engine;
mod paths;
mod routes;
#[cfg(test)]
mod tests;

pub use control::{ControlError, is_address, is_id};
pub use engine::{NetworkRouter, Output, OwnerId, Router, RouterConfig, RoutingWork, TooMany};
pub use paths::Origins;
pub use routes::{
    AddressRoute, Choice, ConnId, Exclusions, LocalCandidate, OutstandingDelivery, ParsedAddress,
    Remote, RouterRoute, Routes, Treatment,
};
