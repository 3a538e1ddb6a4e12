use super::*;
use crate::{
    core::site::bench::{Bench, bench, identity},
    link::names::LINK_DELETED,
    peering::fixtures::{established, link_spec},
};
use tokio::sync::oneshot::{self, error::TryRecvError};

/// Site A with a link to dial.
fn dialling() -> Bench {
    let mut a = bench("A", "E");
    a.site.links.set(link_spec("b", 1), &mut a.site.effects);
    a
}

/// A connection of the link to this router is up; what its task hears.
fn dial(a: &mut Bench, key: ConnKey, remote: &str) -> oneshot::Receiver<oneshot::Receiver<()>> {
    let (accepted, answer) = oneshot::channel();
    a.site.dialled(DialledConnection {
        link: "link".to_owned(),
        key,
        data_of: None,
        established: established(remote, None),
        accepted,
    });
    answer
}

#[test]
fn the_dialling_task_hears_that_its_connection_is_accepted_and_that_it_has_ended() {
    let mut a = dialling();
    let mut ended = dial(&mut a, 10, "B").try_recv().expect("accepted");
    assert_eq!(ended.try_recv(), Err(TryRecvError::Empty));
    a.site.ended(10, 10, &ConnectionEnd::ByPeer(None));
    assert_eq!(ended.try_recv(), Err(TryRecvError::Closed));
}

#[test]
fn a_refused_connection_is_not_taken_for_the_link() {
    let mut a = dialling();
    let _kept = dial(&mut a, 10, "B").try_recv().expect("accepted");
    for (key, remote, why) in [
        (11, "A", "the link leads to this site itself"),
        (12, "", "the peer's router id is invalid"),
    ] {
        let answer = dial(&mut a, key, remote).try_recv();
        assert_eq!(answer.err(), Some(TryRecvError::Closed), "{remote}");
        let states = a.site.links.states(&a.site.peers);
        assert_eq!(states["link"].last_failure.as_deref(), Some(why));
    }
    assert!(a.site.peers.of_link("link").count() == 1);
}

#[test]
fn a_connection_to_an_endpoint_that_the_link_has_no_longer_is_dropped() {
    let mut a = dialling();
    let (accepted, answer) = oneshot::channel();
    drop(answer);
    a.site.dialled(DialledConnection {
        link: "link".to_owned(),
        key: 10,
        data_of: None,
        established: established("B", None),
        accepted,
    });
    assert!(a.site.peers.of_link("link").next().is_none());
}

#[test]
fn an_id_stays_with_its_certificate_unless_the_link_was_deleted() {
    let mut a = bench("A", "E");
    let accept = |a: &mut Bench, key, subject| {
        let origin = PeerOrigin {
            role: Role::InterRouter,
            cost: 1,
            link: None,
            access: Some("access".to_owned()),
            correlator: None,
        };
        let identity = identity("1", "ca", subject);
        a.site
            .add_control(key, origin, established("B", Some(identity)))
    };
    assert!(accept(&mut a, 10, "first"));
    let closed = AmqpError::new("amqp:connection:forced", "link deleted");
    a.site.ended(10, 10, &ConnectionEnd::ByPeer(Some(closed)));
    assert!(!accept(&mut a, 11, "second"), "a text is no condition");
    assert!(accept(&mut a, 12, "first"));
    let deleted = AmqpError::new(LINK_DELETED, "link deleted");
    a.site.ended(12, 12, &ConnectionEnd::ByPeer(Some(deleted)));
    assert!(accept(&mut a, 13, "second"));
}

#[test]
fn a_link_that_comes_by_a_removed_access_is_closed() {
    let mut a = bench("A", "E");
    let peers = a.site.peers.values().count();
    let established = established("B", Some(identity("1", "ca", "B")));
    a.site.accepted("removed", Role::InterRouter, established);
    assert_eq!(a.site.peers.values().count(), peers);
}
