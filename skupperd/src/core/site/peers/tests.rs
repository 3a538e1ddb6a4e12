use super::{waiting::MAX_WAITING_OF_PEER, *};
use crate::{
    core::site::{bench, effects::Effect, identities::IdOwner},
    model::Role,
    peering::fixtures::established,
    pki::CertificateIdentity,
};

fn origin(link: Option<&str>, access: Option<&str>) -> PeerOrigin {
    PeerOrigin {
        role: Role::InterRouter,
        cost: 3,
        link: link.map(str::to_owned),
        access: access.map(str::to_owned),
        correlator: None,
    }
}

fn peer(remote: &str, link: Option<&str>) -> Peer {
    let addr = "127.0.0.1:1".parse().expect("an address");
    let access = link.is_none().then_some("access");
    Peer::of(origin(link, access), remote.to_owned(), addr)
}

fn identity(serial: &str, authority: &str) -> Option<CertificateIdentity> {
    Some(bench::identity(serial, authority, ""))
}

fn added(key: ConnKey, id: &str) -> RouterInput {
    RouterInput::AddLink(key, 3, id.to_owned(), 0)
}

/// Connections that are closed, in order.
fn closed(effects: &mut Effects) -> Vec<ConnKey> {
    let closed = effects
        .drain()
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::ToConnection(_, Command::Close(key, _)) => Some(key),
            _ => None,
        });
    closed.collect()
}

#[test]
fn a_peer_is_announced_when_its_control_link_and_a_data_connection_are_there() {
    let (mut peers, mut effects) = (Peers::default(), Effects::default());
    let mut trunking = peer("B", Some("link"));
    trunking.trunking = true;
    assert!(peers.insert(1, trunking));
    peers.control_ready(1, &mut effects);
    peers.carry_late(Instant::now(), &mut effects);
    assert_eq!(effects.router_inputs(), []);
    assert_eq!(peers.add_data(2, 1, 2, &mut effects), Some((0, true)));
    peers.announce(1, &mut effects);
    assert_eq!(effects.router_inputs(), [added(1, "B")]);
    // The next goes to the other worker, and the router hears of it once.
    assert_eq!(peers.add_data(3, 1, 2, &mut effects), Some((1, true)));
    peers.announce(1, &mut effects);
    assert_eq!(effects.router_inputs(), []);
    assert_eq!(peers.workers(), [(1, vec![0, 1])].into());
    assert_eq!(peers.add_data(4, 9, 2, &mut effects), None);
}

#[test]
fn the_control_connection_carries_streams_when_no_data_connection_comes() {
    let (mut peers, mut effects) = (Peers::default(), Effects::default());
    assert!(peers.insert(1, peer("B", None)));
    let mut trunking = peer("C", None);
    trunking.trunking = true;
    assert!(peers.insert(2, trunking));
    for key in [1, 2] {
        peers.control_ready(key, &mut effects);
    }
    let now = Instant::now();
    peers.carry_late(now, &mut effects);
    assert_eq!(effects.router_inputs(), [added(1, "B")]);
    peers.carry_late(now + GROUP_WAIT * 2, &mut effects);
    assert_eq!(effects.router_inputs(), [added(2, "C")]);
}

#[test]
fn a_link_without_data_connections_is_lost_until_another_one_comes() {
    let (mut peers, mut effects) = (Peers::default(), Effects::default());
    let mut trunking = peer("B", Some("link"));
    trunking.trunking = true;
    assert!(peers.insert(1, trunking));
    peers.control_ready(1, &mut effects);
    for key in [2, 3] {
        peers.add_data(key, 1, 2, &mut effects);
        peers.announce(1, &mut effects);
    }
    assert_eq!(effects.router_inputs(), [added(1, "B")]);
    peers.remove_data(2, 1, &mut effects);
    assert_eq!(effects.router_inputs(), []);
    peers.remove_data(3, 1, &mut effects);
    assert_eq!(effects.router_inputs(), [RouterInput::RemoveLink(1)]);
    peers.add_data(4, 1, 2, &mut effects);
    peers.announce(1, &mut effects);
    assert_eq!(effects.router_inputs(), [added(1, "B")]);
    // When none comes the control connection carries the streams, and that is for good.
    peers.remove_data(4, 1, &mut effects);
    let now = Instant::now();
    peers.carry_late(now, &mut effects);
    assert_eq!(effects.router_inputs(), [RouterInput::RemoveLink(1)]);
    peers.carry_late(now + GROUP_WAIT * 2, &mut effects);
    assert_eq!(effects.router_inputs(), [added(1, "B")]);
}

