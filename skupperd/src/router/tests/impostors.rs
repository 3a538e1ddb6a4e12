//! Neighbours that speak in the name of other routers: what they say is void soon, and goes no further
//! where this router knows better.

use super::hostile::{Victim, full, lsu, ra};
use crate::router::{Output, control::Control};
use std::time::Duration;

#[test]
fn a_forged_sequence_is_discarded_when_the_router_sends() {
    let mut victim = Victim::new();
    victim.say(2, &ra("honest", 7, 0, 5));
    victim.say(2, &full("honest", 5, ["Mweb".to_owned()]));
    victim.say(1, &ra("honest", 7, 0, 1 << 40));
    victim.say(1, &full("honest", 1 << 40, []));
    assert!(
        !victim.has("web"),
        "an interior router can lie for a moment"
    );
    for _ in 0..2 {
        victim.say(2, &ra("honest", 7, 0, 5));
    }
    let asks = |control: &Control| matches!(control, Control::Mar { .. });
    assert!(victim.sent().iter().any(asks));
    victim.say(2, &full("honest", 5, ["Mweb".to_owned()]));
    assert!(victim.has("web"));
}

#[test]
fn a_full_update_that_contradicts_the_known_one_is_asked_for_again() {
    let mut victim = Victim::new();
    victim.say(2, &ra("honest", 7, 0, 5));
    victim.say(2, &full("honest", 5, ["Mweb".to_owned()]));
    victim.sent();
    let asks = |control: &Control| matches!(control, Control::Mar { .. });
    // Its number is that of the RAs to come: they would never void it.
    victim.say(1, &full("honest", 5, []));
    assert!(victim.has("web"));
    assert!(victim.sent().iter().any(asks));
    // The liar answers first, and the answer of the router itself contradicts that.
    victim.say(1, &full("honest", 5, []));
    victim.say(2, &full("honest", 5, ["Mweb".to_owned()]));
    assert!(victim.sent().iter().any(asks));
    victim.say(2, &full("honest", 5, ["Mweb".to_owned()]));
    assert!(victim.has("web"));
    victim.say(2, &full("honest", 5, ["Mweb".to_owned()]));
    assert!(!victim.sent().iter().any(asks), "the same once more");
}

#[test]
fn the_next_ra_of_a_router_voids_an_update_that_is_not_its_own() {
    let mut victim = Victim::new();
    victim.say(2, &ra("honest", 7, 0, 5));
    victim.say(2, &full("honest", 5, ["Mweb".to_owned()]));
    victim.say(
        1,
        &Control::MauDelta {
            id: "honest".to_owned(),
            seq: 6,
            add: Vec::new(),
            del: vec!["Mweb".to_owned()],
        },
    );
    assert!(!victim.has("web"), "an interior router can lie until then");
    victim.sent();
    victim.say(2, &ra("honest", 7, 0, 5));
    let asks = |control: &Control| matches!(control, Control::Mar { .. });
    assert!(victim.sent().iter().any(asks));
    victim.say(2, &full("honest", 5, ["Mweb".to_owned()]));
    assert!(victim.has("web"));
    victim.wait(Duration::from_secs(10));
    assert!(!victim.sent().iter().any(asks), "all is known");
}

#[test]
fn a_link_state_that_contradicts_the_known_one_is_asked_for_again() {
    let mut victim = Victim::new();
    let own = || lsu("honest", 3, ["us".to_owned(), "behind".to_owned()]);
    victim.say(2, &ra("honest", 7, 3, 0));
    victim.say(2, &own());
    assert!(victim.reaches("behind"));
    victim.sent();
    victim.say(1, &lsu("honest", 3, []));
    assert!(victim.reaches("behind"));
    victim.wait(Duration::from_secs(3));
    let asks = |control: &Control| matches!(control, Control::Lsr { .. });
    assert!(victim.sent().iter().any(asks));
    victim.say(2, &own());
    assert!(victim.reaches("behind"));
}

/// A router behind the honest neighbour, and another one behind that, which has a service.
fn with_routers_behind() -> Victim {
    let mut victim = Victim::new();
    victim.say(1, &ra("liar", 7, 1, 0));
    victim.say(1, &lsu("liar", 1, ["us".to_owned()]));
    victim.say(2, &ra("honest", 7, 1, 0));
    victim.say(2, &lsu("honest", 1, ["us", "behind"].map(str::to_owned)));
    for (id, peers) in [("behind", ["honest", "far"]), ("far", ["behind", "behind"])] {
        victim.say(2, &ra(id, 7, 1, 1));
        victim.say(2, &lsu(id, 1, peers.map(str::to_owned)));
        victim.say(2, &full(id, 1, [format!("M{id}-service")]));
    }
    assert!(victim.has("behind-service") && victim.has("far-service"));
    victim.sent();
    victim
}

