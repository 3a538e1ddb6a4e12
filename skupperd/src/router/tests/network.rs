//! The simulation: routers, links with a delay, and a clock that only tests move.

use crate::router::{ConnId, Output, Router, RouterConfig, Treatment};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

/// One way of a message over a link.
const DELAY: Duration = Duration::from_millis(5);

pub(super) struct Link {
    pub(super) ends: (usize, usize),
    pub(super) cost: u32,
    pub(super) is_up: bool,
    /// Messages are lost, and neither end notices.
    pub(super) cut: bool,
}

pub(super) struct Network {
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) routers: Vec<Router>,
    pub(super) links: Vec<Link>,
    flying: VecDeque<(Instant, usize, usize, Bytes)>,
    /// Copies of each flooded message that a router was given: (router, message).
    pub(super) floods: BTreeMap<(usize, Vec<u8>), usize>,
    /// Whether `floods` is counted.
    pub(super) counting: bool,
    pub(super) sent: usize,
    next_instance: i64,
}

pub(super) fn id(n: usize) -> String {
    format!("r{n:02}")
}

impl Network {
    pub(super) fn new(count: usize) -> Self {
        let now = Instant::now();
        let routers = (0..count)
            .map(|n| Router::new(RouterConfig::new(id(n), 1000), now))
            .collect();
        Self {
            now,
            start: now,
            routers,
            links: Vec::new(),
            flying: VecDeque::new(),
            floods: BTreeMap::new(),
            counting: true,
            sent: 0,
            next_instance: 2000,
        }
    }

    pub(super) fn connect(&mut self, a: usize, b: usize, cost: u32) -> usize {
        self.links.push(Link {
            ends: (a, b),
            cost,
            is_up: false,
            cut: false,
        });
        let link = self.links.len() - 1;
        self.raise(link);
        link
    }

    pub(super) fn raise(&mut self, link: usize) {
        let Link {
            ends: (a, b), cost, ..
        } = self.links[link];
        self.links[link].is_up = true;
        self.routers[a].add_link(link as ConnId, cost, self.now);
        self.routers[b].add_link(link as ConnId, cost, self.now);
        self.pump();
    }

    pub(super) fn lower(&mut self, link: usize) {
        let (a, b) = self.links[link].ends;
        self.links[link].is_up = false;
        self.flying.retain(|(_, l, ..)| *l != link);
        self.routers[a].remove_link(link as ConnId, self.now);
        self.routers[b].remove_link(link as ConnId, self.now);
        self.pump();
    }

    pub(super) fn restart(&mut self, n: usize, addresses: &[&str]) {
        let links: Vec<usize> = (0..self.links.len())
            .filter(|l| self.touches(*l, n) && self.links[*l].is_up)
            .collect();
        links.iter().for_each(|l| self.lower(*l));
        self.next_instance += 1;
        self.routers[n] = Router::new(RouterConfig::new(id(n), self.next_instance), self.now);
        for address in addresses {
            self.routers[n].add_consumer(address, Treatment::Balanced);
        }
        links.iter().for_each(|l| self.raise(*l));
    }

    fn touches(&self, link: usize, n: usize) -> bool {
        let (a, b) = self.links[link].ends;
        a == n || b == n
    }