#[test]
fn a_superseded_peer_is_retired_when_the_other_is_up_and_ends_after_its_last_data_connection() {
    let (mut peers, mut effects) = (Peers::default(), Effects::default());
    assert!(peers.insert(1, peer("B", Some("link"))));
    peers.add_data(2, 1, 1, &mut effects);
    effects.drain();
    // The new connection is not up: the router needs the old one.
    peers.supersede(1, &mut effects);
    assert!(peers.insert(3, peer("B", Some("link"))));
    assert!(peers.insert(4, peer("C", Some("other"))));
    peers.set_neighbour(4, true);
    peers.retire_superseded(&mut effects);
    assert!(effects.drain().is_empty());
    peers.set_neighbour(3, true);
    peers.retire_superseded(&mut effects);
    let commands = effects.drain();
    assert!(matches!(
        commands[..],
        [Effect::ToConnection(2, Command::Retire(2))]
    ));
    peers.retire_superseded(&mut effects);
    assert!(effects.drain().is_empty());
    peers.remove_data(2, 1, &mut effects);
    let commands = effects.drain();
    assert!(matches!(
        commands.last(),
        Some(Effect::ToConnection(1, Command::Retire(1)))
    ));
    // A retired connection keeps the cost that it has.
    peers.set_cost("link", 9, &mut effects);
    assert_eq!(effects.router_inputs(), [RouterInput::SetLinkCost(3, 9)]);
}

#[test]
fn a_control_connection_takes_its_data_connections_with_it() {
    let (mut peers, mut effects) = (Peers::default(), Effects::default());
    assert!(peers.insert(1, peer("B", None)));
    peers.add_data(2, 1, 1, &mut effects);
    effects.drain();
    assert!(peers.remove(1, &mut effects).is_some());
    assert_eq!(closed(&mut effects), [2]);
    assert!(peers.remove(1, &mut effects).is_none());
}

#[test]
fn revoked_certificates_end_the_links_that_came_in_with_them() {
    let (mut peers, mut effects) = (Peers::default(), Effects::default());
    let with = |remote: &str, link, serial: &str, authority: &str| {
        let mut peer = peer(remote, link);
        peer.identity = identity(serial, authority);
        peer
    };
    assert!(peers.insert(1, with("B", None, "1", "old")));
    assert!(peers.insert(2, with("C", None, "2", "old")));
    // C is here again, by the new CA.
    let mut again = with("C", None, "3", "new");
    again.opened += Duration::from_secs(1);
    assert!(peers.insert(3, again));
    assert!(peers.insert(4, with("D", None, "4", "new")));
    // The link to E is ours: its certificate is not for us to revoke.
    assert!(peers.insert(5, with("E", Some("link"), "5", "old")));
    let refused = RevokedCertificates {
        serials: ["4".to_owned()].into(),
        authorities: ["old".to_owned()].into(),
    };
    peers.refuse(&refused, &mut effects);
    assert_eq!(closed(&mut effects), [1, 4]);
}

