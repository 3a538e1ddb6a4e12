//! What a connection keeps for each session and each link.

use super::{
    event::{DeliveryId, LinkId},
    unsettled::UnsettledDeliveries,
};
use crate::amqp::performative::{Attach, Flow, Role};
use std::collections::HashMap;

/// Frames of a session's incoming window, as skupper-router's `container.c` has it: 128 MiB of frames of
/// 16 KiB.
pub const SESSION_WINDOW: u32 = 8192;

/// The outgoing window that we advertise, as skupper-router does: we never limit ourselves by it.
pub(super) const OUTGOING_WINDOW: u32 = i32::MAX as u32;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) remote_channel: Option<u16>,
    pub(super) next_outgoing_id: u32,
    /// Frames the peer still takes.
    pub(super) remote_window: u32,
    /// A caller found the window closed and waits for `Event::Window`.
    pub(super) window_awaited: bool,
    pub(super) next_incoming_id: u32,
    /// Frames we still take before the peer has to wait for a flow.
    pub(super) incoming_window: u32,
    pub(super) remote_handle_max: u32,
    /// By remote handle. The peer chooses handles: a table would have the size of the highest.
    remote_handles: HashMap<u32, LinkId>,
    local_handles: Vec<Option<LinkId>>,
    free_handles: Vec<u32>,
    /// Our attaches that have no answer yet, by name.
    pub(super) unanswered: HashMap<String, LinkId>,
    pub(super) next_delivery: u32,
    pub(super) unsettled_out: UnsettledDeliveries,
    pub(super) unsettled_in: UnsettledDeliveries,
    /// Our `end` is in the output.
    pub(super) ending: bool,
}

impl Session {
    pub(super) fn new() -> Self {
        Self {
            remote_channel: None,
            next_outgoing_id: 0,
            // Transfers need credit, and credit needs the peer's begin: never used before it.
            remote_window: 0,
            window_awaited: false,
            next_incoming_id: 0,
            incoming_window: SESSION_WINDOW,
            remote_handle_max: u32::MAX,
            remote_handles: HashMap::new(),
            local_handles: Vec::new(),
            free_handles: Vec::new(),
            unanswered: HashMap::new(),
            next_delivery: 0,
            unsettled_out: UnsettledDeliveries::default(),
            unsettled_in: UnsettledDeliveries::default(),
            ending: false,
        }
    }

    /// A free local handle below `limit`, for [`set_local_handle`](Self::set_local_handle).
    pub(super) fn free_handle(&self, limit: usize) -> Option<u32> {
        let next = self.local_handles.len();
        let next = u32::try_from(next).ok().filter(|_| next < limit);
        let free = self.free_handles.last().copied();
        free.filter(|handle| (*handle as usize) < limit).or(next)
    }

    /// Gives a free handle to a link. True: the table of handles has grown by one.
    pub(super) fn set_local_handle(&mut self, handle: u32, link: LinkId) -> bool {
        if self.free_handles.last() == Some(&handle) {
            self.free_handles.pop();
        }
        match self.local_handles.get_mut(handle as usize) {
            Some(entry) => {
                *entry = Some(link);
                false
            }
            None => {
                self.local_handles.push(Some(link));
                true
            }
        }
    }

    /// All links of this session.
    pub(super) fn links(&self) -> impl Iterator<Item = LinkId> {
        self.local_handles.iter().copied().flatten()
    }

    /// The link that the peer attached with this handle.
    pub(super) fn by_remote_handle(&self, handle: u32) -> Option<LinkId> {
        self.remote_handles.get(&handle).copied()
    }

    pub(super) fn set_remote_handle(&mut self, handle: u32, link: LinkId) {
        self.remote_handles.insert(handle, link);
    }

    /// Frees the handles of a link and forgets its deliveries.
    pub(super) fn remove_link(&mut self, id: LinkId, link: &AmqpLink) -> SessionRelease {
        if let Some(entry) = self.local_handles.get_mut(link.handle as usize) {
            *entry = None;
            self.free_handles.push(link.handle);
        }
        if let Some(handle) = link.remote_handle {
            self.remote_handles.remove(&handle);
        }
        let mut handles = 0;
        if self.free_handles.len() == self.local_handles.len() {
            handles = self.local_handles.len();
            self.local_handles = Vec::new();
            self.free_handles = Vec::new();
            self.remote_handles = HashMap::new();
        }
        SessionRelease {
            handles,
            outgoing: self.unsettled_out.remove_link(id),
            incoming: self.unsettled_in.remove_link(id),
        }
    }

