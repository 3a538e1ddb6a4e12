//! Who may send on a connection whose socket takes little: new streams, sparse ones, and bulk in turns.

use super::*;
use crate::link::{
    conn::{OutStream, SendOutcome, Waiter},
    send_budget::SendClass,
};
use std::{cell::RefCell, rc::Weak};

/// A connection with so many open streams, each to a null end.
async fn with_streams<const N: usize>() -> (Pair, [OutStream; N]) {
    let mut pair = Pair::new();
    pair.carry_out(|_, e| matches!(e, Event::Open(_)).then_some(()))
        .await;
    pair.carry_in();
    pair.state.carry_streams();
    let mut accepted = 0;
    pair.carry_out(|peer, event| {
        if let Event::Attach { link, .. } = event {
            peer.accept_attach(link, Source::default(), Target::default(), 10);
            accepted += 1;
        }
        (accepted > N).then_some(())
    })
    .await;
    for event in pair.carry_in() {
        if let Event::Flow { link, .. } = event {
            pair.state.link_ready(link);
        }
    }
    let end: End = Rc::new(NullEnd);
    let streams = [(); N].map(|()| {
        let head = Bytes::from_static(b"head");
        pair.state.open(head, &end).expect("a link with credit")
    });
    (pair, streams)
}

/// Adds one frame, and says how long it is.
fn send(state: &mut ConnectionState, stream: OutStream, class: SendClass) -> usize {
    let sent = state.send_from(stream, class, usize::MAX, |pieces| {
        Ok(pieces.iter().map(|piece| piece.len()).sum())
    });
    match sent.expect("a source that does not fail") {
        SendOutcome::Bytes(n) => n,
        SendOutcome::Full => 0,
        SendOutcome::Empty => panic!("the source is endless"),
    }
}

/// Adds bulk until there is no room for more.
fn fill(state: &mut ConnectionState, stream: OutStream) -> usize {
    std::iter::repeat_with(|| send(state, stream, SendClass::Bulk))
        .take_while(|n| *n > 0)
        .sum()
}

#[tokio::test]
async fn new_streams_and_sparse_ones_have_room_beside_bulk() {
    let (mut pair, [bulk, sparse]) = with_streams().await;
    assert!(fill(&mut pair.state, bulk) > 0);
    assert!(send(&mut pair.state, sparse, SendClass::Sparse) > 0);
    assert_eq!(send(&mut pair.state, bulk, SendClass::Bulk), 0);
    let (mut pair, [bulk]) = with_streams().await;
    fill(&mut pair.state, bulk);
    let end: End = Rc::new(NullEnd);
    let opened = pair.state.open(Bytes::from_static(b"head"), &end);
    assert!(opened.is_some(), "it waits behind bulk");
}

/// Takes all the room that it gets, and waits for more.
struct Hungry {
    this: Weak<Hungry>,
    stream: OutStream,
    log: Rc<RefCell<Vec<OutStream>>>,
}

impl StreamEnd for Hungry {
    fn event(&self, event: StreamEvent<'_>, _: &mut StreamEffects) {
        if let StreamEvent::Writable(state) = event {
            if fill(state, self.stream) > 0 {
                self.log.borrow_mut().push(self.stream);
            }
            state.wait_writable(Waiter::End(self.this.upgrade().expect("an end")));
        }
    }
}

#[tokio::test]
async fn streams_that_wait_for_room_have_it_in_turns() {
    let (mut pair, streams @ [first, ..]) = with_streams::<3>().await;
    let log = Rc::new(RefCell::new(Vec::new()));
    fill(&mut pair.state, first);
    for stream in streams {
        let end = Rc::new_cyclic(|this| Hungry {
            this: this.clone(),
            stream,
            log: log.clone(),
        });
        pair.state.wait_writable(Waiter::End(end));
    }
    for _ in 0..6 {
        poll_fn(|cx| pair.state.wire.poll_flush(cx))
            .await
            .expect("a socket with room");
        pair.state.announce_room();
        let mut all = vec![0; 1 << 20];
        assert!(pair.socket.read(&mut all).expect("bytes") > 0);
    }
    assert_eq!(*log.borrow(), [streams, streams].concat());
}

/// Bulk that is woken takes what others were woken for: they keep their turns.
#[tokio::test]
async fn as_many_tasks_are_woken_as_there_is_room_for() {
    let (mut pair, [bulk]) = with_streams().await;
    fill(&mut pair.state, bulk);
    let waker = std::task::Waker::noop();
    let tickets: Vec<_> = (0..1000)
        .map(|_| pair.state.wait_writable(Waiter::Task(waker.clone())))
        .collect();
    pair.state.announce_room();
    let waiting = |pair: &Pair| {
        tickets
            .iter()
            .filter(|t| pair.state.is_waiting(**t))
            .count()
    };
    assert_eq!(waiting(&pair), 1000, "there is no room");
    poll_fn(|cx| pair.state.wire.poll_flush(cx))
        .await
        .expect("a socket with room");
    pair.state.announce_room();
    let first = 1000 - waiting(&pair);
    assert!((1..300).contains(&first), "{first} were woken");
    // Nobody has used the room: the others are woken too.
    for _ in 0..1000 {
        pair.state.announce_room();
    }
    assert_eq!(waiting(&pair), 0);
}
