//! From the network to the socket: payload of the incoming stream, written and acknowledged.

use crate::{
    link::{
        conn::{
            DeliveryOutcome,
            stream_end::{StreamEffects, StreamReply},
        },
        flow_window::{ACK_EVERY, NATIVE_ACK_EVERY},
        payload_queue::PayloadQueue,
    },
    proxy::{flow::FlowRecorder, stream::Stream},
    worker::stream_source::StreamSource,
};
use bytes::Bytes;
use std::io::{self, IoSlice};

/// Pieces of one write.
const PIECES: usize = 32;

/// The incoming direction of a bridged connection.
pub(super) struct Inbound {
    source: Option<StreamSource>,
    queue: PayloadQueue,
    written: u64,
    acknowledged: u64,
    ack_every: u64,
    /// The stream is complete.
    ended: bool,
    /// The socket's write side is shut down, and the stream settled.
    done: bool,
    closed: bool,
}

impl Inbound {
    pub(super) fn new() -> Self {
        Self {
            source: None,
            queue: PayloadQueue::default(),
            written: 0,
            acknowledged: 0,
            ack_every: ACK_EVERY,
            ended: false,
            done: false,
            closed: false,
        }
    }

    pub(super) fn set_source(&mut self, source: StreamSource) {
        self.queue.charge_to(&source.budget());
        self.source = Some(source);
    }

    pub(super) fn has_source(&self) -> bool {
        self.source.is_some()
    }

    pub(super) fn take_source(&mut self) -> Option<StreamSource> {
        self.source.take()
    }

    /// The sender is of our own kind, and expects acknowledgements in small steps.
    pub(super) fn acknowledge_often(&mut self) {
        self.ack_every = NATIVE_ACK_EVERY;
    }

    /// Further payload is wanted.
    pub(super) fn is_receiving(&self) -> bool {
        !self.closed && !self.ended
    }

    pub(super) fn receive(&mut self, payload: Bytes) {
        self.queue.push(payload);
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// The stream was given up: nothing more is written, so that the socket sees no FIN. False: all of
    /// it was written before.
    pub(super) fn abort(&mut self) -> bool {
        self.queue.clear();
        !self.done
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// What is queued has to wait for the socket. False: too much waits for the peer of the stream.
    #[must_use]
    pub(super) fn keep_queued(&mut self) -> bool {
        self.queue.keep()
    }

    /// Takes what was received and not written, and whether the stream is complete, for a delegate.
    pub(super) fn hand_over(&mut self) -> (PayloadQueue, bool) {
        self.source = None;
        (std::mem::take(&mut self.queue), self.ended)
    }

    /// Stops receiving. Returns the sender if the stream is not settled.
    pub(super) fn close(&mut self) -> Option<StreamSource> {
        self.closed = true;
        self.queue.clear();
        self.source.take().filter(|_| !self.done)
    }

    /// Writes what the socket takes at once.
    pub(super) fn write(
        &mut self,
        socket: &Stream,
        flow: &FlowRecorder,
        effects: &mut StreamEffects,
    ) -> io::Result<()> {
        socket.flush()?;
        while !self.queue.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let count = self.queue.pieces(&mut pieces);
            let n = match socket.write(&pieces[..count]) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            self.queue.advance(n);
            self.written += n as u64;
            flow.add_written(n);
            if self.written - self.acknowledged >= self.ack_every && !self.ended {
                self.acknowledged = self.written;
                if let Some(source) = &self.source {
                    source.reply(StreamReply::Ack(self.written), effects);
                }
            }
        }
        if self.ended && !self.done {
            match socket.shutdown() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                ended => ended?,
            }
            self.done = true;
            if let Some(source) = &self.source {
                source.reply(StreamReply::Outcome(DeliveryOutcome::Accepted), effects);
            }
        }
        Ok(())
    }
}