    /// Puts what every router sends on its links.
    pub(super) fn pump(&mut self) {
        for n in 0..self.routers.len() {
            while let Some(output) = self.routers[n].poll_output() {
                if let Output::Control { link, message } = output {
                    let link = link as usize;
                    let Link {
                        ends: (a, b),
                        is_up,
                        cut,
                        ..
                    } = self.links[link];
                    assert!(
                        n == a || n == b,
                        "router {n} sends on a link that is not its own"
                    );
                    if is_up && !cut {
                        let to = if n == a { b } else { a };
                        self.sent += 1;
                        self.flying.push_back((self.now + DELAY, link, to, message));
                    }
                }
            }
        }
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.pump();
            let timer = self.routers.iter().map(Router::poll_timeout).min();
            let message = self.flying.front().map(|(at, ..)| *at);
            let next = timer.into_iter().chain(message).min().unwrap_or(end);
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            while self.flying.front().is_some_and(|(at, ..)| *at <= self.now) {
                let Some((_, link, to, message)) = self.flying.pop_front() else {
                    break;
                };
                if self.counting {
                    self.record(to, &message);
                }
                self.routers[to]
                    .receive_control(link as ConnId, &message, self.now)
                    .expect("routers understand each other");
            }
            for router in &mut self.routers {
                if router.poll_timeout() <= self.now {
                    router.handle_timeout(self.now);
                }
            }
        }
    }

    fn record(&mut self, to: usize, message: &Bytes) {
        let decoded = crate::amqp::message::Message::decode(message).expect("a message");
        if decoded.to().is_some_and(|t| t.contains("/all/")) {
            let mut same = decoded;
            // The trace differs from hop to hop; the content does not.
            let origin = same.annotations.take().and_then(|a| a.ingress);
            let content = format!(
                "{origin:?} {same:?} {:?}",
                self.now.duration_since(self.start)
            );
            *self.floods.entry((to, content.into_bytes())).or_default() += 1;
        }
    }

    /// Costs between all routers by definition (Floyd-Warshall over the links that are up).
    pub(super) fn reference(&self) -> Vec<Vec<Option<u64>>> {
        let n = self.routers.len();
        let mut cost = vec![vec![None; n]; n];
        (0..n).for_each(|i| cost[i][i] = Some(0));
        for link in self.links.iter().filter(|l| l.is_up && !l.cut) {
            let (a, b) = link.ends;
            for (a, b) in [(a, b), (b, a)] {
                let known: &mut Option<u64> = &mut cost[a][b];
                *known = Some(known.map_or(u64::from(link.cost), |c| c.min(link.cost.into())));
            }
        }
        for k in 0..n {
            for i in 0..n {
                for j in 0..n {
                    if let (Some(a), Some(b)) = (cost[i][k], cost[k][j])
                        && cost[i][j].is_none_or(|c| a + b < c)
                    {
                        cost[i][j] = Some(a + b);
                    }
                }
            }
        }
        cost
    }

    /// Every router knows every other at the right cost, and following next hops gets there.
    pub(super) fn check(&self) -> Result<(), String> {
        let reference = self.reference();
        for (a, row) in reference.iter().enumerate() {
            let routes = self.routers[a].routes();
            for (b, cost) in row.iter().enumerate() {
                if a == b {
                    continue;
                }
                let found = routes.routers.get(&id(b)).map(|r| u64::from(r.cost));
                if found != *cost {
                    return Err(format!("{} to {}: {found:?}, not {cost:?}", id(a), id(b)));
                }
                if cost.is_some() {
                    self.walk(a, b)?;
                }
            }
        }
        Ok(())
    }

    fn walk(&self, from: usize, to: usize) -> Result<(), String> {
        let mut at = from;
        let mut seen = BTreeSet::new();
        while at != to {
            if !seen.insert(at) {
                return Err(format!("{} to {} loops at {}", id(from), id(to), id(at)));
            }
            let routes = self.routers[at].routes();
            let link = routes
                .link_towards(&id(to))
                .ok_or_else(|| format!("{} is stuck", id(at)))?;
            let (a, b) = self.links[link as usize].ends;
            at = if at == a { b } else { a };
        }
        Ok(())
    }

    /// Runs until [`check`](Self::check) succeeds, for at most `most`; returns how long it took.
    pub(super) fn run_until_stable(&mut self, most: Duration) -> Duration {
        let begin = self.now;
        loop {
            self.run(Duration::from_millis(50));
            match self.check() {
                Ok(()) => return self.now - begin,
                Err(e) => assert!(self.now - begin < most, "not settled after {most:?}: {e}"),
            }
        }
    }
}
