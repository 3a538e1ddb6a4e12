use super::*;
use crate::{core::site::peers::PeerOrigin, model::Role, peering::fixtures::link_spec};

fn dialled(effects: &mut Effects) -> Option<watch::Receiver<LinkSpec>> {
    let mut effects = effects.drain().into_iter();
    effects.find_map(|effect| match effect {
        Effect::Dial(specs) => Some(specs),
        _ => None,
    })
}

fn failure(error: &str) -> LinkFailure {
    LinkFailure {
        host: "b".to_owned(),
        port: 1,
        stage: "connecting",
        error: error.to_owned(),
        is_own: error == "own",
    }
}

fn peers_of_link() -> Peers {
    let mut peers = Peers::default();
    let origin = PeerOrigin {
        role: Role::InterRouter,
        cost: 1,
        link: Some("link".to_owned()),
        access: None,
        correlator: None,
    };
    let addr = "127.0.0.1:1".parse().expect("an address");
    assert!(peers.insert(1, Peer::of(origin, "B".to_owned(), addr)));
    peers
}

#[test]
fn a_link_is_dialled_anew_when_its_endpoints_change_and_not_for_its_cost() {
    let (mut links, mut effects) = (Links::default(), Effects::default());
    assert_eq!(
        links.set(link_spec("a", 1), &mut effects),
        LinkChange::Dialled
    );
    let mut first = dialled(&mut effects).expect("a dialling task");
    assert_eq!(links.set(link_spec("a", 7), &mut effects), LinkChange::Kept);
    assert!(dialled(&mut effects).is_none());
    assert_eq!(first.borrow_and_update().cost, 7);
    assert_eq!(links.cost("link"), Some(7));
    assert_eq!(
        links.set(link_spec("b", 7), &mut effects),
        LinkChange::Redialled
    );
    let second = dialled(&mut effects).expect("a dialling task");
    // The first task sees that its link is gone.
    assert!(first.has_changed().is_err());
    assert!(links.remove("link") && !links.remove("link"));
    assert!(second.has_changed().is_err());
}

#[test]
fn a_failure_is_reported_once_while_the_link_is_down() {
    let (mut links, mut effects) = (Links::default(), Effects::default());
    links.set(link_spec("a", 1), &mut effects);
    effects.drain();
    let none = Peers::default();
    let counted = |effects: &mut Effects| {
        let effects = effects.drain();
        let mut effects = effects.iter();
        effects.any(|effect| matches!(effect, Effect::CountLinkError))
    };
    assert!(links.failed("link", &failure("refused"), &none, &mut effects));
    assert!(counted(&mut effects));
    assert!(!links.failed("link", &failure("refused"), &none, &mut effects));
    assert!(counted(&mut effects));
    // With a connection it is a better endpoint that does not answer.
    assert!(links.failed(
        "link",
        &failure("no answer"),
        &peers_of_link(),
        &mut effects
    ));
    assert!(!counted(&mut effects));
    assert!(!links.failed("other", &failure("refused"), &none, &mut effects));
}

#[test]
fn a_link_that_is_up_has_no_failure_and_remembers_the_last() {
    let (mut links, mut effects) = (Links::default(), Effects::default());
    links.set(link_spec("a", 1), &mut effects);
    links.lost("link", "closed by the peer", &mut effects);
    let mut peers = peers_of_link();
    let down = &links.states(&peers)["link"];
    assert_eq!(
        (down.remote.as_deref(), down.failure.as_deref()),
        (None, Some("closed by the peer"))
    );
    peers.set_neighbour(1, true);
    let up = &links.states(&peers)["link"];
    assert_eq!(
        (up.remote.as_deref(), up.failure.as_deref()),
        (Some("B"), None)
    );
    assert_eq!(up.last_failure.as_deref(), Some("closed by the peer"));
    assert_eq!(links.describe("link", |link| link.lost), Some(1));
}

#[test]
fn a_link_to_the_site_itself_says_so_until_it_fails_for_another_reason() {
    let (mut links, mut effects) = (Links::default(), Effects::default());
    links.set(link_spec("a", 1), &mut effects);
    let none = Peers::default();
    let is_own = |links: &Links| links.states(&none)["link"].is_own;
    links.failed("link", &failure("own"), &none, &mut effects);
    assert!(is_own(&links));
    let mut peers = peers_of_link();
    peers.set_neighbour(1, true);
    assert!(!links.states(&peers)["link"].is_own, "it is up");
    links.failed("link", &failure("refused"), &none, &mut effects);
    assert!(!is_own(&links));
}
