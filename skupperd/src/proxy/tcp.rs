//! One TCP connection bridged to a pair of streams.
//!
//! [`TcpEnd`] is what a connection of a link calls for the streams, and the task that moves the bytes:
//! [`Inbound`] from the network to the socket, [`Outbound`] from the socket to the network. Each
//! direction owns its state and ends for itself (a half-close); a reset, a refusal or the loss of a
//! link ends both.
//!
//! A listener makes one for each client, with the socket, and opens the outgoing stream; the incoming
//! one comes with the connector's answer. A connector makes one for each incoming stream; socket and
//! outgoing stream come once the server has taken the connection. The task is woken by its socket, by
//! the connection that has room again, and by events of its streams.
//!
//! It never decides where a stream goes: that is [`super::listener`] and [`super::connector`].

mod inbound;
mod outbound;

use super::{
    ConnectionCount, Disconnect,
    flow::{self, FlowRecorder},
    stream::Stream,
};
use crate::{
    amqp::message::MessageHead,
    flows::Ending,
    http_observer::MessageSender,
    link::{
        conn::{
            DeliveryOutcome, LinkConnection, OutStream,
            stream_end::{End, StreamEffects, StreamEnd, StreamEvent, StreamReply, deliver},
        },
        flow_window::SendPhase,
        names::NATIVE_END,
    },
    worker::stream_source::StreamSource,
};
use bytes::Bytes;
use inbound::Inbound;
use outbound::{Outbound, StreamResult};
use std::{
    cell::{Cell, OnceCell, RefCell},
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll, Waker},
};

pub(super) struct TcpEnd {
    socket: OnceCell<Rc<Stream>>,
    /// Receives the rest of the incoming stream.
    delegate: OnceCell<End>,
    inbound: RefCell<Inbound>,
    outbound: RefCell<Outbound>,
    waker: RefCell<Option<Waker>>,
    reset: Cell<bool>,
    /// The stream was refused before it began: the listener may try elsewhere.
    refused: Cell<Option<DeliveryOutcome>>,
    flow: Rc<FlowRecorder>,
    _open: Option<ConnectionCount>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TcpOutcome {
    /// Both directions have ended without an error.
    Closed,
    /// By a reset from either side.
    Reset,
    /// The stream was refused before anything came back.
    Refused(DeliveryOutcome),
}

impl TcpEnd {
    pub(super) fn new(
        socket: Option<Rc<Stream>>,
        open: Option<ConnectionCount>,
        flow: Rc<FlowRecorder>,
    ) -> Rc<Self> {
        Rc::new(Self {
            socket: socket.map_or_else(OnceCell::new, OnceCell::from),
            delegate: OnceCell::new(),
            inbound: RefCell::new(Inbound::new()),
            outbound: RefCell::new(Outbound::new()),
            waker: RefCell::new(None),
            reset: Cell::new(false),
            refused: Cell::new(None),
            flow,
            _open: open,
        })
    }

    /// The server connection of a connector has been made.
    pub(super) fn connected(&self, socket: Stream) {
        drop(self.socket.set(Rc::new(socket)));
    }

    /// Opens the outgoing stream on a connection. `replay`: what a connector that has refused had been
    /// sent.
    pub(super) fn open_stream(
        self: &Rc<Self>,
        conn: &Rc<LinkConnection>,
        head: Bytes,
        phase: SendPhase,
        replay: Bytes,
    ) {
        self.outbound
            .borrow_mut()
            .start(conn.clone(), phase, replay);
        if conn.is_open() {
            let end: End = self.clone();
            if let Some(stream) = conn.borrow().open(head, &end) {
                self.outbound.borrow_mut().set_stream(stream);
            }
        }
    }

    /// The sender of the incoming stream may have a window that is too small for rare acknowledgements.
    pub(super) fn acknowledge_often(&self) {
        self.inbound.borrow_mut().acknowledge_often();
    }

