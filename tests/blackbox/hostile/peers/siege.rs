//! All attacks at once, on two sites whose service goes on.
//!
//! Ten seconds, or as many as `SKUPPER_TEST_SIEGE_SECONDS` says. From a minute on, the bound on the service
//! is that of the documentation: use a quiet machine.

use super::{
    Honest, MIB, Scene, budgets, floods,
    heads::send_heads,
    injection::{forged_messages, send_forged},
    links::end_busy_session,
    named, opening,
    routing::{flood_with_link_states, hello},
};
use skupper_tests::{
    SOON,
    echo::connect,
    hostile_peer::{Credentials, HostilePeer},
    resident, wait_until,
};
use skupperd::amqp::performative::Role;
use std::{
    collections::BTreeMap,
    io::Write,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

/// How long one attack goes on before it begins anew.
const ROUND: Duration = Duration::from_secs(3);
/// Memory of a site above what it needs itself: a dozen hostile connections, of which those that keep
/// most may have 80 MiB.
const MOST: usize = 256 * MIB;

/// Where the attackers find the sites, and who they are.
struct Targets {
    links: SocketAddr,
    local: SocketAddr,
    credentials: Vec<Credentials>,
    ours: String,
    theirs: String,
}

impl Targets {
    /// A linked site with an id of its own.
    fn site(&self, n: usize) -> HostilePeer {
        HostilePeer::site(self.links, &self.credentials[n], &format!("mallory-{n}"))
    }

    fn neighbour(&self, n: usize) -> HostilePeer {
        let mut peer = self.site(n);
        peer.control_links();
        peer
    }

    fn client(&self) -> HostilePeer {
        HostilePeer::client(self.local)
    }
}

/// Runs one round of an attack. It may panic: the site has cut it off.
type Attack = fn(&Targets);

const ATTACKS: [(&str, Attack); 13] = [
    ("messages", |at| {
        let mut peer = at.client();
        peer.begin(0);
        peer.sender(0, 0, None);
        peer.flush().expect("sent");
        peer.wait_credit();
        floods::flood(&mut peer, 0, &floods::small("nobody"), ROUND);
    }),
    ("control messages", |at| {
        let mut peer = at.neighbour(0);
        floods::flood(&mut peer, 0, &hello("mallory-0", 1, &at.ours), ROUND);
    }),
    ("link states", |at| {
        let mut peer = at.neighbour(1);
        flood_with_link_states(&mut peer, &at.ours, Instant::now() + ROUND);
    }),
    ("sessions", |at| {
        floods::flood_with_sessions(&mut at.site(2), Instant::now() + ROUND);
    }),
    ("dispositions", |at| {
        floods::flood_with_dispositions(&mut at.neighbour(3), Instant::now() + ROUND);
    }),
    ("streams beyond their window", |at| {
        let sent = budgets::overrun(&mut at.neighbour(4), "deaf", 64 * MIB);
        sent.expect("the connection goes on");
    }),
    ("incomplete messages", |at| {
        let mut peer = at.client();
        budgets::begin_messages(&mut peer, 100).expect("not yet cut off");
    }),
    ("answers that are not read", |at| {
        let mut peer = at.client();
        peer.begin(0);
        peer.flush().expect("sent");
        budgets::ask_and_not_read(&mut peer);
    }),
    ("sessions with many links", |at| {
        let mut peer = at.client();
        end_busy_session(&mut peer, 8_000, Role::Sender).expect("within the budget");
    }),
    ("heads", |at| {
        let mut peer = at.client();
        send_heads(&mut peer, 0, "echo", 1_000);
        peer.is_open(ROUND / 10);
    }),
    ("forged messages", |at| {
        let forged = forged_messages(&at.theirs, &at.ours);
        send_forged(&mut at.client(), &[None, Some("echo")], &forged);
    }),
    ("another's id", |at| {
        let mut peer = HostilePeer::site(at.links, &at.credentials[5], &at.theirs);
        peer.wait_end();
    }),
    ("key updates and strangers", |at| {
        let strangers: Vec<_> = (0..100)
            .filter_map(|_| {
                let mut socket = connect(at.links).ok()?;
                // Half a handshake.
                socket.write_all(b"\x16\x03\x01\x02\x00\x01").ok()?;
                Some(socket)
            })
            .collect();
        let mut peer = at.site(6);
        opening::flood_with_key_updates(&mut peer, Instant::now() + ROUND);
        drop(strangers);
    }),
];

/// Attackers are on hosts of their own: they take no processor time that the sites want.
fn yield_processor() {
    // SAFETY: a call without pointers; it concerns the calling thread.
    let done = unsafe { nix::libc::setpriority(nix::libc::PRIO_PROCESS, 0, 19) };
    assert_eq!(done, 0, "a lower priority");
}

fn seconds() -> u64 {
    let asked = std::env::var("SKUPPER_TEST_SIEGE_SECONDS");
    asked.map_or(10, |text| text.parse().expect("seconds"))
}

/// The round trip that 99 of 100 do not exceed.
fn p99(honest: Vec<Honest>) -> Duration {
    let all = honest.into_iter().flat_map(Honest::round_trips);
    let mut all: Vec<Duration> = all.collect();
    all.sort_unstable();
    let count = all.len();
    assert!(count > 100, "{count} round trips");
    println!("{count} round trips, longest {:?}", all[count - 1]);
    all[count * 99 / 100]
}

#[test]
fn services_are_unaffected_by_all_attacks_at_once() {
    let scene = Scene::new();
    let (server, _held) = budgets::deaf_server();
    scene.a.connector("deaf", "deaf", server.addr);
    let targets = Targets {
        links: scene.links,
        local: scene.local_b,
        credentials: (0..7)
            .map(|n| named(&scene.a, scene.links, &format!("mallory-{n}")))
            .collect(),
        ours: super::router_id(&scene.b, "a-"),
        theirs: scene.second_id(),
    };
    let honest = || (0..4).map(|_| Honest::start(scene.service)).collect();
    let during = Duration::from_secs(seconds());
    let quiet: Vec<Honest> = honest();
    thread::sleep((during / 3).min(Duration::from_secs(30)));
    let before = p99(quiet);
    let sites = [&scene.a, &scene.b];
    let memory = sites.map(|site| resident(site.pid()));
    let mut most = memory;
    let rounds = Mutex::new(BTreeMap::<&str, [u32; 2]>::new());
    let end = Instant::now() + during;
    let after = thread::scope(|scope| {
        for (name, attack) in ATTACKS {
            let (targets, rounds) = (&targets, &rounds);
            scope.spawn(move || {
                yield_processor();
                while Instant::now() < end {
                    let done = catch_unwind(AssertUnwindSafe(|| attack(targets)));
                    let mut rounds = rounds.lock().expect("no panic");
                    rounds.entry(name).or_default()[usize::from(done.is_err())] += 1;
                }
            });
        }
        let honest: Vec<Honest> = honest();
        while Instant::now() < end {
            for (most, site) in most.iter_mut().zip(sites) {
                *most = (*most).max(resident(site.pid()));
            }
            thread::sleep(Duration::from_millis(100));
        }
        p99(honest)
    });
    for (name, [done, cut_off]) in rounds.into_inner().expect("no panic") {
        println!("{name}: {done} rounds, {cut_off} cut off");
        assert!(done + cut_off > 0, "{name} has not attacked");
    }
    let grown = [0, 1].map(|n| most[n].saturating_sub(memory[n]) / MIB);
    println!("p99 {before:?} before, {after:?} during {during:?}; {grown:?} MiB more");
    // On a machine that runs other tests, or for a short time, figures say less.
    let floor = match during {
        d if d >= Duration::from_secs(60) => Duration::from_millis(20),
        _ => Duration::from_secs(1),
    };
    assert!(
        after <= (before * 2).max(floor),
        "p99 {before:?}, then {after:?}"
    );
    assert!(grown.iter().all(|mib| mib * MIB < MOST), "{grown:?} MiB");
    for site in sites {
        wait_until("an end of the attacks", SOON, || {
            site.http("GET /healthz").starts_with("HTTP/1.1 200")
        });
    }
    scene.assert_linked();
}
