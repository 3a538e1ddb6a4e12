//! What is seen of the traffic: metrics and records of connections, against what was sent.

use nix::{
    libc,
    sys::socket::{setsockopt, sockopt::Linger},
};
use serde_json::Value;
use skupper_tests::{
    SOON,
    echo::{Server, connect, refused, works},
    free_addr,
    site::{Site, echo, linked, service},
    wait_for, wait_until,
};
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
};

/// The sum of a metric over all lines with these labels.
fn metric(site: &Site, name: &str, labels: &[(&str, &str)]) -> u64 {
    let text = site.http("GET /metrics");
    let lines = text.lines().filter(|l| {
        let rest = l.strip_prefix(name);
        let has = |(k, v): &(&str, &str)| l.contains(&format!("{k}=\"{v}\""));
        rest.is_some_and(|r| r.starts_with(['{', ' '])) && labels.iter().all(has)
    });
    let value = |line: &str| line.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok());
    lines.filter_map(value).sum()
}

/// Counters of a service at its listener: opened, closed, sent, received.
fn counters(site: &Site, prefix: &str, key: &str) -> [u64; 4] {
    let names = [
        "connections_opened_total",
        "connections_closed_total",
        "sent_bytes_total",
        "received_bytes_total",
    ];
    let labels = [("routing_key", key), ("protocol", "tcp")];
    names.map(|name| metric(site, &format!("{prefix}{name}"), &labels))
}

fn json(site: &Site, path: &str) -> Value {
    let answer = site.http(&format!("GET {path}"));
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("200 OK"), "{answer}");
    serde_json::from_str(body).expect("JSON")
}

fn connections(site: &Site, query: &str) -> Vec<Value> {
    let list = json(site, &format!("/connections?{query}"));
    let results = list["results"].as_array().expect("results").clone();
    assert_eq!(list["count"], results.len());
    results
}

/// Records of a routing key: their number, and their bytes sent and received.
fn summed(records: &[Value], key: &str) -> [u64; 3] {
    let mine = records.iter().filter(|r| r["routingKey"] == *key);
    mine.fold([0; 3], |[number, sent, received], record| {
        let bytes = |field: &str| record[field].as_u64().expect("a number");
        [
            number + 1,
            sent + bytes("octetCount"),
            received + bytes("octetReverseCount"),
        ]
    })
}

/// Sends so many bytes to an echo server and gets them back.
fn transfer(addr: SocketAddr, bytes: usize) {
    let mut socket = connect(addr).expect("a connection");
    let mut writer = socket.try_clone().expect("a socket");
    let sender = thread::spawn(move || {
        writer.write_all(&vec![7; bytes]).expect("sent");
        writer.shutdown(Shutdown::Write).expect("shut down");
    });
    let mut back = Vec::new();
    socket.read_to_end(&mut back).expect("received");
    sender.join().expect("a sender");
    assert_eq!(back.len(), bytes);
}

/// Ends a connection by a reset.
fn reset(socket: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&socket, Linger, &linger).expect("an option");
}

/// Sizes of a few transfers: none, little, and more than all windows.
const SIZES: [usize; 7] = [0, 1, 1000, 16_355, 70_000, 1_048_577, 3_000_001];

/// Makes all transfers several times, at once. Gives their number and their bytes one way.
fn load(addr: SocketAddr) -> (u64, u64) {
    let rounds = 4;
    thread::scope(|scope| {
        for _ in 0..rounds {
            scope.spawn(|| SIZES.map(|size| transfer(addr, size)));
        }
    });
    let bytes: usize = SIZES.iter().sum();
    (
        rounds * SIZES.len() as u64,
        rounds * u64::try_from(bytes).expect("a number"),
    )
}

