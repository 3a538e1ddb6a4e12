//! What is kept of the input between two calls.

use super::event::{DeliveryId, LinkId};
use bytes::BytesMut;

#[derive(Debug, Default)]
pub(super) struct Parser {
    pub(super) header_seen: bool,
    /// The start of a frame whose performative is not complete.
    pub(super) partial: BytesMut,
    /// Bytes that `partial` must have before another try is worth it.
    pub(super) need: usize,
    /// The transfer whose payload is being passed on.
    pub(super) transfer: Option<TransferPayload>,
}

/// The payload of one transfer frame, as far as it has not arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct TransferPayload {
    /// Bytes still to come.
    pub(super) left: usize,
    pub(super) link: LinkId,
    pub(super) delivery: DeliveryId,
    pub(super) first: bool,
    pub(super) settled: bool,
    pub(super) more: bool,
    pub(super) aborted: bool,
}
