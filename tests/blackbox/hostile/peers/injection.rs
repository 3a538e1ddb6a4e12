//! Messages of routers from those who are none: a client of the host, an edge. And what a router says
//! of others.

use super::{
    Honest, Scene, edge_scene, named,
    routing::{hello, lsu, mau, neighbour, ra},
};
use skupper_tests::{SOON, echo::works, hostile_peer::HostilePeer, site::Site, wait_until};
use std::net::SocketAddr;

/// A router that does not exist, with a service; then false messages about a site: that it has
/// restarted, and that it serves nothing, for ever.
pub(super) fn forged_messages(victim: &str, via: &str) -> Vec<Vec<u8>> {
    vec![
        hello("ghost", 1, via),
        ra("ghost", 1, 1, 1),
        lsu("ghost", 1, 1, &[via]),
        mau("ghost", 1, &["Mecho", "Mghost-key"]),
        lsu(via, 1, 1 << 40, &["ghost"]),
        ra(victim, 1 << 40, 1 << 40, 1 << 40),
        lsu(victim, 1 << 40, 1 << 40, &[]),
        mau(victim, 1 << 62, &[]),
    ]
}

/// Sends them on links of all kinds that such a peer can have, and something at the end that is answered.
pub(super) fn send_forged(
    peer: &mut HostilePeer,
    addresses: &[Option<&str>],
    messages: &[Vec<u8>],
) {
    peer.begin(0);
    for (handle, address) in (0..).zip(addresses) {
        peer.sender(0, handle, *address);
    }
    peer.flush().expect("sent");
    peer.wait_credit();
    for handle in 0..u32::try_from(addresses.len()).expect("a few") {
        for message in messages {
            peer.message(0, handle, message);
        }
    }
    peer.transfer(0, 0, &super::floods::small("nobody"), false);
    peer.flush().expect("sent");
    peer.wait_outcome();
}

fn knows(site: &Site, name: &str) -> bool {
    site.ok(&["network", "status"]).contains(name)
}

/// Nothing of it is believed: not by the site, and not by those that it passes messages on to.
fn assert_not_believed(sites: [&Site; 2], service: SocketAddr) {
    for _ in 0..20 {
        assert!(works(service), "the service of the victim");
    }
    for site in sites {
        assert!(!knows(site, "ghost"), "{} knows ghost", site.name());
        let log = site.log();
        assert!(!log.contains("router has restarted"), "{log}");
    }
}

/// A client's message with the address of the control protocol was taken as a router's, and stopped the
/// listeners of the whole network.
#[test]
fn a_client_of_the_host_is_no_router() {
    let scene = Scene::new();
    let (ours, theirs) = (super::router_id(&scene.b, "a-"), scene.second_id());
    let honest = Honest::start(scene.service);
    let addresses = [
        None,
        Some("echo"),
        Some("amqp:/_topo/0/all/qdrouter.ma"),
        Some("ghost-key"),
    ];
    for (local, victim, via) in [
        (scene.local_b, &ours, &theirs),
        (scene.local_a, &theirs, &ours),
    ] {
        let mut peer = HostilePeer::client(local);
        send_forged(&mut peer, &addresses, &forged_messages(victim, via));
    }
    assert_not_believed([&scene.a, &scene.b], scene.service);
    honest.assert_undisturbed();
    scene.assert_linked();
}

#[test]
fn an_edge_is_no_router() {
    let edge = edge_scene();
    let credentials = named(&edge.site, edge.edges, "mallory");
    let own = super::router_id(&edge.edge, "a-");
    let honest = Honest::start(edge.service);
    let mut peer = HostilePeer::site(edge.edges, &credentials, "mallory");
    send_forged(
        &mut peer,
        &[None, Some("echo"), Some("ghost-key")],
        &forged_messages(&own, "mallory"),
    );
    assert_not_believed([&edge.site, &edge.edge], edge.service);
    honest.assert_undisturbed();
}

/// What shows that the messages above would be believed: from a router, on its control link, about
/// itself and those that it knows. What it says of others is not.
#[test]
fn a_linked_site_adds_to_the_network_and_takes_nothing_from_others() {
    let scene = Scene::new();
    let (_server, far) = scene.serve_at_second("far");
    let victim = scene.second_id();
    let honest = Honest::start(scene.service);
    let (mut peer, hub) = neighbour(&scene);
    for message in [
        lsu("mallory", 7, 1, &[&hub, "ghost"]),
        lsu("ghost", 1, 1, &["mallory"]),
        mau("ghost", 1, &["Mghost-key"]),
        // What the victim serves: nothing, with a number that it never reaches.
        mau(&victim, 1 << 62, &[]),
    ] {
        peer.message(0, 0, &message);
    }
    peer.flush().expect("sent");
    wait_until("the ghost", SOON, || {
        peer.message(0, 0, &hello("mallory", 7, &hub));
        peer.flush().expect("still linked");
        knows(&scene.a, "ghost")
    });
    for _ in 0..20 {
        assert!(works(far), "the service of the victim");
    }
    honest.assert_undisturbed();
    scene.assert_linked();
}