#[test]
fn o4_metrics_and_records_agree_with_what_was_sent_to_the_byte() {
    let (a, b, _server, over) = service();
    // A second service, whose connector is where its listener is.
    let near = free_addr();
    let server = Server::echo(free_addr());
    b.connector("near", "near", server.addr);
    b.listener("near", "near", near);
    wait_until("the service to work", SOON, || works(near));
    for (key, addr) in [("echo", over), ("near", near)] {
        let idle = |site: &Site, prefix: &str| {
            wait_for("old connections to end", SOON, || {
                let now = counters(site, prefix, key);
                (now[0] == now[1]).then_some(now)
            })
        };
        let before = idle(&b, "skupper_");
        let served_before = idle(&a, "skupper_connector_");
        let (number, bytes) = load(addr);
        let expected = |before: [u64; 4]| {
            let [opened, closed, sent, received] = before;
            [
                opened + number,
                closed + number,
                sent + bytes,
                received + bytes,
            ]
        };
        wait_until("all connections to be closed", SOON, || {
            counters(&b, "skupper_", key)[1] >= expected(before)[1]
        });
        assert_eq!(counters(&b, "skupper_", key), expected(before), "{key}");
        if key == "echo" {
            wait_until("all connections to be closed", SOON, || {
                counters(&a, "skupper_connector_", key)[1] >= expected(served_before)[1]
            });
            let served = counters(&a, "skupper_connector_", key);
            assert_eq!(served, expected(served_before));
            // The records of the connector's site agree with its counters, and so with the load.
            let records = connections(&a, "limit=-1&state=terminated");
            assert_eq!(summed(&records, key), served[1..], "{key}");
        }
        let records = connections(&b, "limit=-1&state=terminated");
        let all = counters(&b, "skupper_", key);
        assert_eq!(summed(&records, key), all[1..], "{key}");
        let mine = records.iter().filter(|r| r["routingKey"] == *key);
        let mine: Vec<&Value> = mine.collect();
        // The newest are those of the load; each was as it was sent.
        let mut newest: Vec<u64> = mine[..usize::try_from(number).expect("a number")]
            .iter()
            .map(|r| r["octetCount"].as_u64().expect("a number"))
            .collect();
        newest.sort_unstable();
        let mut sent: Vec<u64> = SIZES.iter().flat_map(|s| [*s as u64; 4]).collect();
        sent.sort_unstable();
        assert_eq!(newest, sent, "{key}");
    }
}

#[test]
fn o2_o3_metrics_have_upstreams_names_and_labels() {
    let (a, b, _server, addr) = service();
    transfer(addr, 10);
    let (east, west) = (&a, &b);
    let id =
        |site: &Site| site.status("Site", site.name()).expect("a site")["metadata"]["uid"].clone();
    let (source, dest) = (id(west), id(east));
    let source = source.as_str().expect("an id");
    let dest = dest.as_str().expect("an id");
    let labels = [
        ("source_site_id", source),
        ("dest_site_id", dest),
        ("source_site_name", "b"),
        ("dest_site_name", "a"),
        ("source_component_id", ""),
        ("dest_component_id", ""),
        ("source_component_name", ""),
        ("dest_component_name", ""),
        ("routing_key", "echo"),
        ("protocol", "tcp"),
        ("source_process_name", ""),
        ("dest_process_name", ""),
    ];
    for (name, least) in [
        ("skupper_connections_opened_total", 1),
        ("skupper_sent_bytes_total", 10),
        ("skupper_received_bytes_total", 10),
    ] {
        assert!(metric(&b, name, &labels) >= least, "{name}");
    }
    wait_until("the connection to be closed", SOON, || {
        metric(&b, "skupper_connections_closed_total", &labels) >= 1
    });
    let of = |id| [("site_id", id)];
    assert_eq!(metric(&b, "skupper_site_info", &of(source)), 1);
    let version = [("version", env!("CARGO_PKG_VERSION")), ("name", "b")];
    assert_eq!(metric(&b, "skupper_site_info", &version), 1);
    let mode = [("site_id", source), ("mode", "interior")];
    assert_eq!(metric(&b, "skupper_routers_total", &mode), 1);
    let up = [
        ("site_id", source),
        ("role", "inter-router"),
        ("status", "up"),
    ];
    assert_eq!(metric(&b, "skupper_site_links_total", &up), 1);
    assert_eq!(metric(&b, "skupper_site_listeners_total", &of(source)), 1);
    assert_eq!(metric(&a, "skupper_site_connectors_total", &of(dest)), 1);
    // The other side counts the same connections as its connector's.
    assert!(metric(&a, "skupper_connector_connections_opened_total", &labels) >= 1);
    assert_eq!(metric(&a, "skupper_connections_opened_total", &labels), 0);
}

