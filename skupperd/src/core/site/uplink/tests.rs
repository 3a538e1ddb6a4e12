use super::*;
use crate::core::site::effects::Effect;

/// The tags of links that are to be attached at a connection.
fn attached(key: ConnKey, effects: &mut Effects) -> Vec<u64> {
    let tags = effects
        .drain()
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::ToConnection(to, Command::Attach(at, tag, _)) => {
                assert_eq!((to, at), (key, key));
                Some(tag)
            }
            _ => None,
        });
    tags.collect()
}

#[test]
fn everything_moves_to_the_connection_that_is_selected() {
    let (mut uplink, mut effects) = (Uplink::new("E"), Effects::default());
    uplink.opened(1, Some("site-of-A".to_owned()));
    assert!(uplink.select(Some((1, "A", 3)), &mut effects));
    assert!(!uplink.select(Some((1, "A", 3)), &mut effects));
    let active = Some((1, "A".to_owned(), 3));
    let adverts = vec!["site-of-A".to_owned()];
    assert_eq!(
        effects.router_inputs(),
        [RouterInput::SetUplink(active, adverts)]
    );
    uplink.sync(["backend".to_owned()], [], &mut effects);
    let tags = attached(1, &mut effects);
    assert_eq!(tags.len(), 5);
    for (link, tag) in (0..).zip(tags) {
        uplink.attached(1, tag, LinkId::of(link), Some("mesh"), &mut effects);
    }
    effects.drain();
    assert!(uplink.select(Some((2, "B", 1)), &mut effects));
    let moved = effects.drain();
    let detached = |e: &&Effect| matches!(e, Effect::ToConnection(1, Command::Detach(1, ..)));
    assert_eq!(moved.iter().filter(detached).count(), 5);
    uplink.sync(["backend".to_owned()], [], &mut effects);
    assert_eq!(attached(2, &mut effects).len(), 5);
}

#[test]
fn a_link_that_is_refused_is_not_asked_for_again() {
    let (mut uplink, mut effects) = (Uplink::new("E"), Effects::default());
    uplink.select(Some((1, "A", 1)), &mut effects);
    uplink.sync([], ["web".to_owned()], &mut effects);
    // Purposes are attached in their order: the producer is the last.
    let tags = attached(1, &mut effects);
    let tag = *tags.last().expect("a link");
    uplink.attached(1, tag, LinkId::of(9), None, &mut effects);
    uplink.detached(1, LinkId::of(9), &mut effects);
    let unreachable = RouterInput::SetReachable("web".to_owned(), false);
    assert_eq!(effects.router_inputs(), std::slice::from_ref(&unreachable));
    uplink.sync([], ["web".to_owned()], &mut effects);
    assert_eq!(attached(1, &mut effects), [0u64; 0]);
    uplink.sync([], [], &mut effects);
    assert_eq!(effects.router_inputs(), [unreachable]);
}
