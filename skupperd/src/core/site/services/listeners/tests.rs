use super::*;
use crate::{
    core::{channel, site::effects::Effect},
    flows::FlowLog,
    messages::{Command, Senders},
    model::ListenerSettings,
    service::{policy::ListenerPolicies, view::ConnectorTarget},
    steer::OwnSockets,
};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use tokio::sync::mpsc;

/// Listeners that have sockets of their own, with one worker.
fn bench() -> (Listeners, CoreContext, Effects) {
    let sockets = ListenerSockets::new(
        None,
        Acceleration::new(false),
        OwnSockets::default(),
        ListenerPolicies::default(),
    );
    let (worker, _) = mpsc::unbounded_channel();
    let (sender, workers) = (channel().0.events().clone(), Senders::new(vec![worker]));
    let (ctx, _) = CoreContext::new(sender, workers, sockets, FlowLog::new(1));
    (Listeners::new(1, "test"), ctx, Effects::default())
}

fn spec(addr: SocketAddr) -> ListenerSpec {
    ListenerSpec {
        name: "web".to_owned(),
        bind_ranges: vec![BindRange::from(addr)],
        netns_listener: None,
        routing_key: "key".to_owned(),
        settings: ListenerSettings::default(),
        policy: None,
        observer: ObserverMode::default(),
    }
}

fn view(reachable: bool) -> SiteView {
    let connectors: Vec<Arc<ConnectorTarget>> = Vec::new();
    SiteView {
        connectors: reachable
            .then(|| ("key".to_owned(), connectors))
            .into_iter()
            .collect(),
        ..SiteView::default()
    }
}

/// A socket on a free port of an address that no other process uses.
fn taken() -> (TcpListener, SocketAddr) {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 77, high, low);
    let socket = TcpListener::bind((address, 0)).expect("a socket");
    let addr = socket.local_addr().expect("an address");
    (socket, addr)
}

#[test]
fn a_listener_is_open_while_its_routing_key_can_be_reached() {
    let (mut listeners, mut ctx, mut effects) = bench();
    let (socket, addr) = taken();
    drop(socket);
    listeners.add(7, spec(addr));
    listeners.reconsider(&view(false), &mut ctx, &mut effects);
    assert!(effects.drain().is_empty());
    listeners.reconsider(&view(true), &mut ctx, &mut effects);
    let opened = effects.drain();
    let listens =
        |e: &Effect| matches!(e, Effect::ToWorker(0, Command::Listen { listener: 7, .. }));
    assert!(opened.iter().any(listens));
    assert!(listeners.get("web").is_some_and(|l| l.state().open));
    drop(opened);
    listeners.reconsider(&view(false), &mut ctx, &mut effects);
    let closed = effects.drain();
    // Those who are connected stay.
    let unlisten = |e: &Effect| {
        matches!(
            e,
            Effect::Unlisten {
                listener: 7,
                cut: false
            }
        )
    };
    assert!(closed.iter().any(unlisten));
    assert!(listeners.get("web").is_some_and(|l| !l.state().open));
}

#[test]
fn a_listener_whose_port_is_taken_is_tried_again() {
    let (mut listeners, mut ctx, mut effects) = bench();
    let (socket, addr) = taken();
    listeners.add(7, spec(addr));
    listeners.reconsider(&view(true), &mut ctx, &mut effects);
    let state = |listeners: &Listeners| {
        listeners
            .get("web")
            .map(RunningListener::state)
            .unwrap_or_default()
    };
    assert!(state(&listeners).matched && state(&listeners).error.is_some());
    drop(socket);
    listeners.reconsider(&view(true), &mut ctx, &mut effects);
    assert!(state(&listeners).open && state(&listeners).error.is_none());
}

#[test]
fn connections_end_with_a_listener_that_is_removed() {
    let (mut listeners, mut ctx, mut effects) = bench();
    let (socket, addr) = taken();
    drop(socket);
    listeners.add(7, spec(addr));
    listeners.reconsider(&view(true), &mut ctx, &mut effects);
    effects.drain();
    let removed = listeners.remove("web", &mut ctx.sockets, &mut effects);
    assert_eq!(removed, Some(spec(addr)));
    let unlisten = |e: &Effect| {
        matches!(
            e,
            Effect::Unlisten {
                listener: 7,
                cut: true
            }
        )
    };
    assert!(effects.drain().iter().any(unlisten));
    assert!(
        listeners
            .remove("web", &mut ctx.sockets, &mut effects)
            .is_none()
    );
}
