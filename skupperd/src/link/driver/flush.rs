//! Sending: the output of the engine and of streams, until the socket is full.

use crate::{
    link::{conn::ConnectionState, wire::WireError},
    sys::clock,
};
use std::task::{Context, Poll};

/// Sends what is there and lets others send, until the socket takes no more or nothing is left.
/// Ready: the socket has failed.
pub(super) fn flush(state: &mut ConnectionState, cx: &mut Context<'_>) -> Poll<WireError> {
    loop {
        state.drain_control();
        let before = state.wire.octets_out;
        match state.wire.poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                // A poll that sent nothing must not put off the heartbeat.
                if state.wire.octets_out > before {
                    state.amqp.note_sent(clock::now());
                }
                state.open_waiting();
                state.announce_room();
                state.carry_out_effects();
                if state.wire.is_flushed() && state.amqp.output().is_empty() {
                    return Poll::Pending;
                }
            }
            Poll::Ready(Err(e)) => return Poll::Ready(e),
            Poll::Pending => {
                // A slow socket never takes everything at once: new streams go ahead of bulk here too.
                state.open_waiting();
                state.announce_room();
                state.carry_out_effects();
                return Poll::Pending;
            }
        }
    }
}
