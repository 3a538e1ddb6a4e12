//! Vanflow records of sites as an AMQP client (Qpid Proton) receives them.

use serde_json::Value;
use skupper_tests::{
    SOON,
    echo::{Server, connect, works},
    free_addr, free_port,
    site::Site,
    skip::skip,
    wait_for, wait_until,
};
use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

// Attribute numbers of vanflow.
const TYPE: &str = "0";
const PARENT: &str = "2";
const START: &str = "3";
const END: &str = "4";
const NAME: &str = "30";
const OCTETS: &str = "23";
const REVERSE: &str = "58";

/// The Python with Qpid Proton. `None`, after a skip, where there is none.
fn python(args: &[&str]) -> Option<Child> {
    // `cargo xtask setup` installs Qpid Proton there.
    let python = skupper_tests::target().join("venv/bin/python");
    let found = Command::new(&python).args(["-c", "import proton"]).output();
    if !found.is_ok_and(|o| o.status.success()) {
        skip("python with proton is not here");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("proton/vanflow.py");
    let child = Command::new(&python)
        .arg(script)
        .args(args)
        .stdin(Stdio::null())
        .spawn();
    Some(child.expect("python runs"))
}

/// A process that observes the network, and the records that it received.
struct Observer {
    child: Child,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Observer {
    fn start(mode: &str, port: u16) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("state");
        let child = python(&[mode, &port.to_string(), file.to_str().expect("a path")])?;
        Some(Self {
            child,
            file,
            _dir: dir,
        })
    }

    fn state(&self) -> Value {
        let text = fs::read(&self.file).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or(Value::Null)
    }

    /// The records of a type.
    fn records(&self, kind: u64) -> Vec<Value> {
        let state = self.state();
        let all = state["records"].as_object();
        let all = all.into_iter().flat_map(|all| all.values());
        all.filter(|r| r[TYPE] == kind).cloned().collect()
    }

    /// Waits for a record of a type with these attributes.
    fn find(&self, kind: u64, with: &[(&str, Value)]) -> Value {
        let what = format!("a record of type {kind} with {with:?}");
        let fits = |r: &Value| with.iter().all(|(name, value)| r[*name] == *value);
        wait_for(&what, 2 * SOON, || {
            self.records(kind).into_iter().find(fits)
        })
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- state of the observer\n{:#}", self.state());
        }
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    child.kill().ok();
    child.wait().ok();
}

/// A site with a port for AMQP clients on this host.
fn with_port(name: &str, rest: &str) -> (Site, u16) {
    let (site, port) = (Site::new(name), free_port());
    let spec = format!("{{settings: {{local-amqp-port: \"{port}\"}}{rest}}}");
    site.resource("Site", name, &spec);
    (site, port)
}

fn id(site: &Site) -> String {
    let status = site.status("Site", site.name()).expect("a status");
    status["metadata"]["uid"]
        .as_str()
        .expect("an id")
        .to_owned()
}

fn now() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time");
    u64::try_from(now.as_micros()).expect("a number")
}

fn transfer(addr: SocketAddr, bytes: usize) {
    let mut socket = connect(addr).expect("a connection");
    socket.write_all(&vec![7; bytes]).expect("sent");
    socket.shutdown(Shutdown::Write).expect("shut down");
    let mut back = Vec::new();
    socket.read_to_end(&mut back).expect("received");
    assert_eq!(back.len(), bytes);
}

/// A web server with one answer.
fn web() -> Server {
    Server::start(free_addr(), |mut socket| {
        let mut buffer = [0; 1000];
        while socket.read(&mut buffer).is_ok_and(|n| n > 0) {
            socket
                .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone")
                .ok();
        }
    })
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one network, which takes long to set up, and all that is told of it"
)]
fn an_observer_sees_sites_routers_links_services_and_connections() {
    let ((mut a, port), mut b, mut e) = (with_port("a", ""), Site::new("b"), Site::edge("e"));
    let Some(mut probe) = python(&["collect", "0", "/dev/null"]) else {
        return;
    };
    end(&mut probe);
    let link = free_addr();
    a.access_with_edges(link, free_addr());
    b.link_to(&a, link, 3);
    e.link_to(&a, link, 1);
    for site in [&mut a, &mut b, &mut e] {
        site.start();
    }
    b.wait_status("Link", "to-a", "Ready");
    e.wait_status("Link", "to-a", "Ready");
    let (echo, page) = (Server::echo(free_addr()), web());
    let [far, near, edge] = [free_addr(), free_addr(), free_addr()];
    a.connector("echo", "echo", echo.addr);
    b.connector("page", "page", page.addr);
    b.listener("echo", "echo", far);
    b.listener("page", "page", near);
    e.listener("echo", "echo", edge);
    for addr in [far, near, edge] {
        wait_until("the services", SOON, || works(addr) || addr == near);
    }
    let before = now();
    let observer = Observer::start("collect", port).expect("an observer");
    for (site, mode) in [(&a, "interior"), (&b, "interior"), (&e, "edge")] {
        let (id, name) = (id(site), site.name());
        let record = observer.find(0, &[(NAME, name.into())]);
        assert_eq!(
            (&record["1"], &record["11"], &record["12"]),
            (&id.as_str().into(), &"linux".into(), &"default".into())
        );
        let router = observer.find(1, &[(PARENT, id.into()), ("13", mode.into())]);
        let source = router["1"].as_str().expect("an identity");
        let short = source.strip_suffix(":0").expect("the router's number");
        assert_eq!(short.len(), 5);
        wait_until("the source's heartbeat", SOON, || {
            let state = observer.state();
            let (source, beat) = (
                &state["sources"][source],
                state["heartbeats"][source].as_u64(),
            );
            source["address"] == format!("mc/sfe.{short}:0")
                && source["direct"] == format!("sfe.{short}:0")
                && source["sourceType"] == "ROUTER"
                && beat.is_some_and(|beat| beat > before)
        });
        let started = router[START].as_u64().expect("a time");
        assert!(started < before && started > before - 120_000_000);
    }
    let router = |site: &Site| observer.find(1, &[(PARENT, id(site).into())])["1"].clone();
    let (at_a, at_b, at_e) = (router(&a), router(&b), router(&e));
    // Links and their ends.
    for (from, role, cost) in [(&at_b, "inter-router", 3), (&at_e, "edge", 1)] {
        let link = observer.find(2, &[(PARENT, from.clone()), ("53", "up".into())]);
        assert_eq!(
            (&link["54"], &link["33"], &link[NAME]),
            (&role.into(), &cost.into(), &"to-a".into())
        );
        let access = observer.find(
            15,
            &[
                (PARENT, at_a.clone()),
                ("54", role.into()),
                ("52", 1.into()),
            ],
        );
        assert_eq!(link["6"], access["1"]);
    }
    let port_of = |addr: SocketAddr| Value::from(addr.port().to_string());
    let listener = observer.find(4, &[(PARENT, at_b.clone()), ("19", "echo".into())]);
    assert_eq!(
        (&listener[NAME], &listener["15"], &listener["18"]),
        (&"echo".into(), &"127.0.0.1".into(), &port_of(far))
    );
    let connector = observer.find(5, &[(PARENT, at_a.clone()), ("19", "echo".into())]);
    assert_eq!(
        (&connector["18"], &connector["16"]),
        (&port_of(echo.addr), &"tcp".into())
    );
    let process = observer.find(7, &[("1", connector["7"].clone())]);
    assert_eq!(
        (&process[PARENT], &process[NAME]),
        (&id(&a).into(), &"echo".into())
    );
    // A connection over a link, from an interior site and from an edge.
    for (bytes, addr, at, trace) in [
        (1_234_567, far, &at_b, "0/b-"),
        (54_321, edge, &at_e, "Local"),
    ] {
        let start = now();
        transfer(addr, bytes);
        let size = Value::from(bytes);
        let flow = observer.find(16, &[(OCTETS, size.clone()), (REVERSE, size)]);
        let of = observer.find(4, &[(PARENT, at.clone()), ("19", "echo".into())]);
        assert_eq!(
            (&flow[PARENT], &flow["14"]),
            (&of["1"], &"127.0.0.1".into())
        );
        assert!(
            flow["17"]
                .as_str()
                .is_some_and(|port| port.parse::<u16>().is_ok())
        );
        let with = [
            ("1", flow["1"].clone()),
            ("60", connector["1"].clone()),
            ("62", "127.0.0.1".into()),
        ];
        let flow = observer.find(16, &with);
        assert!(
            flow["31"].as_str().is_some_and(|t| t.starts_with(trace)),
            "{flow}"
        );
        let flow = wait_for("the end", SOON, || {
            Some(observer.find(16, &[("1", flow["1"].clone())])).filter(|f| f[END].is_u64())
        });
        let (began, ended) = (
            flow[START].as_u64().expect("a time"),
            flow[END].as_u64().expect("a time"),
        );
        assert!(start <= began && began <= ended && ended <= now());
        assert!(
            flow["24"]
                .as_u64()
                .is_some_and(|latency| latency <= ended - began)
        );
        assert_eq!(flow["64"], Value::Null);
    }
    // A request at one site, on a connection that stays open.
    let mut socket = connect(near).expect("a connection");
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    let mut answer = [0; 49];
    socket.read_exact(&mut answer).expect("an answer");
    let request = observer.find(17, &[("27", "GET".into()), ("28", "404".into())]);
    assert_eq!(
        (&request["16"], &request[OCTETS], &request[REVERSE]),
        (&"HTTP/1.1".into(), &0.into(), &4.into())
    );
    let here = observer.find(5, &[(PARENT, at_b.clone()), ("19", "page".into())]);
    let flow = observer.find(
        16,
        &[
            ("1", request[PARENT].clone()),
            (OCTETS, 18.into()),
            (REVERSE, 49.into()),
        ],
    );
    assert_eq!((&flow["60"], &flow[END]), (&here["1"], &Value::Null));
    // Records of removed resources end, and so do the links of a removed site.
    b.remove("Listener", "page");
    observer.find(
        16,
        &[
            ("1", request[PARENT].clone()),
            ("64", "listener or connector removed".into()),
        ],
    );
    wait_until("the listener to be over", SOON, || {
        let listeners = observer.records(4);
        listeners
            .iter()
            .any(|l| l[NAME] == "page" && l[END].is_u64())
    });
    assert_eq!(observer.state()["keys"], serde_json::json!(["uint"]));
    // Times are microseconds.
    for record in [0, 1, 2, 4, 5, 7, 15]
        .iter()
        .flat_map(|kind| observer.records(*kind))
    {
        let start = record[START].as_u64().expect("a time");
        assert!(start > before - 120_000_000 && start < now(), "{record}");
    }
}