/// Its next RA did not count, and only the one after that.
#[test]
fn a_link_state_of_a_router_behind_a_neighbour_is_void_when_that_router_speaks() {
    let mut victim = with_routers_behind();
    victim.say(1, &ra("behind", 7, 1 << 40, 1));
    victim.say(1, &lsu("behind", 1 << 40, ["honest".to_owned()]));
    assert!(
        !victim.reaches("far"),
        "an interior router can lie until then"
    );
    victim.sent();
    victim.say(2, &ra("behind", 7, 1, 1));
    victim.wait(Duration::from_secs(1));
    let asks = |control: &Control| matches!(control, Control::Lsr { .. });
    assert!(victim.sent().iter().any(asks));
    victim.say(2, &lsu("behind", 1, ["honest", "far"].map(str::to_owned)));
    assert!(victim.reaches("far"));
    // Its addresses were void meanwhile.
    victim.wait(Duration::from_secs(1));
    victim.say(2, &full("far", 1, ["Mfar-service".to_owned()]));
    assert!(victim.has("far-service"));
    victim.sent();
    // The link state is not asked for again.
    victim.say(2, &ra("behind", 7, 1, 1));
    victim.wait(Duration::from_secs(1));
    assert!(!victim.sent().iter().any(asks));
}

/// A link state that is newer than an RA that comes late stays.
#[test]
fn a_late_ra_does_not_bring_back_an_older_link_state() {
    let mut victim = with_routers_behind();
    let new = || lsu("behind", 2, ["honest".to_owned()]);
    victim.say(2, &ra("behind", 7, 2, 1));
    victim.say(2, &new());
    assert!(!victim.reaches("far"));
    victim.say(2, &ra("behind", 7, 1, 1));
    victim.wait(Duration::from_secs(1));
    victim.say(2, &new());
    victim.say(2, &ra("behind", 7, 2, 1));
    victim.say(2, &lsu("behind", 1, ["honest", "far"].map(str::to_owned)));
    assert!(!victim.reaches("far"));
}

#[test]
fn a_restart_of_a_router_behind_a_neighbour_is_void_when_that_router_speaks() {
    let mut victim = with_routers_behind();
    victim.say(1, &ra("behind", 9, 1, 1));
    assert!(
        !victim.has("behind-service"),
        "an interior router can lie until then"
    );
    victim.sent();
    victim.say(2, &ra("behind", 7, 1, 1));
    victim.wait(Duration::from_secs(1));
    let sent = victim.sent();
    assert!(sent.iter().any(|c| matches!(c, Control::Lsr { .. })));
    assert!(sent.iter().any(|c| matches!(c, Control::Mar { .. })));
    victim.say(2, &lsu("behind", 1, ["honest", "far"].map(str::to_owned)));
    victim.say(2, &full("behind", 1, ["Mbehind-service".to_owned()]));
    assert!(victim.has("behind-service") && victim.has("far-service"));
}

#[test]
fn nobody_speaks_to_others_in_the_name_of_this_router() {
    let mut victim = Victim::new();
    victim.say(1, &ra("liar", 7, 1, 0));
    victim.say(1, &lsu("liar", 1, ["us".to_owned()]));
    for (to, passes) in [
        ("all", "liar2"),
        ("honest", "liar2"),
        ("all", "us"),
        ("honest", "us"),
    ] {
        victim.outputs.clear();
        let restart = ra(passes, 8, 9, 9);
        let message = restart.encode("liar", format!("amqp:/_topo/0/{to}/qdrouter"));
        let received = victim.router.receive_control(1, &message, victim.now);
        received.expect("well formed");
        victim.drain();
        let passed = victim.outputs.iter().any(|output| match output {
            Output::Control { link: 2, message } => {
                let message = crate::amqp::message::Message::decode(message).expect("ours");
                Control::decode(&message) == Ok(restart.clone())
            }
            _ => false,
        });
        assert_eq!(passed, passes == "liar2", "{passes} to {to}");
    }
}
