//! Bindings and accept sockets, as users see them.

use super::accel::AccelerationStatus;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing {
    /// Whether the kernel steers.
    pub enabled: bool,
    /// Why not; `None` if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether clients wait during a restart.
    pub kept: bool,
    /// Why not; `None` if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_reason: Option<String>,
    /// `None` in another network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acceleration: Option<AccelerationStatus>,
    pub bindings: Vec<SteeredAddress>,
    pub sockets: Vec<AcceptSocket>,
}

/// Addresses and ports that are steered to a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SteeredAddress {
    /// Address, or the first one of a prefix.
    pub address: IpAddr,
    pub prefix: u8,
    /// A port, a range of ports, or `all`.
    pub ports: String,
    pub namespace: String,
    pub listener: String,
    pub routing_key: String,
    /// Steered connections of the listener, over all its addresses.
    pub steered: u64,
    /// Refused connections of the listener.
    pub refused: u64,
}

/// A socket that receives steered connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptSocket {
    pub worker: usize,
    /// Its own address. Connections to it are refused.
    pub address: SocketAddr,
    /// Whether it comes from the previous process.
    pub adopted: bool,
}