    /// Counts a transfer frame of the peer. `None`: the peer had no window left.
    pub(super) fn receive_transfer(&mut self) -> Option<u32> {
        self.next_incoming_id = self.next_incoming_id.wrapping_add(1);
        self.incoming_window = self.incoming_window.checked_sub(1)?;
        Some(self.incoming_window)
    }

    /// Counts a transfer frame of ours.
    pub(super) fn send_transfer(&mut self) {
        self.next_outgoing_id = self.next_outgoing_id.wrapping_add(1);
        self.remote_window = self.remote_window.saturating_sub(1);
    }

    /// Takes the peer's window from its flow. True: a caller waited for this.
    pub(super) fn update_window(&mut self, flow: &Flow) -> bool {
        // Before our begin arrives the peer may not know our first transfer id, which is 0.
        let expected = flow.next_incoming_id.unwrap_or(0);
        let end = expected.wrapping_add(flow.incoming_window);
        // Serial numbers (RFC 1982): an end that lies behind us means that nothing may be sent.
        let ahead = end.wrapping_sub(self.next_outgoing_id);
        self.remote_window = if ahead > i32::MAX as u32 { 0 } else { ahead };
        self.remote_window > 0 && std::mem::take(&mut self.window_awaited)
    }

    /// A flow with the session's state, which opens our window again; the caller adds a link's.
    pub(super) fn flow(&mut self) -> Flow {
        self.incoming_window = SESSION_WINDOW;
        Flow {
            next_incoming_id: self.remote_channel.map(|_| self.next_incoming_id),
            incoming_window: SESSION_WINDOW,
            next_outgoing_id: self.next_outgoing_id,
            outgoing_window: OUTGOING_WINDOW,
            ..Flow::default()
        }
    }

    pub(super) fn unsettled(&mut self, outgoing: bool) -> &mut UnsettledDeliveries {
        match outgoing {
            true => &mut self.unsettled_out,
            false => &mut self.unsettled_in,
        }
    }

    /// What goes with this session when it ends.
    pub(super) fn removed(&self) -> SessionRelease {
        SessionRelease {
            handles: self.local_handles.len(),
            outgoing: self.unsettled_out.len(),
            incoming: self.unsettled_in.len(),
        }
    }
}

/// Effect: what sessions no longer hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SessionRelease {
    /// Places in tables of handles.
    pub(super) handles: usize,
    /// Unsettled deliveries of ours.
    pub(super) outgoing: usize,
    /// Unsettled deliveries of the peer.
    pub(super) incoming: usize,
}

/// What all sessions of a connection keep: the sums, so that limits need no search.
#[derive(Debug, Default)]
pub(super) struct MemoryTotals {
    /// Places in tables of handles, used or free.
    pub(super) handles: usize,
    pub(super) outgoing: usize,
    pub(super) incoming: usize,
    /// Bytes of links: see `Limits::link_bytes`.
    pub(super) link_bytes: usize,
}

impl MemoryTotals {
    pub(super) fn unsettled(&mut self, outgoing: bool) -> &mut usize {
        match outgoing {
            true => &mut self.outgoing,
            false => &mut self.incoming,
        }
    }

    pub(super) fn subtract(&mut self, removed: SessionRelease) {
        self.handles = self.handles.saturating_sub(removed.handles);
        self.outgoing = self.outgoing.saturating_sub(removed.outgoing);
        self.incoming = self.incoming.saturating_sub(removed.incoming);
    }
}

#[derive(Debug, Default)]
pub(super) struct AmqpLink {
    /// Local channel of its session.
    pub(super) session: u16,
    pub(super) role: Role,
    pub(super) handle: u32,
    pub(super) remote_handle: Option<u32>,
    /// Sender: deliveries we may start. Receiver: deliveries the peer may start.
    pub(super) credit: u32,
    pub(super) delivery_count: u32,
    /// Receiver: credit that is topped up; 0: the caller gives credit itself.
    pub(super) credit_target: u32,
    /// The peer's attach, until it is accepted or refused.
    pub(super) unanswered: Option<Box<Attach>>,
    /// Our detach is in the output.
    pub(super) detached: bool,
    /// Its share of `Limits::link_bytes`.
    pub(super) bytes: usize,
    pub(super) current: Option<CurrentDelivery>,
}

/// The delivery that a link carries now: its last frame has not been sent or received yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct CurrentDelivery {
    pub(super) delivery: DeliveryId,
    pub(super) tag: u64,
    /// No frame of it has been sent.
    pub(super) unsent: bool,
    pub(super) settled: bool,
}