/// The newest record of a routing key that has ended, when it has this reason.
fn ended(site: &Site, key: &str, reason: &str) -> Value {
    wait_for(
        &format!("a connection of {key} that is {reason}"),
        SOON,
        || {
            let records = connections(site, "limit=1000&state=terminated");
            let mut mine = records.into_iter().filter(|r| r["routingKey"] == *key);
            mine.find(|r| r["endReason"] == *reason)
        },
    )
}

#[test]
fn o10_a_finished_connection_shows_both_ends_the_path_the_bytes_and_why_it_ended() {
    let (a, b, server, addr) = service();
    let mut socket = connect(addr).expect("a connection");
    let client = socket.local_addr().expect("an address");
    socket.write_all(b"hello").expect("sent");
    let mut back = [0; 5];
    socket.read_exact(&mut back).expect("received");
    let is = |r: &Value| r["sourcePort"] == *client.port().to_string();
    let mut live = connections(&b, "state=active");
    live.retain(is);
    assert_eq!(live.len(), 1, "{live:?}");
    assert_eq!(
        (&live[0]["octetCount"], &live[0]["endTime"]),
        (&5.into(), &0.into())
    );
    assert_eq!(live[0]["endReason"], Value::Null);
    drop(socket);
    let record = wait_for("the connection to end", SOON, || {
        connections(&b, "state=terminated").into_iter().find(is)
    });
    let host = server.addr.ip().to_string();
    for (field, value) in [
        ("side", "listener"),
        ("namespace", "default"),
        ("listener", "echo"),
        ("connector", "echo"),
        ("routingKey", "echo"),
        ("sourceSiteName", "b"),
        ("destSiteName", "a"),
        ("sourceHost", &client.ip().to_string()),
        ("destHost", &host),
        ("destPort", &server.addr.port().to_string()),
        ("endReason", "closed"),
    ] {
        assert_eq!(record[field], *value, "{field}: {record:#}");
    }
    assert_eq!(record["octetReverseCount"], 5);
    let number = |field: &str| record[field].as_u64().expect("a number");
    assert!(number("openLatency") <= number("latency"), "{record:#}");
    assert!(number("latency") <= number("duration"), "{record:#}");
    assert!(number("endTime") >= number("startTime"));
    let path = record["traceRouters"].as_array().expect("a path");
    assert!(
        path.len() == 1 && path[0].as_str().expect("an id").starts_with("a-"),
        "{record:#}"
    );
    // The record at the connector says of which at the listener it is the other end.
    let other = wait_for("the record of the connector", SOON, || {
        let records = connections(&a, "state=terminated");
        records
            .into_iter()
            .find(|r| r["peerIdentity"] == record["identity"])
    });
    assert_eq!(
        (&other["side"], &other["sourceSiteName"]),
        (&"connector".into(), &"b".into())
    );
    assert_eq!(other["proxyPort"], record["proxyPort"]);

    // A client that resets.
    let socket = connect(addr).expect("a connection");
    wait_until("the connection to be open", SOON, || {
        let port = socket.local_addr().expect("an address").port().to_string();
        let active = connections(&b, "state=active");
        active.iter().any(|r| r["sourcePort"] == *port)
    });
    reset(socket);
    ended(&b, "echo", "reset by client");
    ended(&a, "echo", "reset by client");

    // A server that resets, here and there.
    let rude = Server::start(free_addr(), move |socket| {
        let mut one = [0];
        (&socket).read_exact(&mut one).ok();
        reset(socket);
    });
    for (site, key) in [(&a, "rude"), (&b, "near")] {
        site.connector(key, key, rude.addr);
        let addr = free_addr();
        b.listener(key, key, addr);
        wait_until("the listener", SOON, || !refused(addr));
        let mut socket = connect(addr).expect("a connection");
        socket.write_all(b"x").expect("sent");
        socket.read_to_end(&mut Vec::new()).expect_err("a reset");
        ended(&b, key, "reset by server");
    }

    // Nobody takes it.
    let nobody = free_addr();
    a.connector("gone", "gone", nobody);
    let addr = free_addr();
    b.listener("gone", "gone", addr);
    wait_until("the listener", SOON, || !refused(addr));
    let none = ended(&b, "gone", "refused");
    assert_eq!(
        (&none["destHost"], &none["octetCount"]),
        (&"".into(), &0.into())
    );
    let [opened, closed, ..] = counters(&b, "skupper_", "gone");
    assert!(opened >= 1 && opened == closed, "{opened} {closed}");
}

