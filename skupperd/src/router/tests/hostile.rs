//! Neighbours that lie: memory and work stay within budgets, and others are not disturbed. A network of a
//! thousand routers is well within them.

use crate::amqp::cpu_time::{cpu_time, cpu_time_since};
use crate::router::{
    ConnId, Output, OwnerId, Router, RouterConfig, Treatment,
    control::{Address, Control},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Processor time: far above what this takes, and far below what a tree for each named router does.
const MOST: Duration = Duration::from_secs(20);

fn assert_cheap(begin: Duration) {
    let took = cpu_time_since(begin);
    assert!(took < MOST, "{took:?}");
}

pub(super) struct Victim {
    pub(super) router: Router,
    pub(super) now: Instant,
    pub(super) outputs: Vec<Output>,
}

impl Victim {
    /// A router with two neighbours, `liar` on link 1 and `honest` on link 2.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let router = Router::new(RouterConfig::new("us", 1), now);
        let mut this = Self {
            router,
            now,
            outputs: Vec::new(),
        };
        for (link, id) in [(1, "liar"), (2, "honest")] {
            this.connect(link, id, link);
        }
        this.hellos();
        this
    }

    /// A link to a neighbour that is this peer's.
    fn connect(&mut self, link: ConnId, id: &str, owner: OwnerId) {
        self.router.add_link(link, 1, self.now);
        self.router.bind_link(link, id, owner);
        self.say(link, &hello(id, 7));
    }

    fn hellos(&mut self) {
        for (link, id) in [(1, "liar"), (2, "honest")] {
            self.say(link, &hello(id, 7));
        }
    }

    pub(super) fn say(&mut self, link: ConnId, control: &Control) {
        let endpoint = match control {
            Control::Hello { .. } => "amqp:/_local/qdhello",
            Control::Lsu { .. } => "amqp:/_topo/0/us/qdrouter",
            Control::MauFull { .. } => "amqp:/_topo/0/us/qdrouter.ma",
            Control::MauDelta { .. } => "amqp:/_topo/0/all/qdrouter.ma",
            _ => "amqp:/_topo/0/all/qdrouter",
        };
        let message = control.encode(control.id(), endpoint.to_owned());
        let received = self.router.receive_control(link, &message, self.now);
        received.expect("well formed");
        self.drain();
    }

    pub(super) fn drain(&mut self) {
        while let Some(output) = self.router.poll_output() {
            if !matches!(output, Output::RoutesChanged) {
                self.outputs.push(output);
            }
        }
    }

    pub(super) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while self.router.poll_timeout() <= end {
            self.now = self.now.max(self.router.poll_timeout());
            self.router.handle_timeout(self.now);
            self.hellos();
            self.drain();
        }
        self.now = end;
    }

    /// Messages of ours since the last call.
    pub(super) fn sent(&mut self) -> Vec<Control> {
        let outputs = std::mem::take(&mut self.outputs);
        let decoded = outputs.iter().filter_map(|output| match output {
            Output::Control { message, .. } => {
                let message = crate::amqp::message::Message::decode(message).expect("ours");
                Control::decode(&message).ok()
            }
            _ => None,
        });
        decoded.filter(|control| control.id() == "us").collect()
    }

    pub(super) fn reaches(&self, id: &str) -> bool {
        self.router.routes().routers.contains_key(id)
    }

    pub(super) fn has(&self, address: &str) -> bool {
        self.router.routes().addresses.contains_key(address)
    }
}

fn hello(id: &str, instance: i64) -> Control {
    Control::Hello {
        id: id.to_owned(),
        instance,
        seen: vec!["us".to_owned()],
    }
}

pub(super) fn ra(id: &str, instance: i64, ls_seq: i64, mobile_seq: i64) -> Control {
    Control::Ra {
        id: id.to_owned(),
        instance,
        ls_seq,
        mobile_seq,
    }
}

pub(super) fn lsu(id: &str, ls_seq: i64, peers: impl IntoIterator<Item = String>) -> Control {
    Control::Lsu {
        id: id.to_owned(),
        instance: 7,
        ls_seq,
        peers: peers.into_iter().map(|peer| (peer, 1)).collect(),
    }
}

