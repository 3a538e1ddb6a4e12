//! The task of a connection: moves its bytes, feeds the protocol engine, hands events to the ends of
//! streams and to the worker.

use super::{
    conn::{Conn, InStream, Incoming, Inner, Kind, Outgoing},
    wire::Received,
    worker::Worker,
};
use crate::amqp::{
    connection::{DeliveryId, Event, LinkId},
    message::{self, StreamParse},
    performative::{Attach, Error as AmqpError, Role},
};
use bytes::{Bytes, BytesMut};
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};
use tokio::time::Sleep;

/// Longest head of a stream: annotations, properties and application properties. Upstream's are
/// below 400 bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Longest complete message: a mobile-address update for tens of thousands of addresses.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Receives in one turn of the task, so that one busy link does not hold the worker.
const TURNS: usize = 4;

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// The peer closed it in order.
    ByPeer(Option<String>),
    /// We closed it.
    ByUs(String),
    /// The socket, TLS or the protocol failed.
    Failed(String),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ByPeer(None) => f.write_str("closed by the peer"),
            Self::ByPeer(Some(why)) => write!(f, "closed by the peer: {why}"),
            Self::ByUs(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

/// Runs a connection until it ends.
pub(super) async fn run(worker: Rc<Worker>, conn: Rc<Conn>) -> Ended {
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    let ended = poll_fn(|cx| turn(&worker, &conn, &mut timer, cx)).await;
    finish(&worker, &conn, ended).await
}

fn turn(
    worker: &Rc<Worker>,
    conn: &Rc<Conn>,
    timer: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> Poll<Ended> {
    let mut guard = conn.borrow();
    let inner = &mut *guard;
    inner.waker = Some(cx.waker().clone());
    if let Some(error) = inner.failed.take() {
        let why = error.to_string();
        inner.amqp.close(Some(error));
        return Poll::Ready(Ended::ByUs(why));
    }
    let mut turns = 0;
    loop {
        match inner.wire.poll_recv(cx, &mut inner.chunks) {
            Poll::Pending => break,
            Poll::Ready(Err(e)) => return Poll::Ready(Ended::Failed(Inner::wire_failed(&e))),
            Poll::Ready(Ok(received)) => {
                if let Err(ended) = process(worker, conn, inner) {
                    return Poll::Ready(ended);
                }
                if received == Received::End {
                    return Poll::Ready(Ended::ByPeer(None));
                }
            }
        }
        turns += 1;
        if turns == TURNS {
            cx.waker().wake_by_ref();
            break;
        }
    }
    if inner.retire && inner.streams() == 0 {
        let why = "another connection has taken over";
        inner.amqp.close(None);
        return Poll::Ready(Ended::ByUs(why.to_owned()));
    }
    if let Err(why) = timers(inner, timer, cx) {
        return Poll::Ready(Ended::Failed(why));
    }
    loop {
        inner.drain_control();
        let before = inner.wire.octets_out;
        match inner.wire.poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                // A turn that sent nothing must not put off the heartbeat.
                if inner.wire.octets_out > before {
                    inner.amqp.note_sent(Instant::now());
                }
                inner.announce_room();
                inner.open_waiting();
                if inner.wire.is_flushed() && inner.amqp.output().is_empty() {
                    return Poll::Pending;
                }
            }
            Poll::Ready(Err(e)) => return Poll::Ready(Ended::Failed(Inner::wire_failed(&e))),
            Poll::Pending => {
                inner.announce_room();
                return Poll::Pending;
            }
        }
    }
}

