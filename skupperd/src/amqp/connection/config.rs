//! What a caller decides about a connection: our `open`, bounds on memory, a link to attach; and the
//! buffer that it provides.

use crate::amqp::{
    performative::{Role, Source, Target},
    value::{Symbol, Value},
};
use std::time::Duration;

/// Longest frame header with its transfer performative that `Connection::transfer_header` writes:
/// 8 (frame) + 3 (descriptor) + 3 (list) + 5 (handle) + 5 (id) + 10 (tag) + 1 (format) + flags.
pub const MAX_TRANSFER_HEADER: usize = 48;

/// What a link counts for beside the bytes of its attach: its entries in our tables and the caller's.
pub const LINK_BYTES: usize = 256;

/// Bounds on what a peer can make us keep.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub sessions: usize,
    /// Links of all sessions; also one more than the highest handle.
    pub links: usize,
    /// Bytes of all links that the peer has attached: the frame of each attach, and [`LINK_BYTES`] for
    /// what this process keeps of a link.
    pub link_bytes: usize,
    /// Unsettled deliveries of all sessions, in each direction.
    pub unsettled: usize,
    /// Longest frame, in bytes, of a performative other than transfer.
    pub performative: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 1024,
            links: 70_000,
            // Two routers with 32,000 streams each way, whose attaches have about 150 bytes.
            link_bytes: 32 * 1024 * 1024,
            unsettled: 200_000,
            performative: 64 * 1024,
        }
    }
}

/// Our side of `open`. The defaults are those that skupper-router sends.
#[derive(Clone, Debug)]
pub struct Config {
    pub container_id: String,
    /// Host that was dialled.
    pub hostname: Option<String>,
    /// Largest frame we take, in bytes.
    pub max_frame_size: u32,
    /// Highest channel.
    pub channel_max: u16,
    /// Advertised idle time-out; a peer that is silent for twice that long is lost.
    pub idle_timeout: Duration,
    /// Offered and desired capabilities.
    pub capabilities: Vec<Symbol>,
    pub properties: Vec<(Value, Value)>,
    pub limits: Limits,
}

impl Config {
    /// The values of skupper-router's `open` (`decorate_connection`), without properties.
    pub fn new(container_id: impl Into<String>) -> Self {
        Self {
            container_id: container_id.into(),
            hostname: None,
            // `maxFrameSize` of skupper-router's listeners and connectors.
            max_frame_size: 16_384,
            // `maxSessions` of the same, less one.
            channel_max: 32_767,
            // Half of its `idleTimeoutSeconds`, which is 16.
            idle_timeout: Duration::from_secs(8),
            capabilities: Vec::new(),
            properties: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// Arguments of an attach.
#[derive(Clone, Debug, Default)]
pub struct AttachArgs {
    /// Name; unique between the two containers.
    pub name: String,
    pub role: Role,
    /// Where deliveries come from.
    pub source: Source,
    /// Where deliveries go to.
    pub target: Target,
    /// Of a receiver: credit that is topped up as deliveries arrive.
    pub credit: u32,
}
