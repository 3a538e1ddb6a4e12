//! The task of a connection: moves its bytes, feeds the protocol engine, hands events to the ends of
//! streams and to the worker, and carries out what the ends ask for.
//!
//! The worker starts [`run`] for each [`LinkConnection`], which has the state; the driver borrows it for
//! one poll, and owns only a timer and the ends of the batch that it processes. The worker gets its
//! events as [`ConnectionEvents`].
//!
//! A poll receives a few times (`RECEIVES`) and for a limited time (`SLICE`), handles the events of the
//! engine, runs its timers, and flushes. Stream ends return effects, which are carried out after each
//! batch: an end never borrows a connection.
//!
//! A connection is open until the peer ends it, an error, a budget or the core ends it, or it is retired
//! and its last stream has ended. Then all stream ends and the worker are notified, and the last bytes
//! have a second to be sent.
//!
//! It never blocks, and does not read while the core has too many of its messages to handle. It knows no
//! routes: the worker decides about each new stream.

mod events;
mod flush;
mod incoming;

use crate::amqp::{
    connection::{Event, LinkId},
    performative::{Attach, Error as AmqpError, Role},
};
use crate::link::names::{ROUTER_CONTROL, ROUTER_DATA};
use crate::link::{
    conn::{
        ConnectionKind, ConnectionState, InStream, LinkConnection, OutStream, RESOURCE_LIMIT,
        stream_end::{End, StreamEvent, deliver},
    },
    wire::ReceiveOutcome,
};
use crate::sys::clock;
pub(crate) use events::{ConnectionEnd, ConnectionEvents, MessageOrigin};
use flush::flush;
pub(crate) use incoming::MAX_HEAD;
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::time::Sleep;

/// Receives in one poll of the task, so that one busy link does not hold the worker.
const RECEIVES: usize = 4;
/// Time in which events are handled in one poll of the task: a peer can put ten thousand into one
/// receive.
const SLICE: Duration = Duration::from_millis(1);
/// Events between two looks at the clock.
const EVENTS: usize = 32;

/// Runs a connection until it ends.
pub(crate) async fn run<W: ConnectionEvents>(
    worker: Rc<W>,
    conn: Rc<LinkConnection>,
) -> ConnectionEnd {
    let mut driver = Driver::new(worker, conn);
    let reason = poll_fn(|cx| driver.poll_once(cx)).await;
    driver.finish(reason).await
}

struct Driver<W> {
    worker: Rc<W>,
    conn: Rc<LinkConnection>,
    timer: Option<Pin<Box<Sleep>>>,
    /// The peer sends nothing any more.
    peer_ended: bool,
    /// Ends that got something in the batch that is being processed.
    batch: Vec<End>,
}

impl<W: ConnectionEvents> Driver<W> {
    fn new(worker: Rc<W>, conn: Rc<LinkConnection>) -> Self {
        Self {
            worker,
            conn,
            timer: None,
            peer_ended: false,
            batch: Vec::new(),
        }
    }

    fn poll_once(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        let conn = self.conn.clone();
        let state = &mut *conn.borrow();
        state.waker = Some(cx.waker().clone());
        if let Some(error) = state.failed.take() {
            if error.condition.as_str() == RESOURCE_LIMIT {
                self.worker.over_budget(&conn, &error.to_string());
            }
            state.amqp.close(Some(error.clone()));
            return Poll::Ready(ConnectionEnd::ByUs(error));
        }
        if let Poll::Ready(ended) = self.receive(state, cx) {
            return Poll::Ready(ended);
        }
        if state.retire && state.streams() == 0 {
            state.amqp.close(None);
            return Poll::Ready(ConnectionEnd::Retired);
        }
        if let Err(reason) = self.run_timers(state, cx) {
            return Poll::Ready(ConnectionEnd::Failed(reason));
        }
        let flushed = flush(state, cx);
        state.charge_held();
        flushed.map(|error| ConnectionEnd::Failed(crate::telemetry::chain(&error)))
    }

