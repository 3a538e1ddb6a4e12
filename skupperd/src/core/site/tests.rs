use super::bench::bench;
use crate::messages::Command;
use std::time::{Duration, Instant};

#[test]
fn workers_have_a_view_before_other_routers_hear_of_it() {
    let mut a = bench("A", "B");
    let now = Instant::now();
    a.site.router.add_link(a.key, 1, now);
    a.pump();
    a.site.view_dirty = true;
    a.site.pump(&mut a.ctx, now + Duration::from_secs(2));
    let all: Vec<Command> = std::iter::from_fn(|| a.commands.try_recv().ok()).collect();
    let first = |is: fn(&Command) -> bool| all.iter().position(is);
    let view = first(|command| matches!(command, Command::View(..))).expect("a view");
    let message = first(|command| matches!(command, Command::Control(..))).expect("a message");
    assert!(view < message, "{view}, {message}");
}