#[test]
fn o10_a_connection_that_its_listener_or_link_takes_along_says_so() {
    let (mut a, b, _server, addr) = service();
    let open = |addr: SocketAddr| {
        let mut socket = connect(addr).expect("a connection");
        socket.write_all(b"x").expect("sent");
        socket.read_exact(&mut [0]).expect("received");
        socket
    };
    let held = open(addr);
    b.remove("Listener", "echo");
    ended(&b, "echo", "listener or connector removed");
    drop(held);
    let addr = free_addr();
    b.listener("again", "echo", addr);
    wait_until("the service to work", SOON, || works(addr));
    let held = open(addr);
    a.kill();
    ended(&b, "echo", "link lost");
    drop(held);
}

#[test]
fn o12_a_broken_link_raises_the_counter_and_its_error_is_in_the_status() {
    let (mut a, b) = linked();
    let errors = |labels: &[(&str, &str)]| metric(&b, "skupper_site_link_errors_total", labels);
    let before = errors(&[]);
    a.kill();
    wait_until("the counter to rise", SOON, || errors(&[]) > before + 1);
    let id = b.status("Site", "b").expect("a site")["metadata"]["uid"].clone();
    let labels = [
        ("site_id", id.as_str().expect("an id")),
        ("role", "inter-router"),
    ];
    assert!(errors(&labels) > before);
    wait_until("the error in the status", SOON, || {
        let link = b.status("Link", "to-a").expect("a link");
        link["status"]["lastFailure"]
            .as_str()
            .is_some_and(|s| s.contains("refused"))
    });
    a.start();
    b.wait_status("Link", "to-a", "Ready");
    let link = b.status("Link", "to-a").expect("a link");
    assert!(
        !link["status"]["lastFailure"]
            .as_str()
            .unwrap_or_default()
            .is_empty()
    );
    assert!(errors(&[]) > before, "a counter never goes back");
}

#[test]
fn who_may_see_clients_is_known_by_the_local_socket() {
    let mut site = Site::new("a");
    let tcp = free_addr();
    site.start_with(&["--metrics", &tcp.to_string()]);
    site.wait_status("Site", "a", "Ready");
    let get = |path: &str| {
        let mut socket = connect(tcp).expect("a connection");
        write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        answer
    };
    assert!(get("/metrics").contains("200 OK"));
    assert!(get("/services").contains("200 OK"));
    assert!(get("/connections").contains("403 Forbidden"));
    assert!(site.http("GET /connections").contains("200 OK"));
    assert!(
        site.http("GET /connections?limit=x")
            .contains("400 Bad Request")
    );
    assert!(
        site.http("GET /connections?name=x")
            .contains("400 Bad Request")
    );
}

#[test]
fn connections_and_services_are_shown_by_the_command() {
    let (a, b) = linked();
    assert!(b.ok(&["connections"]).contains("no connection"));
    let (_server, addr) = echo(&a, &b);
    transfer(addr, 2048);
    let list: Value = serde_json::from_str(&b.ok(&["connections", "-o", "json"])).expect("JSON");
    assert!(
        list.as_array()
            .is_some_and(|l| l.iter().any(|r| r["octetCount"] == 2048)),
        "{list:#}"
    );
    let table = b.ok(&["connections", "--limit", "1"]);
    assert_eq!(table.lines().count(), 2, "{table}");
    for word in ["ROUTING-KEY", "echo", "127.0.0.1:", "2.0 KiB"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    assert!(
        b.ok(&["-n", "other", "connections"])
            .contains("no connection")
    );
    let top = b.ok(&["top"]);
    assert!(top.contains("echo") && top.contains("SENT/S"), "{top}");
    let output = Site::new("never").skupper(&["connections"]);
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && why.contains("metrics.sock"),
        "{why}"
    );
}

