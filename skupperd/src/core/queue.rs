//! What waits for the core, by site, so that no site waits long for the work of another.
//!
//! Sites are served in turn: a site whose peers send more than the core handles uses only its own
//! turns, and an event of another site waits for at most the current turn. Events of a site keep their
//! order, and so do its requests. Requests go first: their sender waits for the answer and serves other
//! sites too.

use std::collections::{HashMap, VecDeque};

/// A unit of work for a site.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum QueuedWork<R, E> {
    Request(R),
    Event(E),
}

struct SiteQueue<R, E> {
    requests: VecDeque<R>,
    events: VecDeque<E>,
}

pub(super) struct SiteQueues<R, E> {
    by_site: HashMap<u32, SiteQueue<R, E>>,
    /// Sites that wait for their turn. The one whose turn it is has a queue and is not among them.
    order: VecDeque<u32>,
}

impl<R, E> SiteQueues<R, E> {
    pub(super) fn new() -> Self {
        Self {
            by_site: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_site.is_empty()
    }

    pub(super) fn push(&mut self, site: u32, work: QueuedWork<R, E>) {
        let queue = self.by_site.entry(site).or_insert_with(|| {
            self.order.push_back(site);
            SiteQueue {
                requests: VecDeque::new(),
                events: VecDeque::new(),
            }
        });
        match work {
            QueuedWork::Request(request) => queue.requests.push_back(request),
            QueuedWork::Event(event) => queue.events.push_back(event),
        }
    }

    /// Begins the turn of the next site.
    pub(super) fn begin_turn(&mut self) -> Option<u32> {
        self.order.pop_front()
    }

    /// What the site whose turn it is has to do next.
    pub(super) fn pop(&mut self, site: u32) -> Option<QueuedWork<R, E>> {
        let queue = self.by_site.get_mut(&site)?;
        let request = queue.requests.pop_front().map(QueuedWork::Request);
        request.or_else(|| queue.events.pop_front().map(QueuedWork::Event))
    }

    /// Ends the turn of a site. If it has more to do, its next turn is after those of all others.
    pub(super) fn end_turn(&mut self, site: u32) {
        let has_work = |q: &SiteQueue<R, E>| !q.requests.is_empty() || !q.events.is_empty();
        if self.by_site.get(&site).is_some_and(has_work) {
            self.order.push_back(site);
        } else {
            // With the memory that it took.
            self.by_site.remove(&site);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Queues = SiteQueues<&'static str, u32>;

    /// Serves one site, at most `share` pieces of work.
    fn serve(queues: &mut Queues, share: usize) -> (u32, Vec<QueuedWork<&'static str, u32>>) {
        let site = queues.begin_turn().expect("a site with work");
        let work = (0..share).map_while(|_| queues.pop(site)).collect();
        queues.end_turn(site);
        (site, work)
    }

    #[test]
    fn a_site_with_much_to_do_lets_others_go_first() {
        let mut queues = Queues::new();
        (0..100).for_each(|n| queues.push(1, QueuedWork::Event(n)));
        assert_eq!(
            serve(&mut queues, 2),
            (1, vec![QueuedWork::Event(0), QueuedWork::Event(1)])
        );
        queues.push(2, QueuedWork::Event(7));
        queues.push(3, QueuedWork::Event(8));
        assert_eq!(serve(&mut queues, 1), (1, vec![QueuedWork::Event(2)]));
        assert_eq!(serve(&mut queues, 2), (2, vec![QueuedWork::Event(7)]));
        assert_eq!(serve(&mut queues, 2), (3, vec![QueuedWork::Event(8)]));
        let rest = (3..100).map(QueuedWork::Event).collect();
        assert_eq!(serve(&mut queues, 100), (1, rest));
        assert!(queues.is_empty() && queues.begin_turn().is_none());
    }

    #[test]
    fn work_for_another_site_waits_for_the_current_turn() {
        let mut queues = Queues::new();
        (0..10).for_each(|n| queues.push(1, QueuedWork::Event(n)));
        let site = queues.begin_turn().expect("a site with work");
        assert_eq!(queues.pop(site), Some(QueuedWork::Event(0)));
        queues.push(2, QueuedWork::Event(7));
        queues.push(1, QueuedWork::Event(10));
        queues.end_turn(site);
        assert_eq!(serve(&mut queues, 9), (2, vec![QueuedWork::Event(7)]));
        assert_eq!(serve(&mut queues, 100).1.len(), 10);
    }

    #[test]
    fn requests_go_before_events_and_both_keep_their_order() {
        let mut queues = Queues::new();
        queues.push(1, QueuedWork::Event(1));
        queues.push(1, QueuedWork::Request("set"));
        queues.push(1, QueuedWork::Event(2));
        queues.push(1, QueuedWork::Request("describe"));
        let all = [QueuedWork::Request("set"), QueuedWork::Request("describe")];
        let all = all
            .into_iter()
            .chain([QueuedWork::Event(1), QueuedWork::Event(2)]);
        assert_eq!(serve(&mut queues, 9), (1, all.collect()));
    }
}