pub(super) fn full(id: &str, seq: i64, keys: impl IntoIterator<Item = String>) -> Control {
    let address = |key| Address { key, treatment: 3 };
    Control::MauFull {
        id: id.to_owned(),
        seq,
        exist: keys.into_iter().map(address).collect(),
    }
}

#[test]
fn routers_that_only_a_liar_knows_cost_bounded_memory_and_work() {
    let mut victim = Victim::new();
    let begin = cpu_time();
    for n in 0..20_000 {
        victim.say(1, &ra(&format!("fake{n:05}"), 7, 1, 1));
    }
    let known = victim.router.network().len();
    assert!((4_000..9_000).contains(&known), "{known} routers");
    // The other neighbour has room of its own.
    victim.say(2, &ra("behind-honest", 7, 1, 0));
    victim.say(2, &ra("honest", 7, 1, 0));
    victim.say(
        2,
        &lsu("honest", 1, ["us".to_owned(), "behind-honest".to_owned()]),
    );
    assert!(victim.reaches("behind-honest"));
    assert_cheap(begin);
    let over = Output::OverBudget {
        link: 1,
        id: "fake19999".to_owned(),
    };
    assert!(victim.outputs.contains(&over));
}

/// Each of its links had a budget of its own, and two of them the sum of all.
#[test]
fn a_liar_with_many_links_has_one_budget_and_leaves_room_for_others() {
    let mut victim = Victim::new();
    let mut number = 0;
    for link in 10..14 {
        // It has one connection at a time, too: what it has said stays for a while.
        if link % 2 == 0 {
            victim.router.remove_link(link - 1, victim.now);
        }
        let id = format!("liar-{link}");
        victim.connect(link, &id, 1);
        for _ in 0..4_200 {
            victim.say(link, &ra(&format!("fake{number:06}"), 7, 1, 1));
            number += 1;
        }
        for n in 0..4 {
            let id = format!("server{link}-{n}");
            victim.say(link, &ra(&id, 7, 0, 1));
            let keys = (0..3000).map(|key| format!("M{link}-{n}-{key}-{}", "x".repeat(480)));
            victim.say(link, &full(&id, 1, keys));
        }
    }
    let network = victim.router.network();
    assert!(network.len() < 9_000, "{} routers", network.len());
    let keys = network.iter().flat_map(|router| &router.addresses);
    let bytes: usize = keys.map(String::len).sum();
    assert!(bytes < 16 << 20, "{bytes} bytes");
    // There is room for a network of a thousand routers.
    for n in 0..1_000 {
        victim.say(2, &ra(&format!("behind-honest-{n}"), 7, 1, 1));
    }
    victim.say(2, &ra("honest", 7, 0, 1));
    let keys = (0..10_000).map(|key| format!("Mservice-{key}"));
    victim.say(2, &full("honest", 1, keys));
    assert!(victim.has("service-9999"));
    let over = |output: &Output| matches!(output, Output::OverBudget { link: 2, .. });
    assert!(!victim.outputs.iter().any(over));
}

#[test]
fn link_states_with_thousands_of_neighbours_cost_bounded_memory_and_work() {
    let mut victim = Victim::new();
    let begin = cpu_time();
    for n in 0..30 {
        let id = format!("fake{n}");
        victim.say(1, &ra(&id, 7, 1, 0));
        let peers = (0..4000).map(|peer| format!("named-{n}-{peer}"));
        victim.say(1, &lsu(&id, 1, peers.chain(["liar".to_owned()])));
    }
    victim.say(1, &ra("liar", 7, 1, 0));
    victim.say(1, &lsu("liar", 1, (0..30).map(|n| format!("fake{n}"))));
    victim.wait(Duration::from_secs(5));
    assert!(victim.reaches("named-0-0") && victim.reaches("honest"));
    let reached = victim.router.routes().routers.len();
    assert!(reached < 40_000, "{reached} routers");
    // Only routers that have spoken have a tree: 30 fakes, the neighbours and this one, for each of the
    // changes. Names have none.
    let trees = victim.router.work().trees;
    assert!(trees < 3_000, "{trees} trees");
    assert_cheap(begin);
}

