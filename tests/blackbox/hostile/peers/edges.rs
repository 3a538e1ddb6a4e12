//! Edges: what they may attach to, and what they may say of a stream.

use super::{Honest, edge_scene, named};
use skupper_tests::{
    SOON,
    echo::Server,
    free_addr,
    hostile_peer::{HostilePeer, stream_head},
    wait_until,
};
use skupperd::amqp::performative::{Performative, Role};
use std::sync::atomic::Ordering;

/// The condition that a link is detached with.
fn refusal(peer: &mut HostilePeer) -> String {
    peer.wait("detach", |frame| match &frame.performative {
        Some(Performative::Detach(detach)) => {
            detach.error.as_ref().map(|e| e.condition.to_string())
        }
        _ => None,
    })
}

/// Addresses of routers, of other edges and of the site itself.
#[test]
fn an_edge_has_no_links_to_the_addresses_of_routers() {
    let edge = edge_scene();
    let credentials = named(&edge.site, edge.edges, "mallory");
    let victim = super::router_id(&edge.site, "e-");
    let honest = Honest::start(edge.service);
    let mut peer = HostilePeer::site(edge.edges, &credentials, "mallory");
    peer.begin(0);
    let to_victim = format!("amqp:/_edge/{victim}/temp.0");
    let addresses = [
        "amqp:/_topo/0/all/qdrouter",
        "amqp:/_topo/0/all/qdrouter.ma",
        "amqp:/_local/qdhello",
        &to_victim,
        "$management",
        "_$qd.edge_addr_tracking.other",
        "a\u{1b}[2J",
    ];
    let mut handle = 0;
    for address in addresses {
        for role in [Role::Sender, Role::Receiver] {
            peer.attach(0, handle, role, Some(address), None);
            peer.flush().expect("sent");
            assert_eq!(
                refusal(&mut peer),
                "amqp:not-allowed",
                "{role:?} {address:?}"
            );
            handle += 1;
        }
    }
    // What goes to another edge by its id.
    peer.attach(
        0,
        handle,
        Role::Receiver,
        Some(&victim),
        Some("qd.router-edge-downlink"),
    );
    peer.flush().expect("sent");
    assert_eq!(refusal(&mut peer), "amqp:not-allowed");
    assert!(peer.is_open(std::time::Duration::from_millis(200)));
    honest.assert_undisturbed();
}

/// `allow-sites` names sites: a stream of an edge comes from the site that it came in at.
#[test]
fn an_edge_is_no_other_site() {
    let edge = edge_scene();
    let server = Server::says(free_addr(), "SECRET");
    let spec = format!(
        "{{routingKey: closed, host: 127.0.0.1, port: {}, settings: {{allow-sites: east}}}}",
        server.addr.port()
    );
    edge.site.resource("Connector", "closed", &spec);
    edge.site.wait_message("Connector", "closed", "Pending", "");
    let credentials = named(&edge.site, edge.edges, "mallory");
    let mut peer = HostilePeer::site(edge.edges, &credentials, "mallory");
    peer.begin(0);
    peer.sender(0, 0, None);
    peer.flush().expect("sent");
    peer.wait_credit();
    let mut head = stream_head("closed", Vec::new());
    head.annotations.ingress = Some("0/east-1-1".to_owned());
    head.annotations.trace = vec!["0/east-1-1".to_owned()];
    let mut bytes = bytes::BytesMut::new();
    skupperd::amqp::message::encode_stream_head(&head, &mut bytes);
    peer.transfer(0, 0, &bytes, true);
    peer.flush().expect("sent");
    peer.wait_outcome();
    wait_until("the denial in the log", SOON, || {
        edge.site.log().contains("site denied by policy")
    });
    assert_eq!(
        server.accepted.load(Ordering::SeqCst),
        0,
        "the server has been connected to"
    );
}

/// Addresses of an edge take memory for as long as it is connected.
#[test]
fn an_edge_with_links_without_end_is_closed() {
    let edge = edge_scene();
    let credentials = named(&edge.site, edge.edges, "mallory");
    let honest = Honest::start(edge.service);
    super::with_memory_below(&edge.site, 96 * super::MIB, || {
        let mut peer = HostilePeer::site(edge.edges, &credentials, "mallory");
        peer.begin(0);
        let attach_all = |peer: &mut HostilePeer| -> std::io::Result<()> {
            for handle in 0..60_000 {
                let address = format!("{handle:05}-{}", "x".repeat(200));
                peer.attach(0, handle, Role::Receiver, Some(&address), None);
                if handle % 64 == 0 {
                    peer.flush()?;
                }
            }
            peer.flush()
        };
        let sent = attach_all(&mut peer);
        let condition = peer.wait_end();
        println!("{sent:?}, {condition:?}");
        assert!(sent.is_err() || condition.is_some(), "within the budget");
    });
    honest.assert_undisturbed();
}