#[test]
fn silent_and_hostile_observers_disturb_nobody() {
    let (mut a, port) = with_port("a", "");
    a.start();
    a.wait_status("Site", "a", "Ready");
    let server = Server::echo(free_addr());
    let addr = free_addr();
    a.connector("echo", "echo", server.addr);
    a.listener("echo", "echo", addr);
    wait_until("the service", SOON, || works(addr));
    let Some(mut mute) = python(&["mute", &port.to_string()]) else {
        return;
    };
    let garbage = Observer::start("garbage", port).expect("python");
    let observer = Observer::start("collect", port).expect("an observer");
    wait_until("the garbage to be sent", 2 * SOON, || {
        garbage.state()["sent"]
            .as_u64()
            .is_some_and(|n| n >= 2 * 16 * 6)
    });
    observer.find(0, &[(NAME, "a".into())]);
    let before = skupper_tests::resident(a.pid());
    for round in 0..10 {
        for _ in 0..100 {
            transfer(addr, 100);
        }
        // Every connection of a round is reported before the next round.
        let number = (round + 1) * 100;
        wait_until("all connections to be told of", 2 * SOON, || {
            let flows = observer.records(16);
            flows
                .iter()
                .filter(|f| f[OCTETS] == 100 && f[END].is_u64())
                .count()
                >= number
        });
    }
    let flows = observer.records(16);
    assert_eq!(flows.iter().filter(|f| f[OCTETS] == 100).count(), 1000);
    // Invalid messages have created and changed no records.
    let own = observer.find(1, &[]);
    assert_ne!(own[NAME], "mine");
    assert!(
        flows
            .iter()
            .all(|f| f["62"].as_str().is_none_or(|host| host.len() <= 300))
    );
    let grown = skupper_tests::resident(a.pid()).saturating_sub(before);
    assert!(grown < 64 * 1024 * 1024, "{grown} bytes more");
    // The log mentions slow observers occasionally, not for each message.
    let log = a.log();
    assert!(log.matches("gives no credit").count() < 10, "{log}");
    assert!(!log.contains("panicked"), "{log}");
    assert!(
        mute.try_wait().expect("a state").is_none(),
        "the silent one has ended"
    );
    end(&mut mute);
    drop((garbage, observer));
    // Without observers the site works as before.
    std::thread::sleep(Duration::from_millis(500));
    transfer(addr, 100_000);
}