#[test]
fn o5_the_network_status_can_be_had_in_upstreams_shape() {
    let (a, b, _server, _addr) = service();
    let id =
        |site: &Site| site.status("Site", site.name()).expect("a site")["metadata"]["uid"].clone();
    let network = || -> Value {
        serde_json::from_str(&b.ok(&["network", "status", "--upstream"])).expect("JSON")
    };
    let echo = |network: &Value| {
        let addresses = network["addresses"].as_array().expect("addresses");
        addresses.iter().find(|a| a["name"] == "echo").cloned()
    };
    let network = wait_for("listener and connector to be counted", SOON, || {
        let network = network();
        let echo = echo(&network)?;
        (echo["listenerCount"] == 1 && echo["connectorCount"] == 1).then_some(network)
    });
    let sites = network["siteStatus"].as_array().expect("sites");
    let of = |site: &Site| {
        let id = id(site);
        let found = sites.iter().find(|s| s["site"]["identity"] == id);
        found.expect("a site")["routerStatus"][0].clone()
    };
    assert_eq!(of(&a)["connectors"][0]["address"], "echo");
    assert_eq!(of(&b)["listeners"][0]["address"], "echo");
    let mut links = [of(&a)["links"].clone(), of(&b)["links"].clone()];
    links.sort_by_key(|l| l.as_array().map(Vec::len));
    assert_eq!(links[0].as_array().map(Vec::len), Some(0));
    assert_eq!(
        (&links[1][0]["status"], &links[1][0]["linkCount"]),
        (&"up".into(), &1.into())
    );
}

#[test]
fn o13_log_entries_have_namespace_resource_and_error_as_fields() {
    let mut site = Site::new("a");
    site.start();
    site.wait_status("Site", "a", "Ready");
    // One that can not be read, and one that can not be done.
    site.resource(
        "Listener",
        "broken",
        "{routingKey: x, host: localhost, port: 70000}",
    );
    site.resource(
        "Connector",
        "far",
        "{routingKey: x, host: localhost, port: 1, settings: {health-check: ftp}}",
    );
    let line = |fields: &[&str]| {
        wait_until(&format!("a line with {fields:?}"), SOON, || {
            let log = site.log();
            log.lines().any(|l| fields.iter().all(|f| l.contains(f)))
        });
    };
    line(&[
        "ERROR",
        "namespace=\"default\"",
        "kind=\"Listener\"",
        "name=\"broken\"",
        "field=",
        "error=",
    ]);
    line(&[
        "ERROR",
        "namespace=default",
        "resource=Connector far",
        "error=",
    ]);
}

#[test]
fn o14_the_log_level_changes_at_run_time_by_either_spelling() {
    let mut site = Site::new("a");
    site.start();
    site.wait_status("Site", "a", "Ready");
    let says = |what: &str| site.log().contains(what);
    for (setting, filter) in [
        ("router-logging", "info,skupperd=debug"),
        ("routerLogging", "info,skupperd::proxy=trace"),
    ] {
        let value = match setting {
            "routerLogging" => "TCP_ADAPTOR:trace",
            _ => "debug",
        };
        let spec = format!("{{settings: {{{setting}: \"{value}\"}}}}");
        site.resource("Site", "a", &spec);
        wait_until(filter, SOON, || says(&format!("filter=\"{filter}\"")));
    }
    // What is said at that level only: a connector whose server is not there.
    let addr = free_addr();
    site.connector("gone", "gone", free_addr());
    site.listener("gone", "gone", addr);
    wait_until("the listener", SOON, || !refused(addr));
    wait_until("a line of that level", SOON, || {
        drop(connect(addr));
        says("DEBUG") && says("connector refused")
    });
    site.resource("Site", "a", "{settings: {router-logging: loud}}");
    let note = wait_for("a note of what is wrong", SOON, || {
        let status = site.status("Site", "a")?;
        status["status"]["notes"][0].as_str().map(str::to_owned)
    });
    assert!(
        note.contains("router-logging") && note.contains("loud"),
        "{note}"
    );
    site.wait_status("Site", "a", "Ready");
}
