//! Messages faster than a site can handle them.

use super::{Honest, MIB, Scene, named, with_memory_below};
use skupper_tests::hostile_peer::{CONTROL, HostilePeer, encoded};
use skupperd::amqp::{
    message::{Body, Message, Properties},
    performative::{DeliveryState, Detach, Disposition, Flow, Performative, Role},
    value::Value,
};
use std::time::{Duration, Instant};

pub(super) fn small(to: &str) -> Vec<u8> {
    encoded(&Message {
        properties: Some(Properties {
            to: Some(to.to_owned()),
            ..Properties::default()
        }),
        body: Body::Value(Value::Null),
        ..Message::default()
    })
}

/// Sends messages for some seconds, as fast as they are taken, whatever the credit. Returns how many.
pub(super) fn flood(
    peer: &mut HostilePeer,
    handle: u32,
    message: &[u8],
    within: Duration,
) -> usize {
    let end = Instant::now() + within;
    let mut sent = 0;
    while Instant::now() < end {
        // A little over half of the credit of a link, which is topped up when half of it is used.
        for _ in 0..130 {
            peer.message(0, handle, message);
        }
        sent += 130;
        if peer.flush().is_err() {
            break;
        }
        peer.wait_credit();
    }
    sent
}

/// Neighbours were lost after three seconds, and memory grew to 1.4 GB.
#[test]
fn a_flood_of_a_client_disturbs_nobody() {
    let scene = Scene::new();
    let honest = Honest::start(scene.service);
    with_memory_below(&scene.b, 64 * MIB, || {
        let mut peer = HostilePeer::client(scene.local_b);
        peer.begin(0);
        peer.sender(0, 0, None);
        peer.flush().expect("sent");
        peer.wait_credit();
        let sent = flood(&mut peer, 0, &small("nobody"), Duration::from_secs(8));
        println!("{sent} messages");
        assert!(sent > 1000, "{sent} messages");
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}

#[test]
fn floods_of_many_clients_leave_the_site_healthy() {
    let scene = Scene::new();
    let honest = Honest::start(scene.service);
    with_memory_below(&scene.b, 96 * MIB, || {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut peer = HostilePeer::client(scene.local_b);
                    peer.begin(0);
                    peer.sender(0, 0, None);
                    peer.flush().expect("sent");
                    peer.wait_credit();
                    flood(&mut peer, 0, &small("nobody"), Duration::from_secs(5));
                });
            }
        });
    });
    assert!(scene.b.http("GET /healthz").starts_with("HTTP/1.1 200"));
    honest.assert_undisturbed();
    scene.assert_linked();
}

