use super::*;
use crate::{
    messages::core_channel,
    peering::fixtures::{established, link_spec},
};
use tokio::sync::mpsc;

/// The dialler of an edge's link, and the events that it sends to the core.
fn dialler(spec: &LinkSpec) -> (LinkDialler, mpsc::UnboundedReceiver<CoreEvent>) {
    let (core, events) = core_channel();
    let dialler = LinkDialler {
        site: 1,
        router: "A".to_owned(),
        instance: "link".to_owned(),
        trunk: None,
        specs: watch::channel(spec.clone()).1,
        core,
        own_endpoints: Vec::new(),
    };
    (dialler, events)
}

#[tokio::test]
async fn a_connection_is_held_when_the_core_has_accepted_it() {
    let spec = link_spec("b", 1);
    let (dialler, mut events) = dialler(&spec);
    for is_accepted in [false, true] {
        let submitted = dialler.submit(&spec, 7, None, established("B", None));
        let (alive, ended) = oneshot::channel();
        let answer = async {
            let Some(CoreEvent::Dialled { dialled, .. }) = events.recv().await else {
                panic!("the core is to hear of the connection");
            };
            if is_accepted {
                dialled.accepted.send(ended).expect("a task that waits");
            }
        };
        let (submitted, ()) = tokio::join!(submitted, answer);
        assert_eq!(submitted.is_some(), is_accepted);
        drop(alive);
        if let Some(ended) = submitted {
            assert!(ended.await.is_err());
        }
    }
}

#[tokio::test]
async fn an_endpoint_of_this_site_itself_is_reported_and_not_dialled_for_a_while() {
    let spec = link_spec("b", 1);
    let (mut dialler, mut events) = dialler(&spec);
    let (target, now) = (&spec.targets[0], Instant::now());
    assert!(!dialler.is_own(target, now));
    dialler.found_own(&spec, target);
    assert!(dialler.is_own(target, now));
    // Dialled, it would fail and be reported.
    assert!(dialler.connect(&spec, 0..1).await.is_none());
    let Ok(CoreEvent::DialFailed { failure, .. }) = events.try_recv() else {
        panic!("the core is to hear of it");
    };
    assert!(failure.is_own && events.try_recv().is_err());
    assert!(!dialler.is_own(target, now + 2 * OWN_PAUSE));
}
