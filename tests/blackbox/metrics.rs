//! Metrics: their names and labels, and counts that agree with what was sent.

use serde_json::Value;
use skupper_tests::{
    SOON,
    echo::{Server, connect, works},
    free_addr,
    site::{Site, linked, service},
    wait_for, wait_until,
};
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
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

/// The counters of a service at its listener: opened, closed, sent, received.
pub(crate) fn counters(site: &Site, prefix: &str, key: &str) -> [u64; 4] {
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

pub(crate) fn connections(site: &Site, query: &str) -> Vec<Value> {
    let list = json(site, &format!("/connections?{query}"));
    let results = list["results"].as_array().expect("results").clone();
    assert_eq!(list["count"], results.len());
    results
}

/// The records of a routing key: count, bytes sent, bytes received.
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

/// Sends this many bytes to an echo server and reads them back.
pub(crate) fn transfer(addr: SocketAddr, bytes: usize) {
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

/// Sizes of transfers in bytes: none, small ones, and more than all windows.
const SIZES: [usize; 7] = [0, 1, 1000, 16_355, 70_000, 1_048_577, 3_000_001];

/// Makes all transfers several times, concurrently. Returns their number and their bytes in one
/// direction.
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
fn metrics_and_records_agree_with_what_was_sent_to_the_byte() {
    let (a, b, _server, over) = service();
    // The connector and the listener of the second service are on one site.
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
            // The records at the site of the connector agree with its counters.
            let records = connections(&a, "limit=-1&state=terminated");
            assert_eq!(summed(&records, key), served[1..], "{key}");
        }
        let records = connections(&b, "limit=-1&state=terminated");
        let all = counters(&b, "skupper_", key);
        assert_eq!(summed(&records, key), all[1..], "{key}");
        let mine = records.iter().filter(|r| r["routingKey"] == *key);
        let mine: Vec<&Value> = mine.collect();
        // The newest records are those of the load, with the sizes that were sent.
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
fn metrics_have_skuppers_names_and_labels() {
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
    // The other site counts the same connections at its connector.
    assert!(metric(&a, "skupper_connector_connections_opened_total", &labels) >= 1);
    assert_eq!(metric(&a, "skupper_connections_opened_total", &labels), 0);
}

#[test]
fn a_broken_link_raises_the_counter_and_its_status_has_the_error() {
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
