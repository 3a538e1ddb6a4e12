use super::*;
use crate::{
    amqp::connection::LinkId,
    core::site::bench::spec,
    link::{
        driver::MessageOrigin,
        intake::{Intake, IntakePermit},
    },
};
use bytes::Bytes;
use context::ConnectionOwner;
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

/// Events of the flood: several hundred milliseconds of work, in whatever build.
const FLOOD: usize = 50_000;
/// Connections of the site that is flooded, and of the other.
const FLOODED: u64 = 1;
const QUIET: u64 = 2;

fn core(events: &CoreSender, workers: Senders) -> Core {
    let (core, _) = Core::new(
        events.clone(),
        workers,
        None,
        Acceleration::new(false),
        OwnSockets::default(),
        ListenerPolicies::default(),
        FlowLog::new(1),
    );
    core
}

/// A message that does not decode.
fn message(key: u64, permit: IntakePermit) -> CoreEvent {
    CoreEvent::Message {
        key,
        group: key,
        link: LinkId::of(0),
        delivery: None,
        origin: MessageOrigin::Other,
        message: Bytes::from_static(b"no message"),
        permit,
    }
}

/// Looks at a flood at the moment when something else is handled.
struct Witness {
    flood: Arc<Intake>,
    /// Whether most of the flood was still to be handled, and when that was.
    was_flooded: OnceLock<(bool, Instant)>,
    handled: tokio::sync::Notify,
}

impl Wake for Witness {
    fn wake(self: Arc<Self>) {
        self.was_flooded
            .get_or_init(|| (self.flood.is_full(), Instant::now()));
        self.handled.notify_one();
    }
}

#[tokio::test]
async fn a_site_that_is_flooded_holds_up_neither_another_site_nor_the_tasks_of_the_thread() {
    let (handle, inbox) = channel();
    let mut core = core(handle.events(), Senders::new(Vec::new()));
    for key in [FLOODED, QUIET] {
        let site = core.add_site(spec(&format!("R{key}"), false));
        let owner = ConnectionOwner { site, worker: 0 };
        core.ctx.connections.insert(key, owner);
    }
    let flood = Arc::new(Intake::default());
    for _ in 0..FLOOD {
        handle.events().send(message(FLOODED, flood.permit(0)));
    }
    // The one event of the other site fills the intake of its connection, which is woken when it is
    // handled.
    let (intake, witness) = (
        Arc::new(Intake::default()),
        Arc::new(Witness {
            flood: flood.clone(),
            was_flooded: OnceLock::new(),
            handled: tokio::sync::Notify::new(),
        }),
    );
    let permit = intake.permit(1 << 20);
    assert!(intake.wait(1, &Waker::from(witness.clone())));
    handle.events().send(message(QUIET, permit));
    let task_was_early = Arc::new(AtomicBool::new(false));
    tokio::task::spawn({
        let (task_was_early, flood) = (task_was_early.clone(), flood.clone());
        async move { task_was_early.store(flood.is_full(), Ordering::Relaxed) }
    });
    let done = async {
        witness.handled.notified().await;
        while flood.is_full() {
            tokio::task::yield_now().await;
        }
    };
    let begun = Instant::now();
    tokio::select! {
        () = core.run(inbox) => panic!("the core has ended"),
        () = done => {}
    }
    let (was_flooded, at) = witness.was_flooded.get().expect("the event was handled");
    let (waited, all) = (at.duration_since(begun), begun.elapsed());
    println!("the event waited for {waited:?}, the flood took {all:?}");
    assert!(was_flooded, "{waited:?}");
    assert!(task_was_early.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_site_is_removed_after_the_requests_that_came_before() {
    let (handle, inbox) = channel();
    let core = core(handle.events(), Senders::new(Vec::new()));
    let asked = async {
        let spec = Box::new(spec("A", false));
        let site = handle.ask(|reply| CoreRequest::AddSite(spec, reply)).await;
        let site = site.expect("a core");
        let described = handle.ask_site(site, SiteRequest::Describe);
        let removed = handle.ask(|reply| CoreRequest::RemoveSite(site, reply));
        let (described, removed) = tokio::join!(described, removed);
        assert!(described.expect("a core").is_some() && removed.is_ok());
        let described = handle.ask_site(site, SiteRequest::Describe).await;
        assert!(described.expect("a core").is_none());
    };
    tokio::select! {
        () = core.run(inbox) => panic!("the core has ended"),
        () = asked => {}
    }
}

/// A worker that is behind had any number of messages queued: the permit was dropped when the core had
/// handled the event.
#[test]
fn a_peer_waits_for_the_workers_that_its_messages_are_sent_to() {
    let (handle, _inbox) = channel();
    let (sender, mut commands) = tokio::sync::mpsc::unbounded_channel();
    let mut ctx = core(handle.events(), Senders::new(vec![sender])).ctx;
    let owner = ConnectionOwner { site: 0, worker: 0 };
    ctx.connections.insert(QUIET, owner);
    let intake = Arc::new(Intake::default());
    let much = || Some(intake.permit(1 << 20));
    ctx.release(much());
    assert!(!intake.is_full(), "nothing was sent");
    let text = Bytes::from_static(b"a message");
    ctx.send_command(QUIET, Command::Message(QUIET, 4, text));
    ctx.release(much());
    assert!(intake.is_full());
    assert!(matches!(commands.try_recv(), Ok(Command::Message(..))));
    assert!(intake.is_full(), "the worker has not come to it");
    assert!(matches!(commands.try_recv(), Ok(Command::EventHandled(_))));
    assert!(!intake.is_full());
    ctx.release(much());
    assert!(!intake.is_full(), "for each event anew");
}
