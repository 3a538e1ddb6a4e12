//! Both sides of the captured conversation of an edge with its interior router, and edges that lie.

use crate::{
    amqp::{
        captured::{is_header, load, performative},
        connection::{AttachArgs, LinkId},
        message::Message,
        performative::{Attach, Performative, Role, Target},
        value::{Symbol, Value},
    },
    core::site::{
        bench::bench,
        edges::{EdgeLinkPurpose, Edges, classify_link, mesh, tracked},
        effects::{Effects, RouterInput},
    },
    link::{
        driver::ConnectionEnd,
        names::{MESH_ID, TRACKING},
    },
    messages::Command,
    router::{Treatment, is_id},
};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};

/// What one side of the capture sent, with the channels it was sent on.
fn sent(by_edge: bool) -> Vec<(u16, Performative, Bytes)> {
    let frames = load("edge.txt");
    let frames = frames
        .iter()
        .filter(|c| !is_header(c) && c.whole() && c.by_connector == by_edge);
    let of = frames.filter_map(|captured| {
        let (head, performative, payload) = performative(captured)?;
        let payload = Bytes::copy_from_slice(&captured.bytes[payload..]);
        Some((head.channel, performative, payload))
    });
    of.collect()
}

/// The links that name what they are for: attached by the edge, in order.
fn attaches() -> Vec<(u16, Attach)> {
    let attaches = sent(true)
        .into_iter()
        .filter_map(|(channel, p, _)| match p {
            Performative::Attach(attach) if channel < 2 => Some((channel, *attach)),
            _ => None,
        });
    attaches.collect()
}

fn messages(of: &[Command]) -> Vec<Message> {
    let messages = of.iter().filter_map(|command| match command {
        Command::ClientMessage(_, _, bytes) => Some(Message::decode(bytes).expect("a message")),
        _ => None,
    });
    messages.collect()
}

#[test]
fn the_captured_edge_is_served() {
    let mut a = bench("A", "E");
    let mut links = BTreeMap::new();
    for (n, (channel, attach)) in (0..).zip(attaches()) {
        links.insert((channel, attach.handle), n);
        // The uplink has no name: streams go over others like it, and the core hears of none.
        let named = attach.role == Role::Receiver
            || attach.target.as_ref().is_some_and(|t| t.address.is_some());
        if named {
            assert!(a.attach(n, &attach).is_empty(), "{attach:?}");
        }
    }
    assert!(a.site.peers.get(a.key).is_some_and(|p| p.is_neighbour));
    let consumed: BTreeSet<String> = a.site.router.network()[1]
        .addresses
        .iter()
        .cloned()
        .collect();
    let expected = ["backend", "sfe.+7z3C:0", "vfcr.+7z3C:0"].map(str::to_owned);
    assert_eq!(consumed, expected.into());
    // The mesh is taken down, and the edge is the only one who serves the key.
    for (channel, transfer, payload) in sent(true) {
        if let (true, Performative::Transfer(t)) = (channel < 2, transfer) {
            assert!(a.message(links[&(channel, t.handle)], payload).is_empty());
        }
    }
    let edge = &a.site.edges.by_key[&a.key];
    assert_eq!(edge.mesh.as_deref(), Some("ZCk_2tTZmF+rUB+"));
    // The message equals the one of skupper-router.
    let mut messages_sent = Vec::new();
    a.site.router.add_consumer("backend", Treatment::Balanced);
    messages_sent.extend(messages(&a.pump()));
    a.site.router.remove_consumer("backend");
    messages_sent.extend(messages(&a.pump()));
    let tracking: Vec<Message> = sent(false)
        .into_iter()
        .filter(|(channel, p, _)| *channel == 0 && matches!(p, Performative::Transfer(_)))
        .map(|(_, _, payload)| Message::decode(&payload).expect("a message"))
        .collect();
    assert_eq!(messages_sent, tracking);
    // When it goes, everything goes.
    a.site.ended(a.key, a.key, &ConnectionEnd::Retired);
    a.pump();
    let routes = a.site.router.routes();
    assert!(routes.edges.is_empty() && !routes.addresses.contains_key("backend"));
}