fn timers(
    inner: &mut Inner,
    timer: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> Result<(), String> {
    loop {
        let Some(at) = inner.amqp.poll_timeout() else {
            return Ok(());
        };
        let at = tokio::time::Instant::from_std(at);
        let sleep = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() > at || sleep.is_elapsed() {
            sleep.as_mut().reset(at);
        }
        if sleep.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        inner
            .amqp
            .handle_timeout(Instant::now())
            .map_err(|e| e.to_string())?;
        inner.wire.trim();
    }
}

/// Feeds what was received to the engine and acts on its events.
fn process(worker: &Rc<Worker>, conn: &Rc<Conn>, inner: &mut Inner) -> Result<(), Ended> {
    let now = Instant::now();
    while let Some(mut chunk) = inner.chunks.pop_front() {
        loop {
            match inner.amqp.receive(&mut chunk, now) {
                Ok(Some(event)) => handle(worker, conn, inner, event)?,
                Ok(None) => break,
                Err(e) => return Err(Ended::Failed(e.to_string())),
            }
        }
    }
    for end in std::mem::take(&mut inner.dirty) {
        end.flush(Some(inner));
    }
    Ok(())
}

fn handle(
    worker: &Rc<Worker>,
    conn: &Rc<Conn>,
    inner: &mut Inner,
    event: Event,
) -> Result<(), Ended> {
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
            if first {
                begin(inner, link, delivery, settled);
            }
            transfer(worker, conn, inner, link, payload, !more, aborted);
        }
        Event::Disposition {
            link,
            delivery,
            settled,
            state,
        } => {
            if matches!(inner.out_link(link), Outgoing::Fixed) {
                worker.message_outcome(conn, link, delivery, settled, state.as_deref());
            } else {
                inner.disposed(link, delivery, settled, state.as_deref());
            }
        }
        Event::Flow {
            link,
            credit,
            drain,
        } => {
            if credit > 0 {
                inner.link_ready(link);
                inner.advance_line(link);
                if inner.fixed.control == Some(link) && !inner.fixed.reported {
                    inner.fixed.reported = true;
                    worker.control_ready(conn);
                }
            }
            let own = match conn.kind {
                Kind::Normal => true,
                Kind::Edge => matches!(inner.out_link(link), Outgoing::Fixed),
                Kind::Control | Kind::Data => false,
            };
            if own {
                worker.client_credit(conn, inner, link, credit, drain);
            }
        }
        Event::Window { .. } => {
            inner.open_waiting();
            inner.announce_room();
        }
        Event::Attach {
            link,
            remote_initiated,
            attach,
        } => {
            attached(worker, conn, inner, link, remote_initiated, &attach);
        }
        Event::Detach { link, error, .. } => detached(worker, conn, inner, link, error.as_deref()),
        Event::Close(error) => return Err(Ended::ByPeer(error.map(|e| e.to_string()))),
        Event::Open(_) | Event::Begin { .. } => {}
        Event::End { session, error } => {
            tracing::debug!(conn = conn.key, ?session, error = ?error, "session ended by the peer");
        }
    }
    Ok(())
}

fn attached(
    worker: &Rc<Worker>,
    conn: &Rc<Conn>,
    inner: &mut Inner,
    link: LinkId,
    remote_initiated: bool,
    attach: &Attach,
) {
    if !remote_initiated {
        return;
    }
    if conn.kind == Kind::Normal || (conn.kind == Kind::Edge && is_addressed(attach)) {
        worker.client_attached(conn, inner, link, attach);
        return;
    }
    // The peer's sender is our receiver and the other way round.
    let receives = attach.role == Role::Sender;
    let terminus = |name: &str| {
        let has = |caps: &[crate::amqp::value::Symbol]| caps.iter().any(|c| c.as_str() == name);
        attach.target.as_ref().is_some_and(|t| has(&t.capabilities))
            || attach.source.as_ref().is_some_and(|s| has(&s.capabilities))
    };
    if terminus("qd.router") && conn.kind == Kind::Control {
        inner.accept(link, attach);
        if receives {
            *inner.in_link(link) = Incoming::Idle;
        } else {
            *inner.out_link(link) = Outgoing::Fixed;
            inner.fixed.control = Some(link);
        }
    } else if receives {
        inner.accept(link, attach);
        *inner.in_link(link) = Incoming::Idle;
    } else if terminus("qd.router-data") && conn.kind == Kind::Control {
        inner.accept(link, attach);
        *inner.out_link(link) = Outgoing::Fixed;
        // The peer attaches one for each priority, in order.
        if let Some(place) = inner.fixed.data.iter_mut().find(|place| place.is_none()) {
            *place = Some(link);
        }
    } else {
        let error = AmqpError::new("amqp:not-allowed", "no such source on this connection");
        inner.amqp.refuse_attach(link, error);
    }
}

/// A link that names what it is for; streams of an edge's connection go over others.
fn is_addressed(attach: &Attach) -> bool {
    match attach.role {
        Role::Sender => attach.target.as_ref().is_some_and(|t| t.address.is_some()),
        Role::Receiver => true,
    }
}

fn detached(
    worker: &Rc<Worker>,
    conn: &Rc<Conn>,
    inner: &mut Inner,
    link: LinkId,
    error: Option<&AmqpError>,
) {
    if let Some(error) = error {
        tracing::debug!(conn = conn.key, %error, "link detached by the peer");
    }
    if matches!(conn.kind, Kind::Normal | Kind::Edge) {
        worker.client_detached(conn, link);
    }
    let outgoing = inner.out_detached(link);
    let incoming = match std::mem::take(inner.in_link(link)) {
        Incoming::Stream { end, .. } => Some(end),
        _ => None,
    };
    // In the middle of a stream that is a reset to the application.
    for end in [outgoing, incoming].into_iter().flatten() {
        end.end(Some(inner), true);
        end.flush(Some(inner));
    }
}

