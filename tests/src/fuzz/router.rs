//! A neighbour that sends hostile routing messages.

use super::{heap, parts};
use skupperd::{
    amqp::message::Message,
    router::{Output, Router, RouterConfig, Treatment},
};
use std::time::{Duration, Instant};

/// Memory of a router with its neighbours.
const BASE: usize = 512 * 1024;
/// Per input byte: as for messages; accepted messages are stored in trees and forwarded.
const EACH: usize = 512;

/// A router with two links and a service receives messages. Each is preceded by its length and a
/// byte: the lowest bit selects the link, the next one lets a second pass before. Returns the
/// number of accepted messages.
pub fn router(data: &[u8]) -> String {
    heap::bounded(data.len(), BASE, EACH, || {
        let mut now = Instant::now();
        let mut router = Router::new(RouterConfig::new("us", 7), now);
        router.add_link(1, 1, now);
        router.add_link(2, 10, now);
        router.add_consumer("web", Treatment::Balanced);
        let (mut good, mut bad) = (0, 0);
        for part in parts(data) {
            let Some((flags, message)) = part.split_first() else {
                continue;
            };
            if flags & 2 != 0 {
                now += Duration::from_secs(1);
                router.handle_timeout(now);
            }
            match router.receive_control(1 + u64::from(flags & 1), message, now) {
                Ok(()) => good += 1,
                Err(e) => {
                    assert!(!e.to_string().is_empty());
                    bad += 1;
                }
            }
            check(&mut router);
        }
        // Every router expires in time, step by step.
        for _ in 0..3 {
            now += Duration::from_secs(100);
            router.handle_timeout(now);
            check(&mut router);
        }
        router.remove_link(1, now);
        router.remove_link(2, now);
        check(&mut router);
        let reached = router.network().iter().filter(|r| r.cost.is_some()).count();
        assert!(reached <= 1, "{reached} routers without a link");
        format!("{good} good {bad} bad")
    })
}

/// Checks that other routers can decode the output.
fn check(router: &mut Router) {
    while let Some(output) = router.poll_output() {
        if let Output::Control { message, .. } = output {
            Message::decode(&message).expect("a message of ours");
        }
    }
    let routes = router.routes();
    assert!(routes.routers.len() <= router.network().len());
}
