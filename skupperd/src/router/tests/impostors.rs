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
