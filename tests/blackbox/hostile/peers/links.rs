//! Sessions and links without end.

use super::{Honest, MIB, Scene, named, with_memory_below};
use skupper_tests::hostile_peer::HostilePeer;
use skupperd::amqp::performative::{Performative, Role};
use std::io;

/// Attaches links with a delivery under way on each, and ends their session.
pub(super) fn end_busy_session(peer: &mut HostilePeer, links: u32, role: Role) -> io::Result<()> {
    peer.begin(5);
    peer.flush()?;
    for handle in 0..links {
        peer.attach(
            5,
            handle,
            role,
            (role == Role::Receiver).then_some("x"),
            None,
        );
        if handle % 64 == 0 {
            peer.flush()?;
        }
    }
    peer.flush()?;
    if role == Role::Sender {
        peer.wait_credit();
        for handle in 0..links {
            peer.transfer(5, handle, b"\0\x53\x70", true);
        }
    }
    peer.put(5, &Performative::End(None), b"");
    peer.flush()
}

/// 69,000 links with a delivery under way and an END stopped a worker for 15 s.
#[test]
fn a_client_that_ends_a_session_with_many_links_disturbs_nobody() {
    let scene = Scene::new();
    let honest = Honest::start(scene.service);
    with_memory_below(&scene.b, 128 * MIB, || {
        for role in [Role::Sender, Role::Receiver] {
            let mut peer = HostilePeer::client(scene.local_b);
            end_busy_session(&mut peer, 8_000, role).expect("within the budget");
            peer.wait("the end of the session", |frame| {
                matches!(frame.performative, Some(Performative::End(_))).then_some(())
            });
        }
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}

#[test]
fn a_client_with_too_many_links_is_closed_with_a_condition() {
    let scene = Scene::new();
    let honest = Honest::start(scene.service);
    with_memory_below(&scene.b, 64 * MIB, || {
        let mut peer = HostilePeer::client(scene.local_b);
        // The site ends the connection while this is sent, or after it.
        drop(end_busy_session(&mut peer, 60_000, Role::Sender));
        // What has not been read resets the connection, which may overtake the condition.
        let condition = peer.wait_end();
        assert!(
            condition
                .as_deref()
                .is_none_or(|condition| condition == "amqp:resource-limit-exceeded"),
            "{condition:?}"
        );
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}

#[test]
fn a_linked_site_that_ends_a_session_with_many_links_disturbs_nobody() {
    let scene = Scene::new();
    let credentials = named(&scene.a, scene.links, "mallory");
    let honest = Honest::start(scene.service);
    with_memory_below(&scene.a, 256 * MIB, || {
        let mut peer = HostilePeer::site(scene.links, &credentials, "mallory");
        peer.control_links();
        end_busy_session(&mut peer, 30_000, Role::Sender).expect("within the budget");
        peer.wait("the end of the session", |frame| {
            matches!(frame.performative, Some(Performative::End(_))).then_some(())
        });
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}