#[test]
fn a_network_that_changes_all_the_time_is_not_computed_all_the_time() {
    let mut victim = Victim::new();
    let peers = |n: i64| (0..2000).map(move |peer| format!("named-{}-{peer}", n % 2));
    let trees = victim.router.work().trees;
    for n in 1..300 {
        victim.say(1, &ra("liar", 7, n, 0));
        victim.say(1, &lsu("liar", n, peers(n)));
        victim.now += Duration::from_millis(1);
    }
    let computed = victim.router.work().trees - trees;
    assert!(computed < 250, "{computed} trees for 300 changes in 300 ms");
    victim.wait(Duration::from_secs(3));
    assert!(
        victim.reaches("named-1-1999"),
        "the last one counts in the end"
    );
}

#[test]
fn addresses_of_a_liar_cost_bounded_memory() {
    let mut victim = Victim::new();
    let begin = cpu_time();
    for n in 0..8 {
        let id = format!("fake{n}");
        victim.say(1, &ra(&id, 7, 0, 1));
        let keys = (0..5000).map(|key| format!("M{n}-{key}-{}", "x".repeat(480)));
        victim.say(1, &full(&id, 1, keys));
    }
    let network = victim.router.network();
    let bytes: usize = network
        .iter()
        .flat_map(|router| &router.addresses)
        .map(String::len)
        .sum();
    assert!((8 << 20..16 << 20).contains(&bytes), "{bytes} bytes");
    victim.say(2, &ra("honest", 7, 0, 1));
    victim.say(2, &full("honest", 1, ["Mweb".to_owned()]));
    assert!(victim.has("web"), "the other neighbour has room of its own");
    assert_cheap(begin);
    let over = |output: &Output| matches!(output, Output::OverBudget { link: 1, .. });
    assert!(victim.outputs.iter().any(over));
    // What is withdrawn makes room.
    for n in 0..8 {
        let id = format!("fake{n}");
        victim.say(1, &ra(&id, 7, 0, 2));
        victim.say(1, &full(&id, 2, []));
    }
    victim.say(1, &ra("fake9", 7, 0, 1));
    victim.say(1, &full("fake9", 1, ["Mlate".to_owned()]));
    assert!(victim.has("late"));
}

#[test]
fn a_full_update_with_a_future_sequence_is_requested_again() {
    let mut victim = Victim::new();
    victim.say(2, &ra("honest", 7, 0, 5));
    victim.say(2, &full("honest", 5, ["Mweb".to_owned()]));
    assert!(victim.has("web"));
    victim.sent();
    victim.say(1, &full("honest", 1 << 62, []));
    assert!(victim.has("web"), "taken from somebody else");
    let asks = |control: &Control| matches!(control, Control::Mar { .. });
    assert!(victim.sent().iter().any(asks));
    // The router's next update counts.
    victim.say(2, &full("honest", 5, ["Mweb".to_owned(), "Mdb".to_owned()]));
    assert!(victim.has("web") && victim.has("db"));
}

#[test]
fn nobody_speaks_with_another_id_than_that_of_its_connection() {
    let mut victim = Victim::new();
    victim.outputs.clear();
    victim.say(1, &hello("honest", 99));
    let wrong = Output::WrongId {
        link: 1,
        id: "honest".to_owned(),
    };
    assert_eq!(victim.outputs, [wrong]);
    assert_eq!(victim.router.routes().link_towards("honest"), Some(2));
}

#[test]
fn a_neighbour_restarts_when_it_says_so_itself() {
    let mut victim = Victim::new();
    victim.say(2, &ra("honest", 7, 0, 1));
    victim.say(2, &full("honest", 1, ["Mweb".to_owned()]));
    victim.outputs.clear();
    victim.say(1, &ra("honest", 8, 0, 0));
    let wrong = Output::WrongInstance {
        link: 1,
        id: "honest".to_owned(),
    };
    assert!(victim.outputs.contains(&wrong) && victim.has("web"));
    victim.say(2, &hello("honest", 8));
    let restarted = Output::Restarted {
        link: 2,
        id: "honest".to_owned(),
    };
    assert!(victim.outputs.contains(&restarted) && !victim.has("web"));
}