/// Events without messages: a link that is attached and detached, and credit that changes.
#[test]
fn a_flood_of_attaches_disturbs_nobody() {
    let scene = Scene::new();
    let honest = Honest::start(scene.service);
    with_memory_below(&scene.b, 64 * MIB, || {
        let mut peer = HostilePeer::client(scene.local_b);
        peer.begin(0);
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            for handle in 0..200 {
                peer.receiver(0, handle, "inbox");
            }
            for handle in 0..200 {
                let detach = Detach {
                    handle,
                    closed: true,
                    error: None,
                };
                peer.put(0, &Performative::Detach(detach), b"");
            }
            peer.flush().expect("sent");
        }
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}

#[test]
fn a_flood_of_a_linked_site_disturbs_nobody() {
    let scene = Scene::new();
    let credentials = named(&scene.a, scene.links, "mallory");
    let honest = Honest::start(scene.service);
    with_memory_below(&scene.a, 64 * MIB, || {
        let mut peer = HostilePeer::site(scene.links, &credentials, "mallory");
        peer.begin(0);
        peer.attach(0, 0, Role::Sender, None, Some(CONTROL));
        peer.flush().expect("sent");
        peer.wait_credit();
        let message = small("amqp:/_topo/0/all/qdrouter");
        flood(&mut peer, 0, &message, Duration::from_secs(6));
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}

/// Sessions that begin and end, for some time.
pub(super) fn flood_with_sessions(peer: &mut HostilePeer, until: Instant) -> usize {
    let mut sent = 0;
    while Instant::now() < until {
        for channel in 100..300 {
            peer.begin(channel);
            peer.put(channel, &Performative::End(None), b"");
        }
        sent += 200;
        if peer.flush().is_err() {
            break;
        }
        peer.discard();
    }
    sent
}

#[test]
fn a_flood_of_sessions_disturbs_nobody() {
    let scene = Scene::new();
    let credentials = named(&scene.a, scene.links, "mallory");
    let honest = Honest::start(scene.service);
    with_memory_below(&scene.a, 48 * MIB, || {
        let mut peer = HostilePeer::site(scene.links, &credentials, "mallory");
        let until = Instant::now() + Duration::from_secs(4);
        let sent = flood_with_sessions(&mut peer, until);
        println!("{sent} sessions");
        assert!(sent > 1000, "{sent} sessions");
        assert!(peer.is_open(Duration::from_millis(50)));
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}

/// Frames that cost nothing to send.
#[test]
fn a_flood_of_empty_frames_disturbs_nobody() {
    let scene = Scene::new();
    let honest = Honest::start(scene.service);
    let empty = [0, 0, 0, 8, 2, 0, 0, 0].repeat(8_192);
    with_memory_below(&scene.b, 32 * MIB, || {
        let mut peer = HostilePeer::client(scene.local_b);
        let end = Instant::now() + Duration::from_secs(4);
        let mut sent = 0;
        while Instant::now() < end {
            peer.put_bytes(&empty);
            peer.flush().expect("an open connection");
            sent += empty.len();
        }
        println!("{} MiB of empty frames", sent / MIB);
        assert!(sent > MIB, "{sent} bytes");
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}

/// Says, of all deliveries that there can be, that they are settled, for some time. Some are under way.
pub(super) fn flood_with_dispositions(peer: &mut HostilePeer, until: Instant) -> usize {
    peer.begin(7);
    for handle in 0..100 {
        peer.sender(7, handle, None);
    }
    let mut sent = 0;
    for handle in 0..100 {
        peer.transfer(7, handle, b"\0\x53\x70", true);
    }
    while Instant::now() < until {
        for n in 0..400_u32 {
            let disposition = Disposition {
                role: [Role::Sender, Role::Receiver][n as usize % 2],
                first: n,
                last: Some(n.wrapping_sub(1)),
                settled: n % 4 > 1,
                state: Some(DeliveryState::Accepted),
                ..Disposition::default()
            };
            peer.put(7, &Performative::Disposition(disposition), b"");
        }
        sent += 400;
        if peer.flush().is_err() {
            break;
        }
        peer.discard();
    }
    sent
}

/// A disposition names any range in a few bytes. Deliveries of others are on other connections, and are
/// not in it.
#[test]
fn dispositions_of_everything_settle_nothing_of_others() {
    let scene = Scene::new();
    let credentials = named(&scene.a, scene.links, "mallory");
    let honest = Honest::start(scene.service);
    with_memory_below(&scene.a, 32 * MIB, || {
        let mut peer = HostilePeer::site(scene.links, &credentials, "mallory");
        peer.control_links();
        let until = Instant::now() + Duration::from_secs(4);
        let sent = flood_with_dispositions(&mut peer, until);
        println!("{sent} dispositions");
        assert!(sent > 1000, "{sent} dispositions");
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}

/// Credit is a number of the peer's, and nothing is set aside for it.
#[test]
fn credit_without_end_costs_nothing() {
    let scene = Scene::new();
    let honest = Honest::start(scene.service);
    with_memory_below(&scene.b, 32 * MIB, || {
        let mut peer = HostilePeer::client(scene.local_b);
        peer.begin(0);
        for handle in 0..100 {
            peer.receiver(0, handle, "inbox");
        }
        peer.flush().expect("sent");
        for n in 0..200_u32 {
            for handle in 0..100 {
                let flow = Flow {
                    next_incoming_id: Some(u32::MAX - n),
                    incoming_window: u32::MAX,
                    next_outgoing_id: n.wrapping_mul(0x9e37_79b9),
                    outgoing_window: u32::MAX,
                    handle: Some(handle),
                    delivery_count: Some(n.wrapping_mul(0x9e37_79b9)),
                    link_credit: Some(u32::MAX),
                    drain: n % 2 == 0,
                    ..Flow::default()
                };
                peer.put(0, &Performative::Flow(flow), b"");
            }
            peer.flush().expect("an open connection");
            peer.discard();
        }
        assert!(peer.is_open(Duration::from_millis(50)));
    });
    honest.assert_undisturbed();
    scene.assert_linked();
}