#[test]
fn an_edge_uses_the_cheapest_connection_and_of_equals_the_oldest() {
    let mut peers = Peers::default();
    for (key, cost) in [(1, 5), (2, 3), (3, 3)] {
        let mut peer = peer("A", Some("link"));
        peer.cost = cost;
        assert!(peers.insert(key, peer));
    }
    assert!(peers.best_uplink().is_none());
    for key in [1, 2, 3] {
        assert!(peers.set_neighbour(key, true).is_some());
    }
    assert_eq!(peers.best_uplink().map(|(key, _)| key), Some(2));
    peers.supersede(2, &mut Effects::default());
    assert_eq!(peers.best_uplink().map(|(key, _)| key), Some(3));
}

fn with_identity(remote: &str, serial: &str) -> Peer {
    let identity = identity(serial, "ca");
    Peer {
        id_owner: IdOwner::of(None, identity.as_ref()),
        identity,
        correlator: Some("group".to_owned()),
        ..peer(remote, None)
    }
}

#[test]
fn an_id_belongs_to_the_certificate_of_its_first_connection() {
    let (mut peers, mut effects) = (Peers::default(), Effects::default());
    assert!(peers.insert(1, with_identity("B", "1")));
    assert!(!peers.insert(2, with_identity("B", "2")));
    assert!(peers.get(2).is_none());
    assert!(peers.insert(3, with_identity("C", "2")));
    // Its owner comes back within a minute.
    peers.remove(1, &mut effects);
    assert!(!peers.insert(4, with_identity("B", "2")));
    peers.expire_ids(Instant::now() + Duration::from_secs(120));
    assert!(peers.insert(5, with_identity("B", "2")));
    // Of C there is still a connection.
    assert!(!peers.insert(6, with_identity("C", "1")));
}

#[test]
fn a_data_connection_joins_a_group_of_its_certificate_only() {
    let mut peers = Peers::default();
    assert!(peers.insert(1, with_identity("B", "1")));
    let group = |serial| peers.find_group("group", identity(serial, "ca").as_ref());
    assert_eq!((group("1"), group("2")), (Some(1), None));
    assert_eq!(peers.find_group("group", None), None);
}

#[test]
fn waiting_data_connections_of_a_certificate_leave_room_for_others() {
    let established = |serial| established("A", identity(serial, "ca"));
    let mut peers = Peers::default();
    for _ in 0..MAX_WAITING_OF_PEER * 2 {
        peers.wait_for_control("group".to_owned(), established("1"));
    }
    peers.wait_for_control("group".to_owned(), established("2"));
    peers.wait_for_control("other".to_owned(), established("2"));
    let mut take = |serial| {
        let identity = identity(serial, "ca");
        peers.take_waiting(Some("group"), identity.as_ref()).len()
    };
    assert_eq!((take("3"), take("2")), (0, 1));
    assert_eq!(take("1"), MAX_WAITING_OF_PEER);
    peers.drop_late_data(Instant::now() + GROUP_WAIT);
    let other = identity("2", "ca");
    assert!(peers.take_waiting(Some("other"), other.as_ref()).is_empty());
}

#[test]
fn a_new_connection_of_a_link_that_came_in_brings_its_cost_to_the_older_ones() {
    let (mut peers, mut effects) = (Peers::default(), Effects::default());
    let came_in = |remote: &str, instance: Option<&str>, cost| Peer {
        instance: instance.map(str::to_owned),
        cost,
        ..peer(remote, None)
    };
    for (key, remote, instance) in [
        (1, "B", Some("x")),
        (2, "B", Some("y")),
        (3, "C", Some("x")),
        (4, "B", None),
    ] {
        assert!(peers.insert(key, came_in(remote, instance, 3)));
    }
    assert!(peers.insert(5, came_in("B", Some("x"), 9)));
    peers.follow_cost(5, &mut effects);
    assert_eq!(effects.router_inputs(), [RouterInput::SetLinkCost(1, 9)]);
    // A router that does not name its links.
    assert!(peers.insert(6, came_in("B", None, 7)));
    peers.follow_cost(6, &mut effects);
    assert_eq!(effects.router_inputs(), []);
}