    /// The incoming stream of a connector.
    pub(super) fn receive_from(&self, source: StreamSource, head: &MessageHead) {
        self.enable_native_end(head);
        self.inbound.borrow_mut().set_source(source);
    }

    /// The incoming stream of a listener: a connector has answered.
    pub(super) fn answered_by(&self, source: StreamSource, head: &MessageHead) {
        self.receive_from(source, head);
        self.flow.set_server(flow::remote_side(head));
        self.outbound.borrow_mut().answered();
        self.wake();
    }

    /// Takes from the head of the incoming stream what its other end can do.
    fn enable_native_end(&self, head: &MessageHead) {
        if head.application_property(NATIVE_END).is_some() {
            self.outbound.borrow_mut().follow_path();
            self.inbound.borrow_mut().acknowledge_often();
        }
    }

    /// After a refusal: what the next connector has to be sent first.
    pub(super) fn retry(&self) -> Bytes {
        self.refused.set(None);
        self.outbound.borrow_mut().retry()
    }

    pub(super) fn socket(&self) -> Option<Rc<Stream>> {
        self.socket.get().cloned()
    }

    /// The sender of the incoming stream, for a delegate.
    pub(super) fn take_source(&self) -> Option<StreamSource> {
        self.inbound.borrow_mut().take_source()
    }

    /// Passes the incoming stream, from its beginning, to another end.
    pub(super) fn delegate(&self, to: End) {
        let (queue, ended) = self.inbound.borrow_mut().hand_over();
        for payload in queue {
            deliver(&*to, StreamEvent::Payload(payload));
        }
        if ended {
            deliver(&*to, StreamEvent::Ended { aborted: false });
        }
        deliver(&*to, StreamEvent::BatchOver);
        drop(self.delegate.set(to));
    }

    /// The stream was given up before its server was there.
    pub(super) fn is_reset(&self) -> bool {
        self.reset.get()
    }

    /// Moves bytes both ways until the connection has ended.
    pub(super) async fn run(self: &Rc<Self>) -> TcpOutcome {
        let outcome = poll_fn(|cx| self.poll(cx)).await;
        if outcome == TcpOutcome::Closed {
            self.flow.end(Ending::Closed);
            if let Some(socket) = self.socket.get() {
                socket.finish_on_close();
            }
        }
        if !matches!(outcome, TcpOutcome::Refused(_)) {
            self.close();
        }
        outcome
    }