#[test]
fn ids_have_no_characters_that_a_terminal_or_a_log_acts_on() {
    let mut victim = Victim::new();
    for id in [
        "a\u{1b}[2J",
        "two words",
        "a\nb",
        "a/b",
        "",
        "\u{202e}x",
        "a\"b",
    ] {
        let control = ra(id, 7, 0, 0);
        let message = control.encode("x", "amqp:/_topo/0/all/qdrouter".to_owned());
        let error = victim.router.receive_control(1, &message, victim.now);
        assert!(error.is_err(), "{id:?}");
    }
    victim.say(1, &ra("skupper-router-7d9f.example_1:2", 7, 0, 3));
    let keys = ["Mgood key", "Mbad\u{7}", "Hedge-1", "Hbad edge"];
    let keys = keys.iter().map(|key| (*key).to_owned());
    victim.say(1, &full("skupper-router-7d9f.example_1:2", 3, keys));
    let network = victim.router.network();
    let (router, edges): (Vec<_>, Vec<_>) =
        network.iter().partition(|r| r.id.starts_with("skupper"));
    assert_eq!(router[0].addresses, ["good key"]);
    assert!(edges.iter().any(|r| r.id == "edge-1") && !edges.iter().any(|r| r.id == "bad edge"));
}

#[test]
fn requests_for_all_addresses_are_not_answered_without_end() {
    let mut victim = Victim::new();
    for n in 0..10_000 {
        let address = format!("service-{n}");
        victim.router.add_consumer(&address, Treatment::Balanced);
    }
    victim.drain();
    victim.sent();
    let ask = Control::Mar {
        id: "liar".to_owned(),
        have_seq: 0,
    };
    let message = ask.encode("liar", "amqp:/_topo/0/us/qdrouter.ma".to_owned());
    let mut bytes = 0;
    for _ in 0..200 {
        let received = victim.router.receive_control(1, &message, victim.now);
        received.expect("well formed");
        while let Some(output) = victim.router.poll_output() {
            if let Output::Control { message, .. } = output {
                bytes += message.len();
            }
        }
    }
    assert!(bytes < 24 << 20, "{bytes} bytes");
}

#[test]
fn a_thousand_routers_with_ten_thousand_keys_and_edges_are_within_the_budgets() {
    let mut victim = Victim::new();
    let begin = cpu_time();
    let id = |n: usize| format!("site-{n:04}-router-{n:08}");
    let links: BTreeMap<usize, Vec<usize>> = (0..1000)
        .map(|n| {
            (
                n,
                (1..=4)
                    .flat_map(|d| [(n + d) % 1000, (n + 1000 - d) % 1000])
                    .collect(),
            )
        })
        .collect();
    // All of them are behind one neighbour.
    for n in 0..1000 {
        victim.say(2, &ra(&id(n), 7, 1, 1));
        let peers = links[&n].iter().map(|peer| id(*peer));
        let honest = (n == 0).then(|| "honest".to_owned());
        victim.say(2, &lsu(&id(n), 1, peers.chain(honest)));
        let keys = (0..10).flat_map(|k| [format!("Mservice-{n}-{k}"), format!("Hedge-{n}-{k}")]);
        victim.say(2, &full(&id(n), 1, keys));
    }
    victim.say(2, &ra("honest", 7, 1, 0));
    victim.say(2, &lsu("honest", 1, ["us".to_owned(), id(0)]));
    victim.wait(Duration::from_secs(10));
    let routes = victim.router.routes();
    assert_eq!(routes.routers.len(), 1002);
    assert_eq!(routes.addresses.len(), 10_000);
    assert_eq!(routes.edges.len(), 10_000);
    let over = |output: &Output| matches!(output, Output::OverBudget { .. });
    assert!(!victim.outputs.iter().any(over));
    println!("a thousand routers took {:?}", cpu_time_since(begin));
}
