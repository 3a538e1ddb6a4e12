//! Peers that are authenticated and hostile: linked sites, edges, clients of the host. What they do must not
//! disturb others, whose round trips are measured meanwhile.

mod budgets;
mod clients;
mod edges;
mod floods;
mod heads;
mod identity;
mod injection;
mod links;
mod opening;
mod ports;
mod routing;
mod siege;
mod violations;

use skupper_tests::{
    SOON,
    echo::{Server, connect, round_trip, works},
    free_addr, free_port,
    hostile_peer::Credentials,
    resident,
    site::{Site, echo, start_linked},
    wait_until,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Longest round trip of an honest client that counts as undisturbed: far above what a machine with other
/// tests needs, and below the stalls that these attacks caused.
const UNDISTURBED: Duration = Duration::from_secs(6);
const MIB: usize = 1024 * 1024;

/// Two linked sites with a service between them. The first accepts links; each has a port for clients of
/// the host.
struct Scene {
    a: Site,
    b: Site,
    /// Where the first accepts links.
    links: SocketAddr,
    /// Ports for clients of the host.
    local_a: SocketAddr,
    local_b: SocketAddr,
    _server: Server,
    /// A listener at the second for an echo server at the first.
    service: SocketAddr,
    /// Lengths of the logs at the start: the second site may have dialled too early.
    logged: [usize; 2],
}

impl Scene {
    fn new() -> Self {
        let (mut a, mut b) = (Site::new("a"), Site::new("b"));
        let locals = [&a, &b].map(|site| {
            let port = free_port();
            let spec = format!("{{settings: {{local-amqp-port: \"{port}\"}}}}");
            site.resource("Site", site.name(), &spec);
            SocketAddr::from(([127, 0, 0, 1], port))
        });
        let links = start_linked(&mut a, &mut b);
        let (server, service) = echo(&a, &b);
        for local in locals {
            wait_until("the port for clients", SOON, || connect(local).is_ok());
        }
        let logged = [a.log().len(), b.log().len()];
        Self {
            a,
            b,
            logged,
            links,
            local_a: locals[0],
            local_b: locals[1],
            _server: server,
            service,
        }
    }

    /// An echo server at the second site, and a listener for it at the first.
    fn serve_at_second(&self, key: &str) -> (Server, SocketAddr) {
        let (server, addr) = (Server::echo(free_addr()), free_addr());
        self.b.connector(key, key, server.addr);
        self.a.listener(key, key, addr);
        wait_until("the service to work", SOON, || works(addr));
        (server, addr)
    }

    /// Nothing that the two sites have with each other has ended.
    fn assert_linked(&self) {
        let log = |n: usize| [&self.a, &self.b][n].log()[self.logged[n]..].to_owned();
        for log in [log(0), log(1)] {
            for gone in ["no HELLO from neighbour", "link is down"] {
                // The hostile neighbour says nothing any more.
                let mut lines = log.lines().filter(|line| !line.contains("mallory"));
                assert!(!lines.any(|line| line.contains(gone)), "{gone}");
            }
        }
        for gone in ["link closed", "data connection closed"] {
            assert!(!log(1).contains(gone), "{gone}");
        }
    }

    /// The router id of the second site.
    fn second_id(&self) -> String {
        router_id(&self.a, "b-")
    }
}

/// An interior site with an edge, and a service between them.
struct EdgeScene {
    site: Site,
    edge: Site,
    /// Where the interior site accepts edges.
    edges: SocketAddr,
    _server: Server,
    /// A listener at the edge for an echo server at the interior site.
    service: SocketAddr,
}

fn edge_scene() -> EdgeScene {
    let (mut site, mut edge) = (Site::new("a"), Site::edge("e"));
    let (addr, edges) = (free_addr(), free_addr());
    site.access_with_edges(addr, edges);
    edge.link_to(&site, addr, 1);
    site.start();
    edge.start();
    edge.wait_status("Link", "to-a", "Ready");
    let (server, service) = echo(&site, &edge);
    EdgeScene {
        site,
        edge,
        edges,
        _server: server,
        service,
    }
}

/// The router id that begins like this, in the log of a site.
fn router_id(site: &Site, begin: &str) -> String {
    let log = site.log();
    let part = log.split("remote=\"").find(|part| part.starts_with(begin));
    let id = part.and_then(|part| part.split('"').next());
    id.expect("a line about the link").to_owned()
}

/// An honest client that sends and gets its bytes back, all the time, on one connection.
struct Honest {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Honest {
    fn start(service: SocketAddr) -> Self {
        let mut socket = connect(service).expect("a connection");
        round_trip(&mut socket, b"before").expect("a service that works");
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let thread = thread::spawn(move || {
            let mut all = Vec::new();
            while !until.load(Ordering::Relaxed) {
                let begin = Instant::now();
                round_trip(&mut socket, b"ping").expect("an undisturbed connection");
                all.push(begin.elapsed());
                // A client with a pause, not a wait for a condition.
                thread::sleep(Duration::from_millis(5));
            }
            all
        });
        Self { stop, thread }
    }

    /// Ends it, and returns its round trips, the shortest first.
    fn round_trips(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = self.thread.join().expect("an undisturbed client");
        all.sort_unstable();
        all
    }

    fn assert_undisturbed(self) {
        let longest = self.round_trips().pop().unwrap_or_default();
        println!("longest round trip {longest:?}");
        assert!(longest < UNDISTURBED, "a round trip took {longest:?}");
    }
}

/// Credentials whose subject is a name of their own.
fn named(site: &Site, addr: SocketAddr, name: &str) -> Credentials {
    let host = addr.ip().to_string();
    Credentials::of(&site.ok(&["link", "generate", "--host", &host, "--name", name]))
}

/// The memory of a site grows by no more than this while `f` runs.
fn with_memory_below(site: &Site, most: usize, f: impl FnOnce()) {
    let before = resident(site.pid());
    f();
    let after = resident(site.pid());
    let grown = after.saturating_sub(before) / MIB;
    println!("{} grew by {grown} MiB", site.name());
    assert!(grown * MIB < most, "{grown} MiB more");
}
