//! Streams that pass through: frame in, frame out, on one worker.

use super::{
    conn::{Conn, Current, End, Inner, OutStream, Outcome, StreamEnd, Waiter},
    upstream::Upstream,
};
use bytes::Bytes;
use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::{Rc, Weak},
};

/// One direction of a stream on its way to the next router.
pub(super) struct Transit {
    this: Weak<Transit>,
    up: Upstream,
    next: Rc<Conn>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    out: Option<OutStream>,
    /// What the next connection had no room for. The stream's window bounds it.
    queue: VecDeque<Bytes>,
    end: Option<bool>,
    waiting: bool,
    done: bool,
}

impl Transit {
    /// Opens the stream on the next connection.
    pub(super) fn open(up: Upstream, next: Rc<Conn>, head: Bytes, cur: Current<'_>) -> Rc<Self> {
        let this = Rc::new_cyclic(|this| Self {
            this: this.clone(),
            up,
            next,
            state: RefCell::new(State::default()),
        });
        let end: End = this.clone();
        let out = this.next.with(cur, |inner| inner.open(head, &end));
        this.state.borrow_mut().out = out;
        this
    }

    fn pump(&self, conn: &mut Inner) {
        let state = &mut *self.state.borrow_mut();
        let Some(out) = state.out.filter(|_| !state.done) else {
            return;
        };
        while let Some(front) = state.queue.front_mut() {
            conn.send(out, front);
            if !front.is_empty() {
                if !std::mem::replace(&mut state.waiting, true)
                    && let Some(this) = self.this.upgrade()
                {
                    conn.wait_writable(Waiter::End(this));
                }
                return;
            }
            state.queue.pop_front();
        }
        if let Some(aborted) = state.end.take() {
            if aborted {
                state.done = true;
                conn.abort(out);
            } else {
                conn.finish(out);
            }
        }
    }
}

impl StreamEnd for Transit {
    fn data(&self, _cur: Current<'_>, payload: Bytes) {
        self.state.borrow_mut().queue.push_back(payload);
    }

    fn end(&self, _cur: Current<'_>, aborted: bool) {
        let mut state = self.state.borrow_mut();
        state.end = Some(aborted);
        if aborted {
            state.queue.clear();
        }
    }

    fn flush(&self, cur: Current<'_>) {
        if self.next.is_open() {
            self.next.with(cur, |inner| self.pump(inner));
        }
    }

    fn opened(&self, conn: &mut Inner, out: OutStream) {
        self.state.borrow_mut().out = Some(out);
        self.pump(conn);
    }

    fn acked(&self, conn: &mut Inner, offset: u64) {
        self.up.ack(Some(conn), offset);
    }

    fn outcome(&self, conn: &mut Inner, outcome: Outcome) {
        {
            let mut state = self.state.borrow_mut();
            state.done = true;
            state.queue.clear();
        }
        self.up.settle(Some(conn), outcome);
    }

    fn writable(&self, conn: &mut Inner) {
        self.state.borrow_mut().waiting = false;
        self.pump(conn);
    }

    fn lost(&self) {
        let (out, done) = {
            let mut state = self.state.borrow_mut();
            state.queue.clear();
            (state.out, std::mem::replace(&mut state.done, true))
        };
        if done {
            return;
        }
        if self.next.is_open()
            && let Some(out) = out
        {
            self.next.borrow().abort(out);
        }
        self.up.settle(None, Outcome::Modified);
    }
}