#[test]
fn our_edge_attaches_what_the_captured_one_does() {
    let mut e = bench("E", "A");
    e.site.router.add_consumer("backend", Treatment::Balanced);
    // A client of this host that sends to the address.
    let mut client = receiver("backend", false);
    client.role = Role::Sender;
    client.target = client.source.take().map(|source| Target {
        address: source.address,
        ..Target::default()
    });
    e.site.clients.connected(77);
    e.site.link_attached(77, LinkId::of(0), &client);
    e.site.view_dirty = true;
    let ours: Vec<(u64, AttachArgs)> = e
        .pump()
        .into_iter()
        .filter_map(|command| match command {
            Command::Attach(_, tag, args) => Some((tag, *args)),
            _ => None,
        })
        .collect();
    // What tells of the edge has another name here, and tells nothing of its log.
    let named = |address: &mut Option<String>| {
        if let Some(address) = address {
            *address = address.replace("+7z3C", &e.site.source);
        }
    };
    let captured = attaches().into_iter().filter_map(|(_, mut attach)| {
        attach.target.iter_mut().for_each(|t| named(&mut t.address));
        attach.source.iter_mut().for_each(|s| named(&mut s.address));
        let target = attach.target.as_ref().and_then(|t| t.address.as_deref());
        let log = target.is_some_and(|address| address.rsplit('.').next() == Some("logs"));
        (!log).then_some(attach)
    });
    let captured: Vec<Attach> = captured.collect();
    assert_eq!(captured.len(), 11);
    for theirs in &captured {
        let same = |(_, args): &&(u64, AttachArgs)| {
            args.role == theirs.role
                && Some(&args.source) == theirs.source.as_ref()
                && Some(&args.target) == theirs.target.as_ref()
        };
        assert!(ours.iter().any(|o| same(&o)), "{theirs:?} not in {ours:#?}");
    }
    // Ours and one for the site itself.
    assert_eq!(ours.len(), 12);
    let position_of = |f: &dyn Fn(&AttachArgs) -> bool| ours.iter().position(|(_, args)| f(args));
    let tracking = position_of(&|a| a.source.address.as_deref() == Some(TRACKING));
    let producer = position_of(&|a| a.target.address.as_deref() == Some("backend"));
    assert!(tracking < producer, "{tracking:?} {producer:?}");

    // The worker attaches them; the mesh is named in the words of Skupper.
    for (n, (tag, _)) in (1..).zip(&ours) {
        e.site.uplink_attached(e.key, *tag, LinkId::of(n));
    }
    let received = messages(&e.pump());
    let mesh = received.first().and_then(mesh).expect("a mesh");
    assert_eq!((received.len(), mesh.len()), (1, 15));
    let annotations = received[0].annotations.clone().expect("annotations");
    assert_eq!(annotations.ingress_mesh.as_deref(), Some(&*mesh));
    assert_eq!((annotations.ingress, annotations.trace.len()), (None, 0));

    // What the captured interior router says, one after the other.
    let link = tracking
        .and_then(|n| u32::try_from(n + 1).ok())
        .expect("a link");
    let messages_sent = sent(false)
        .into_iter()
        .filter(|(channel, p, _)| *channel == 0 && matches!(p, Performative::Transfer(_)));
    for (_, _, payload) in messages_sent {
        let message = Message::decode(&payload).expect("a message");
        let (address, reachable) = tracked(&message).expect("an address");
        e.message(link, payload.clone());
        let routes = e.site.router.routes();
        let remote = routes.addresses[address]
            .remotes
            .first()
            .map(|r| r.next_hop);
        assert_eq!(remote, reachable.then_some(e.key));
    }
    // An address that the edge did not request is not stored.
    e.message(link, tracking_message("Mother", true));
    assert!(!e.site.router.routes().addresses.contains_key("other"));
}

fn tracking_message(key: &str, reachable: bool) -> Bytes {
    let message = Message {
        body: crate::amqp::message::Body::Value(Value::List(vec![
            Value::from(key),
            Value::Bool(reachable),
        ])),
        ..Message::default()
    };
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes);
    bytes.freeze()
}

fn receiver(address: &str, downlink: bool) -> Attach {
    let (_, mut attach) = attaches().into_iter().nth(2).expect("the downlink");
    let source = attach.source.as_mut().expect("a source");
    source.address = Some(address.to_owned());
    if !downlink {
        source.capabilities.clear();
    }
    attach
}