fn begin(inner: &mut Inner, link: LinkId, delivery: DeliveryId, settled: bool) {
    let previous = std::mem::replace(
        inner.in_link(link),
        Incoming::Head {
            delivery,
            settled,
            buf: BytesMut::new(),
            message: false,
        },
    );
    if matches!(previous, Incoming::Stream { .. }) {
        // The earlier stream is complete and only its settlement is missing, which its end does by
        // delivery and not by link.
        inner.stream_over();
    }
}

fn transfer(
    worker: &Rc<Worker>,
    conn: &Rc<Conn>,
    inner: &mut Inner,
    link: LinkId,
    payload: Bytes,
    last: bool,
    aborted: bool,
) {
    match inner.in_link(link) {
        Incoming::Stream { end, done, .. } => {
            let end = end.clone();
            *done |= last;
            if !payload.is_empty() {
                end.data(Some(inner), payload);
            }
            if last {
                end.end(Some(inner), aborted);
            }
            dirty(inner, end);
        }
        Incoming::Head { .. } => head(worker, conn, inner, link, payload, last, aborted),
        Incoming::Discard { .. } if last => inner.discarded(link),
        Incoming::Discard { .. } | Incoming::Idle | Incoming::None => {}
    }
}

fn dirty(inner: &mut Inner, end: super::conn::End) {
    if !inner.dirty.last().is_some_and(|d| Rc::ptr_eq(d, &end)) {
        inner.dirty.push(end);
    }
}

fn head(
    worker: &Rc<Worker>,
    conn: &Rc<Conn>,
    inner: &mut Inner,
    link: LinkId,
    payload: Bytes,
    last: bool,
    aborted: bool,
) {
    let Incoming::Head {
        delivery,
        settled,
        mut buf,
        message,
    } = std::mem::replace(inner.in_link(link), Incoming::Idle)
    else {
        return;
    };
    if aborted {
        return;
    }
    // Streams are the rule on data connections; the head comes in one piece nearly always.
    let whole = if buf.is_empty() {
        payload
    } else {
        buf.extend_from_slice(&payload);
        buf.split().freeze()
    };
    let stream = InStream { link, delivery };
    let parsed = if message {
        Ok(StreamParse::NotStream)
    } else {
        message::parse_stream_head(&whole)
    };
    match parsed {
        Ok(StreamParse::Stream { head, raw_offset }) if !settled => {
            let rest = whole.slice(raw_offset..);
            inner.stream_started();
            match worker.stream(conn, inner, stream, head, &rest) {
                Ok(end) => {
                    *inner.in_link(link) = Incoming::Stream {
                        end: end.clone(),
                        delivery,
                        done: last,
                    };
                    if !rest.is_empty() {
                        end.data(Some(inner), rest);
                    }
                    if last {
                        end.end(Some(inner), false);
                    }
                    dirty(inner, end);
                }
                Err(outcome) => inner.refuse(stream, outcome, last),
            }
        }
        // A complete delivery that is no stream is a message, with or without a body.
        Ok(StreamParse::NotStream | StreamParse::NeedMore) if last => {
            worker.message(conn, stream, settled, whole);
        }
        Ok(parsed) if !last => {
            let message = !matches!(parsed, StreamParse::NeedMore);
            let limit = if message { MAX_MESSAGE } else { MAX_HEAD };
            if whole.len() > limit {
                inner.fail(
                    "amqp:resource-limit-exceeded",
                    "message over the size limit",
                );
                return;
            }
            *inner.in_link(link) = Incoming::Head {
                delivery,
                settled,
                buf: whole
                    .try_into_mut()
                    .unwrap_or_else(|b| BytesMut::from(&b[..])),
                message,
            };
        }
        _ => inner.refuse(stream, super::conn::Outcome::Rejected, last),
    }
}

/// Tells the peer and everybody on the connection that it is over.
async fn finish(worker: &Rc<Worker>, conn: &Rc<Conn>, ended: Ended) -> Ended {
    conn.closed.set(true);
    let ends = conn.borrow().take_ends();
    for end in ends {
        end.lost();
    }
    worker.conn_ended(conn);
    {
        let mut inner = conn.borrow();
        if matches!(ended, Ended::ByPeer(Some(_)) | Ended::ByPeer(None)) {
            inner.amqp.close(None);
        }
        inner.drain_control();
    }
    // A peer that does not read must not keep the socket: what is not sent in a second is lost.
    let flush = poll_fn(|cx| {
        let mut inner = conn.borrow();
        match inner.wire.poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                inner.wire.close_notify().ok();
                inner.wire.poll_flush(cx).map(drop)
            }
            other => other.map(drop),
        }
    });
    tokio::time::timeout(std::time::Duration::from_secs(1), flush)
        .await
        .ok();
    ended
}