    /// Ends everything that is still open. The socket is reset when it is closed, unless both directions
    /// have ended.
    pub(super) fn close(&self) {
        self.outbound.borrow_mut().close();
        let source = self.inbound.borrow_mut().close();
        if let Some(source) = source {
            source.reply_now(StreamReply::Outcome(DeliveryOutcome::Modified));
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<TcpOutcome> {
        {
            let mut waker = self.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        if self.reset.get() {
            return Poll::Ready(TcpOutcome::Reset);
        }
        if let Some(outcome) = self.refused.take() {
            return Poll::Ready(TcpOutcome::Refused(outcome));
        }
        if self.poll_write(cx).is_err() || self.poll_read(cx).is_err() {
            self.flow.reset_here();
            return Poll::Ready(TcpOutcome::Reset);
        }
        if self.inbound.borrow().is_done() && self.outbound.borrow().is_done() {
            return Poll::Ready(TcpOutcome::Closed);
        }
        Poll::Pending
    }

    /// Writes what is queued for the socket, waiting for room.
    fn poll_write(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(socket) = self.socket.get() else {
            return Ok(());
        };
        let mut effects = StreamEffects::default();
        loop {
            let written = {
                let mut inbound = self.inbound.borrow_mut();
                let written = inbound.write(socket, &self.flow, &mut effects);
                written.map(|()| inbound.has_queued())
            };
            effects.carry_out(None);
            if !written? && !socket.has_unsent() {
                return Ok(());
            }
            match socket.poll_write_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(guard) => guard?.clear_ready(),
            }
        }
    }

    fn poll_read(&self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.socket.get() {
            Some(socket) => {
                let mut outbound = self.outbound.borrow_mut();
                outbound.poll_read(socket, &self.flow, cx)
            }
            None => Ok(()),
        }
    }

    fn incoming_ended(&self, aborted: bool) {
        let mut inbound = self.inbound.borrow_mut();
        if !aborted {
            inbound.end();
            self.flow.observe_end(MessageSender::Server);
        } else if inbound.abort() {
            // A reset, not an end: the socket must not see a FIN first.
            self.flow.reset_there();
            self.break_off();
        } else {
            self.wake();
        }
    }

    /// Writes what has come at once; the task writes what the socket has no room for.
    fn write_batch(&self, effects: &mut StreamEffects) {
        let mut inbound = self.inbound.borrow_mut();
        let mut needs_task = false;
        if let Some(socket) = self.socket.get() {
            if inbound.write(socket, &self.flow, effects).is_err() {
                self.flow.reset_here();
                self.reset.set(true);
                needs_task = true;
            }
            needs_task |= socket.has_unsent();
        }
        if inbound.has_queued() {
            if !inbound.keep_queued() {
                if let Some(source) = inbound.take_source() {
                    source.reply(StreamReply::Outcome(DeliveryOutcome::Rejected), effects);
                }
                inbound.abort();
                self.flow.reset_here();
                return self.break_off();
            }
            needs_task = true;
        }
        if needs_task || inbound.is_done() {
            self.wake();
        }
    }

    fn opened(&self, stream: OutStream, effects: &mut StreamEffects) {
        let mut outbound = self.outbound.borrow_mut();
        if outbound.set_stream(stream) {
            self.wake();
        } else if let Some(conn) = outbound.conn() {
            // It ended while it waited for a link.
            effects.abort(conn, stream);
        }
    }

    fn settled(&self, outcome: DeliveryOutcome) {
        let answered = self.inbound.borrow().has_source();
        let result = self.outbound.borrow_mut().finish(outcome, answered);
        match result {
            StreamResult::Complete => {}
            StreamResult::Refused => self.refused.set(Some(outcome)),
            StreamResult::Broken => {
                self.flow.reset_there();
                self.reset.set(true);
            }
        }
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Ends both directions when the task runs next.
    fn break_off(&self) {
        self.reset.set(true);
        self.wake();
    }
}

impl Disconnect for TcpEnd {
    fn disconnect(&self) {
        self.flow.end(Ending::Removed);
        self.break_off();
    }
}

impl StreamEnd for TcpEnd {
    fn event(&self, event: StreamEvent<'_>, effects: &mut StreamEffects) {
        let is_incoming = matches!(
            event,
            StreamEvent::Payload(_)
                | StreamEvent::Ended { .. }
                | StreamEvent::BatchOver
                | StreamEvent::Lost
        );
        if let Some(to) = self.delegate.get().filter(|_| is_incoming) {
            return to.event(event, effects);
        }
        match event {
            StreamEvent::Payload(payload) => {
                let mut inbound = self.inbound.borrow_mut();
                if inbound.is_receiving() {
                    self.flow.observe(MessageSender::Server, &payload);
                    inbound.receive(payload);
                }
            }
            StreamEvent::Ended { aborted } => self.incoming_ended(aborted),
            StreamEvent::BatchOver => self.write_batch(effects),
            StreamEvent::Opened(stream) => self.opened(stream, effects),
            StreamEvent::Acknowledged(offset) => {
                if self.outbound.borrow_mut().acknowledged(offset) {
                    self.wake();
                }
            }
            StreamEvent::Settled(outcome) => self.settled(outcome),
            StreamEvent::Writable(_) => self.wake(),
            StreamEvent::Lost => {
                self.flow.end(Ending::LinkLost);
                self.break_off();
            }
        }
    }
}
