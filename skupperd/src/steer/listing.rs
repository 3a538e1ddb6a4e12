//! What is steered where, for people to look at.

use super::accel::Standing;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// Everything that the kernel steers to us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing {
    /// Whether the kernel steers.
    pub enabled: bool,
    /// Why not; none if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether clients wait while the daemon is restarted.
    pub kept: bool,
    /// Why not; none if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_reason: Option<String>,
    /// Whether connections are accelerated; none where that is not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acceleration: Option<Standing>,
    /// Where listeners are reached.
    pub bindings: Vec<Bound>,
    /// Where connections to them arrive.
    pub sockets: Vec<AcceptSocket>,
}

/// Addresses and ports that lead to a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bound {
    /// Address, the first of a prefix.
    pub address: IpAddr,
    /// Bits of it that count.
    pub prefix: u8,
    /// Its port, a range of them, or `all`.
    pub ports: String,
    /// Namespace of the listener.
    pub namespace: String,
    /// The listener.
    pub listener: String,
    /// Its routing key.
    pub routing_key: String,
    /// Connections to the listener, wherever it is reached, that were given to an accept socket.
    pub steered: u64,
    /// Those that were refused.
    pub refused: u64,
}

/// A socket that connections arrive at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptSocket {
    /// The worker that accepts on it.
    pub worker: usize,
    /// Its own address, which nobody is to connect to.
    pub address: SocketAddr,
    /// Whether an earlier process had it.
    pub adopted: bool,
}
