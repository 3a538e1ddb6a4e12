//! The API behind the console: lists of the network and of its connections.

use serde_json::Value;
use skupper_tests::{SOON, echo::connect, site::Site, wait_for, wait_until};
use std::io::{Read, Write};

#[test]
fn the_api_lists_the_network_and_its_connections() {
    let (a, b, _server, addr) = skupper_tests::site::service();
    let find = |site: &Site, path: &str| -> Result<Value, String> {
        let answer = site.http(&format!("GET /api/v2alpha1/{path}"));
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        match head.contains("200 OK") {
            true => Ok(serde_json::from_str(body).expect("JSON")),
            false => Err(format!("{path}: {answer}")),
        }
    };
    let get = |site: &Site, path: &str| find(site, path).unwrap_or_else(|text| panic!("{text}"));
    let mut socket = connect(addr).expect("a connection");
    socket.write_all(b"hello").expect("sent");
    socket.read_exact(&mut [0; 5]).expect("received");
    for site in [&a, &b] {
        wait_until("both sites", SOON, || get(site, "sites")["count"] == 2);
        let names = get(site, "sites?sortBy=name.desc&limit=1");
        assert_eq!(
            (&names["results"][0]["name"], &names["timeRangeCount"]),
            (&"b".into(), &2.into())
        );
        let links = get(site, "routerlinks?status=up");
        assert_eq!(links["count"], 1, "{links:#}");
        // Statuses lag behind the network.
        wait_until("the service", SOON, || {
            let service = find(site, "services/echo%40tcp").unwrap_or_default();
            service["results"]["isBound"] == true
        });
    }
    let client = socket.local_addr().expect("an address");
    let path = format!("connections?state=active&sourcePort={}", client.port());
    let live = get(&b, &path);
    assert_eq!(live["count"], 1, "{live:#}");
    let live = &live["results"][0];
    // The client is a process of this host: the kernel knows its user.
    let user = nix::unistd::getuid().as_raw();
    assert_eq!(live["sourceUser"], user, "{live:#}");
    assert_eq!(
        (&live["octetCount"], &live["octetReverseCount"]),
        (&5.into(), &5.into())
    );
    let listener = live["listenerId"]
        .as_str()
        .expect("an id")
        .replace(':', "%3A");
    assert_eq!(
        get(&b, &format!("listeners/{listener}"))["results"]["name"],
        "echo"
    );
    let connector = live["connectorId"]
        .as_str()
        .expect("an id")
        .replace(':', "%3A");
    assert_eq!(
        get(&b, &format!("connectors/{connector}"))["results"]["siteName"],
        "a"
    );
    drop(socket);
    wait_for("the connection to end", SOON, || {
        let ended = get(&b, &path.replace("active", "terminated"));
        (ended["count"] == 1).then_some(())
    });
    assert!(a.http("GET /api/v2alpha1/moons").contains("404"));
    assert!(a.http("GET /api/v2alpha1/hosts").contains("410"));
    assert!(a.http("GET /api/v2alpha1/sites?limit=x").contains("400"));
}