#[test]
fn edges_that_lie_are_refused() {
    let long = "x".repeat(600);
    let lies = [
        ("F", true),
        ("_topo/0/B/temp.1", false),
        ("amqp:/_edge/F/x", false),
        ("_local/qdhello", false),
        ("$management", false),
        ("_$qd.anything", false),
        ("", false),
        (&long, false),
        ("web\n", false),
    ];
    let mut a = bench("A", "E");
    for (n, (address, downlink)) in (0..).zip(lies) {
        let attach = receiver(address, downlink);
        assert!(classify_link("E", &attach).is_err(), "{address}");
        let received = a.attach(n, &attach);
        assert!(
            matches!(received[..], [Command::Detach(_, _, Some(_))]),
            "{address}"
        );
    }
    assert_eq!(a.site.router.network().len(), 1);
    assert!(matches!(
        classify_link("E", &receiver("E", true)),
        Ok(EdgeLinkPurpose::Downlink)
    ));
    // An id that is a path could be taken for another's.
    assert!(!is_id("E/temp"));
}

#[test]
fn an_edge_takes_no_part_in_routing() {
    let mut a = bench("A", "E");
    let before = a.site.router.network();
    let frames = load("interior-control.txt");
    let mut tried = 0;
    for captured in frames.iter().filter(|c| !is_header(c) && c.whole()) {
        let Some((_, Performative::Transfer(_), payload)) = performative(captured) else {
            continue;
        };
        let payload = Bytes::copy_from_slice(&captured.bytes[payload..]);
        if Message::decode(&payload).is_ok() {
            tried += 1;
            assert!(a.message(1, payload).is_empty());
        }
    }
    assert!(tried > 20, "{tried}");
    assert_eq!(a.site.router.network(), before);
}

#[test]
fn an_edge_with_too_many_addresses_is_cut_off() {
    let mut a = bench("A", "E");
    let mut closed = None;
    // Reading the capture takes longer than what is tested.
    let mut attach = receiver("x", false);
    for n in 0..9000 {
        let source = attach.source.as_mut().expect("a source");
        source.address = Some(format!("x{n}"));
        let link = LinkId::of(n);
        a.site.link_attached(a.key, link, &attach);
        a.site.apply(&mut a.ctx);
        if let Ok(Command::Close(..)) = a.commands.try_recv() {
            closed = Some(n);
            break;
        }
    }
    assert_eq!(closed, Some(8192));
}

#[test]
fn links_of_an_edge_become_inputs_of_the_router() {
    let (mut edges, mut effects) = (Edges::new("A"), Effects::default());
    edges.connected(1, "E", &mut effects);
    assert_eq!(
        effects.router_inputs(),
        [RouterInput::AddEdge(1, "E".to_owned())]
    );
    let link = LinkId::of(0);
    edges.attached(1, link, &receiver("web", false), &mut effects);
    let consumer = RouterInput::AddEdgeConsumer(1, "web".to_owned());
    assert_eq!(effects.router_inputs(), [consumer]);
    assert_eq!(edges.receivers("web", 0, None).count(), 0);
    edges.credited(1, link);
    assert_eq!(edges.receivers("web", 0, None).count(), 1);
    // Nobody hears their own messages, nor those of their mesh.
    let mesh = mesh_message("mesh");
    assert!(edges.set_mesh(1, &mesh) && !edges.set_mesh(2, &mesh));
    assert_eq!(edges.receivers("web", 1, None).count(), 0);
    assert_eq!(edges.receivers("web", 0, Some("mesh")).count(), 0);
    edges.detached(1, link, &mut effects);
    edges.disconnected(1, &mut effects);
    edges.disconnected(1, &mut effects);
    let gone = RouterInput::RemoveEdgeConsumer(1, "web".to_owned());
    assert_eq!(effects.router_inputs(), [gone, RouterInput::RemoveEdge(1)]);
}

fn mesh_message(mesh: &str) -> Message {
    let name = Value::Symbol(Symbol::from(MESH_ID));
    Message {
        application_properties: vec![(name, Value::from(mesh))],
        ..Message::default()
    }
}