    fn receive(
        &mut self,
        state: &mut ConnectionState,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionEnd> {
        let mut receives = 0;
        let end = clock::now() + SLICE;
        loop {
            // Over its budget the connection is not read; what was read before is handled first.
            if state.intake.wait(state.key, cx.waker()) {
                return Poll::Pending;
            }
            if !state.chunks.is_empty()
                && let Err(ended) = self.process(state, end)
            {
                return Poll::Ready(ended);
            }
            if self.peer_ended && state.chunks.is_empty() {
                return Poll::Ready(ConnectionEnd::ByPeer(None));
            }
            if !state.chunks.is_empty() && !state.intake.is_full() {
                yield_to_others(cx);
                return Poll::Pending;
            }
            match state.wire.poll_recv(cx, &mut state.chunks) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(e)) => {
                    return Poll::Ready(ConnectionEnd::Failed(crate::telemetry::chain(&e)));
                }
                Poll::Ready(Ok(received)) => {
                    if let Err(ended) = self.process(state, end) {
                        return Poll::Ready(ended);
                    }
                    if received == ReceiveOutcome::End {
                        // What is left comes before the end.
                        self.peer_ended = true;
                        continue;
                    }
                }
            }
            receives += 1;
            if receives == RECEIVES {
                yield_to_others(cx);
                return Poll::Pending;
            }
        }
    }

    fn run_timers(
        &mut self,
        state: &mut ConnectionState,
        cx: &mut Context<'_>,
    ) -> Result<(), String> {
        loop {
            let Some(at) = state.amqp.poll_timeout() else {
                return Ok(());
            };
            let at = tokio::time::Instant::from_std(at);
            let sleep = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            if sleep.deadline() > at || sleep.is_elapsed() {
                sleep.as_mut().reset(at);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            state
                .amqp
                .handle_timeout(clock::now())
                .map_err(|e| e.to_string())?;
            state.wire.trim();
        }
    }

    /// Feeds what was received to the engine and acts on its events, until it is time to let others work.
    fn process(&mut self, state: &mut ConnectionState, end: Instant) -> Result<(), ConnectionEnd> {
        let now = clock::now();
        let mut events = 0;
        'chunks: while let Some(mut chunk) = state.chunks.pop_front() {
            loop {
                events += 1;
                let is_over = events % EVENTS == 0 && clock::now() >= end;
                if is_over || state.intake.is_full() {
                    state.chunks.push_front(chunk);
                    break 'chunks;
                }
                match state.amqp.receive(&mut chunk, now) {
                    Ok(Some(event)) => self.handle(state, event)?,
                    Ok(None) => break,
                    Err(e) => return Err(ConnectionEnd::Failed(e.to_string())),
                }
            }
        }
        for end in self.batch.drain(..) {
            end.event(StreamEvent::BatchOver, &mut state.effects);
        }
        state.carry_out_effects();
        if self.conn.budget.take_overrun() {
            self.worker
                .streams_over_budget(&self.conn, &self.conn.budget);
        }
        Ok(())
    }

    fn handle(&mut self, state: &mut ConnectionState, event: Event) -> Result<(), ConnectionEnd> {
        match event {
            Event::Transfer {
                link,
                delivery,
                first,
                settled,
                payload,
                more,
                aborted,
            } => {
                let stream = InStream { link, delivery };
                if first {
                    state.deliveries.begin(stream, settled);
                }
                self.transfer(state, stream, payload, !more, aborted);
            }
            Event::Disposition {
                link,
                delivery,
                settled,
                state: outcome,
            } => {
                let outcome = outcome.as_deref();
                if state.stream_links.is_fixed(link) {
                    let conn = &self.conn;
                    self.worker
                        .message_settled(conn, link, delivery, settled, outcome);
                } else {
                    state.disposed(OutStream { link, delivery }, settled, outcome);
                }
            }
            Event::Flow {
                link,
                credit,
                drain,
            } => self.credited(state, link, credit, drain),
            Event::Window { .. } => {
                state.open_waiting();
                state.announce_room();
            }
            Event::Attach {
                link,
                remote_initiated,
                attach,
            } => {
                if remote_initiated {
                    self.attached(state, link, &attach);
                }
            }
            Event::Detach { link, error, .. } => {
                if let Some(error) = error {
                    tracing::debug!(conn = self.conn.key, %error, "link detached by the peer");
                }
                if matches!(
                    self.conn.kind,
                    ConnectionKind::Normal | ConnectionKind::Edge
                ) {
                    let permit = state.intake.permit(0);
                    self.worker.link_detached(&self.conn, link, permit);
                }
                state.detached(link);
            }
            Event::Close(error) => return Err(ConnectionEnd::ByPeer(error)),
            Event::Open(_) | Event::Begin { .. } => {}
            Event::End { session, error } => {
                let conn = self.conn.key;
                tracing::debug!(conn, ?session, error = ?error, "session ended by the peer");
            }
        }
        Ok(())
    }

    fn credited(&mut self, state: &mut ConnectionState, link: LinkId, credit: u32, drain: bool) {
        if credit > 0 {
            state.link_ready(link);
            state.advance_line(link);
            if state.fixed.control == Some(link) && !state.fixed.reported {
                state.fixed.reported = true;
                self.worker.control_ready(&self.conn);
            }
        }
        let is_own = match self.conn.kind {
            ConnectionKind::Normal => true,
            ConnectionKind::Edge => state.stream_links.is_fixed(link),
            ConnectionKind::Control | ConnectionKind::Data => false,
        };
        if is_own {
            self.worker
                .link_credit(&self.conn, state, link, credit, drain);
        }
    }

    fn attached(&mut self, state: &mut ConnectionState, link: LinkId, attach: &Attach) {
        let kind = self.conn.kind;
        if kind == ConnectionKind::Normal || (kind == ConnectionKind::Edge && is_addressed(attach))
        {
            self.worker.link_attached(&self.conn, state, link, attach);
            return;
        }
        // The peer's sender is our receiver and the other way round.
        let receives = attach.role == Role::Sender;
        let terminus = |name: &str| {
            let has = |caps: &[crate::amqp::value::Symbol]| caps.iter().any(|c| c.as_str() == name);
            attach.target.as_ref().is_some_and(|t| has(&t.capabilities))
                || attach.source.as_ref().is_some_and(|s| has(&s.capabilities))
        };
        if terminus(ROUTER_CONTROL) && kind == ConnectionKind::Control {
            state.accept(link, attach);
            if receives {
                state.deliveries.reset(link);
                state.fixed.control_in = Some(link);
            } else {
                state.stream_links.set_fixed(link);
                state.fixed.control = Some(link);
            }
        } else if receives {
            state.accept(link, attach);
            state.deliveries.reset(link);
        } else if terminus(ROUTER_DATA) && kind == ConnectionKind::Control {
            state.accept(link, attach);
            state.stream_links.set_fixed(link);
            // The peer attaches one for each priority, in order.
            if let Some(slot) = state.fixed.data.iter_mut().find(|slot| slot.is_none()) {
                *slot = Some(link);
            }
        } else {
            let error = AmqpError::new("amqp:not-allowed", "no such source on this connection");
            state.amqp.refuse_attach(link, error);
        }
    }

    /// Closes the connection: notifies the peer and all stream ends.
    async fn finish(self, reason: ConnectionEnd) -> ConnectionEnd {
        let conn = self.conn;
        conn.closed.set(true);
        // What ends have asked for on other connections.
        conn.borrow().carry_out_effects();
        let ends = conn.borrow().take_ends();
        for end in ends {
            deliver(&*end, StreamEvent::Lost);
        }
        self.worker.ended(&conn);
        {
            let mut state = conn.borrow();
            if matches!(reason, ConnectionEnd::ByPeer(_)) {
                state.amqp.close(None);
            }
            state.drain_control();
        }
        // A peer that does not read must not keep the socket: what is not sent in a second is lost.
        let flush = poll_fn(|cx| {
            let mut state = conn.borrow();
            match state.wire.poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    state.wire.close_notify().ok();
                    state.wire.poll_flush(cx).map(drop)
                }
                other => other.map(drop),
            }
        });
        tokio::time::timeout(Duration::from_secs(1), flush)
            .await
            .ok();
        reason
    }
}

/// Lets other tasks run, and the runtime look at sockets and timers. A task that wakes itself runs 61 times
/// before that.
fn yield_to_others(cx: &mut Context<'_>) {
    let turn = std::pin::pin!(tokio::task::yield_now());
    if turn.poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
}

/// A link that names what it is for; streams of an edge's connection go over others.
fn is_addressed(attach: &Attach) -> bool {
    match attach.role {
        Role::Sender => attach.target.as_ref().is_some_and(|t| t.address.is_some()),
        Role::Receiver => true,
    }
}

#[cfg(test)]
mod tests;
