//! A neighbour that says anything about itself and about others.

use super::{heap, parts};
use skupperd::{
    amqp::message::Message,
    router::{Config, Output, Router, Treatment},
};
use std::time::{Duration, Instant};

/// A router with its neighbours.
const BASE: usize = 512 * 1024;
/// As for messages; what is understood is kept in trees, and passed on to others.
const EACH: usize = 512;

/// A router with two links and a service, and the messages that come in: each behind its length and an
/// octet, whose lowest bit says on which link, and the next that a second has passed before. Tells how
/// many were understood.
pub fn router(data: &[u8]) -> String {
    heap::bounded(data.len(), BASE, EACH, || {
        let mut now = Instant::now();
        let mut router = Router::new(Config::new("us", 7), now);
        router.link_up(1, 1, now);
        router.link_up(2, 10, now);
        router.consumer_added("web", Treatment::Balanced);
        let (mut good, mut bad) = (0, 0);
        for part in parts(data) {
            let Some((flags, message)) = part.split_first() else {
                continue;
            };
            if flags & 2 != 0 {
                now += Duration::from_secs(1);
                router.handle_timeout(now);
            }
            match router.control(1 + u64::from(flags & 1), message, now) {
                Ok(()) => good += 1,
                Err(e) => {
                    assert!(!e.to_string().is_empty());
                    bad += 1;
                }
            }
            check(&mut router);
        }
        // All who were heard of are forgotten in time, step by step.
        for _ in 0..3 {
            now += Duration::from_secs(100);
            router.handle_timeout(now);
            check(&mut router);
        }
        router.link_down(1, now);
        router.link_down(2, now);
        check(&mut router);
        let reached = router.network().iter().filter(|r| r.cost.is_some()).count();
        assert!(reached <= 1, "{reached} routers without a link");
        format!("{good} good {bad} bad")
    })
}

/// What goes out is what others can read.
fn check(router: &mut Router) {
    while let Some(output) = router.poll_output() {
        if let Output::Control { message, .. } = output {
            Message::decode(&message).expect("a message of ours");
        }
    }
    let routes = router.routes();
    assert!(routes.routers.len() <= router.network().len());
}
