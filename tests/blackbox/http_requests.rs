//! HTTP requests as listeners observe them: from nginx and curl, HTTP/1 and HTTP/2, with and
//! without TLS, on one site and over a link.

use serde_json::Value;
use skupper_tests::{
    SOON,
    echo::{Server, connect, refused, round_trip, works},
    free_addr,
    site::{Site, linked},
    skip::skip,
    wait_until,
    web::{self, Nginx},
};
use std::{
    io::{Read, Write},
    net::SocketAddr,
    path::Path,
    process::Command,
    time::Duration,
};

/// Whether nginx and curl run, with HTTP/2. Reports a skip if not.
fn have_tools() -> bool {
    let run = |program: &str, arg: &str| Command::new(program).arg(arg).output();
    let nginx = run("nginx", "-v").is_ok_and(|o| o.status.success());
    let curl = run("curl", "--version");
    let curl = curl.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("HTTP2"));
    if !(nginx && curl) {
        skip("nginx or curl with HTTP/2 is not here");
    }
    nginx && curl
}

/// A web server for HTTP/1 on one port and for HTTP/2 without TLS on another.
struct WebServer {
    _nginx: Nginx,
    http1: SocketAddr,
    http2: SocketAddr,
}

impl WebServer {
    fn start(dir: &Path) -> Self {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(dir, open).expect("permissions");
        let [http1, http2] = [free_addr(), free_addr()];
        let server = |listen: String| {
            format!(
                "server {{ listen {listen}; root {0}; keepalive_requests 10000; \
                 location /up/ {{ dav_methods PUT; create_full_put_path on; }} \
                 location /broken {{ return 500 oh; }} }}",
                dir.display()
            )
        };
        let servers = server(http1.to_string()) + &server(format!("{http2} http2"));
        Self {
            _nginx: Nginx::start(dir, &servers, &[http1, http2]),
            http1,
            http2,
        }
    }
}

/// Runs curl without verification of certificates.
fn curl(args: &[&str]) -> String {
    web::curl(&[&["-k"], args].concat())
}

/// The request counters of a routing key: protocol, method, status class, count.
fn counted(site: &Site, key: &str) -> Vec<(String, String, String, u64)> {
    let text = site.http("GET /metrics");
    let lines = text
        .lines()
        .filter(|l| l.starts_with("skupper_requests_total{"))
        .filter(|l| l.contains(&format!("routing_key=\"{key}\"")));
    let mut counts: Vec<_> = lines
        .map(|line| {
            let label = |name: &str| {
                let value = line.split_once(&format!("{name}=\"")).expect("a label").1;
                value.split('"').next().unwrap_or_default().to_owned()
            };
            let count = line.rsplit(' ').next().and_then(|n| n.parse().ok());
            (
                label(",protocol"),
                label(",method"),
                label(",code"),
                count.expect("a number"),
            )
        })
        .collect();
    counts.sort();
    counts
}

fn total(site: &Site, key: &str) -> u64 {
    counted(site, key).iter().map(|(.., n)| n).sum()
}

fn stopped(site: &Site, reason: &str) -> u64 {
    let text = site.http("GET /metrics");
    let prefix = format!("skupper_observer_stopped_total{{reason=\"{reason}\"}} ");
    let value = text.lines().find_map(|l| l.strip_prefix(&prefix));
    value.and_then(|v| v.parse().ok()).expect("a counter")
}

fn list(site: &Site, path: &str) -> Vec<Value> {
    let answer = site.http(&format!("GET {path}"));
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    let list: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"));
    list["results"].as_array().expect("results").clone()
}

fn listener(site: &Site, name: &str, addr: SocketAddr, rest: &str) {
    let port = addr.port();
    let spec = format!("{{routingKey: {name}, host: 127.0.0.1, port: {port}{rest}}}");
    site.resource("Listener", name, &spec);
}

const PAGE: &str = "hello, world";

/// Sends requests to a service: pages, over one connection where curl can do that; a missing page,
/// an error, a HEAD, and uploads of known and of unknown length.
fn ask(url: &str, version: &str, big: &Path) {
    let page = format!("{url}/page");
    // Some versions of curl cannot reuse a connection that starts with HTTP/2 prior knowledge.
    let again = version != "--http2-prior-knowledge";
    if again {
        assert_eq!(curl(&[version, &page, &page, &page]), PAGE.repeat(3));
    } else {
        (0..3).for_each(|_| assert_eq!(curl(&[version, &page]), PAGE));
    }
    let code = |args: &[&str]| {
        let code = [version, "-o", "/dev/null", "-w", "%{http_code}"];
        curl(&[&code, args].concat())
    };
    assert_eq!(code(&[&format!("{url}/missing")]), "404");
    assert_eq!(code(&[&format!("{url}/broken")]), "500");
    assert_eq!(code(&["-I", &page]), "200");
    let own = url.rsplit(':').next().unwrap_or_default();
    let (known, unknown) = (
        format!("{url}/up/{own}/known"),
        format!("{url}/up/{own}/unknown"),
    );
    let file = big.to_str().expect("a path");
    assert_eq!(code(&["-T", file, &known]), "201");
    let pipe = format!(
        "cat {file} | curl -sSk -m 60 {version} -T - -o /dev/null -w '%{{http_code}}' {unknown}"
    );
    let output = Command::new("sh").args(["-c", &pipe]).output().expect("sh");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "201");
    let text = std::fs::read_to_string(big).expect("a file");
    for url in [known, unknown] {
        assert!(
            curl(&[version, &url]) == text,
            "what came back is not what was sent"
        );
    }
}

/// Expected counters after the requests of [`ask`].
fn asked(protocol: &str) -> Vec<(String, String, String, u64)> {
    let row =
        |method: &str, code: &str, n| (protocol.to_owned(), method.to_owned(), code.to_owned(), n);
    vec![
        row("GET", "2xx", 5),
        row("GET", "4xx", 1),
        row("GET", "5xx", 1),
        row("HEAD", "2xx", 1),
        row("PUT", "2xx", 2),
    ]
}

/// Concurrent requests on one connection are counted separately.
fn many_at_once((a, b): (&Site, &Site), server: SocketAddr, big: &Path, rest: &str) {
    let addr = free_addr();
    listener(b, "many", addr, rest);
    a.connector("many", "many", server);
    wait_until("the listener", SOON, || !refused(addr));
    let url = format!("https://{addr}/big?[1-60]");
    let before = list(b, "/connections?limit=-1").len();
    let text = curl(&["--http2", "-Z", "--parallel-max", "20", &url]);
    assert_eq!(text.len(), 60 * std::fs::read(big).expect("a file").len());
    wait_until("the requests to be counted", SOON, || {
        total(b, "many") >= 60
    });
    assert_eq!(
        counted(b, "many"),
        [("HTTP/2".into(), "GET".into(), "2xx".into(), 60)]
    );
    assert!(list(b, "/connections?limit=-1").len() - before < 60);
}

#[test]
fn requests_are_counted_by_method_and_code() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let nginx = WebServer::start(dir.path());
    std::fs::write(dir.path().join("page"), PAGE).expect("a page");
    let big = dir.path().join("big");
    let text: String = (0..200_000).map(|n| format!("{n}\n")).collect();
    std::fs::write(&big, text).expect("a file");
    let (a, b) = linked();
    // Servers at the other site and at the listener's site, each with and without TLS to the
    // client.
    let tls = |alpn: &str| format!(", tlsCredentials: web, settings: {{alpn: \"{alpn}\"}}");
    let (tls1, tls2) = (tls("http/1.1"), tls("h2"));
    let cases = [
        ("far1", &a, nginx.http1, "http", "--http1.1", "", "HTTP/1.1"),
        (
            "far2",
            &a,
            nginx.http2,
            "http",
            "--http2-prior-knowledge",
            "",
            "HTTP/2",
        ),
        (
            "near1",
            &b,
            nginx.http1,
            "http",
            "--http1.1",
            ", observer: http1",
            "HTTP/1.1",
        ),
        (
            "near2",
            &b,
            nginx.http2,
            "http",
            "--http2-prior-knowledge",
            ", observer: http2",
            "HTTP/2",
        ),
        (
            "tls1",
            &a,
            nginx.http1,
            "https",
            "--http1.1",
            &tls1,
            "HTTP/1.1",
        ),
        ("tls2", &b, nginx.http2, "https", "--http2", &tls2, "HTTP/2"),
        (
            "off1",
            &a,
            nginx.http1,
            "http",
            "--http1.1",
            ", observer: none",
            "",
        ),
        (
            "off2",
            &b,
            nginx.http2,
            "http",
            "--http2-prior-knowledge",
            ", observer: none",
            "",
        ),
    ];
    let mut reached = Vec::new();
    for (name, at, server, scheme, version, rest, protocol) in cases {
        let addr = free_addr();
        at.connector(name, name, server);
        listener(&b, name, addr, rest);
        reached.push((name, addr, scheme, version, protocol));
    }
    for (name, addr, scheme, version, protocol) in reached {
        wait_until("the listener", SOON, || !refused(addr));
        ask(&format!("{scheme}://{addr}"), version, &big);
        if protocol.is_empty() {
            assert_eq!(counted(&b, name), [], "{name}");
            continue;
        }
        wait_until("the requests to be counted", SOON, || total(&b, name) >= 10);
        assert_eq!(counted(&b, name), asked(protocol), "{name}");
        // Requests are counted at the site of the client.
        assert_eq!(counted(&a, name), [], "{name}");
    }
    for reason in ["malformed", "limit", "upgraded"] {
        assert_eq!(stopped(&b, reason), 0, "{reason}");
    }
    many_at_once((&a, &b), nginx.http2, &big, &tls2);
}

#[test]
fn a_request_record_has_method_status_bytes_and_times() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let nginx = WebServer::start(dir.path());
    std::fs::write(dir.path().join("page"), PAGE).expect("a page");
    let (a, b) = linked();
    let addr = free_addr();
    a.connector("web", "web", nginx.http1);
    listener(&b, "web", addr, "");
    wait_until("the listener", SOON, || !refused(addr));
    // Pipelined, and one byte at a time.
    let mut socket = connect(addr).expect("a connection");
    let text = "GET /page HTTP/1.1\r\nHost: x\r\n\r\nGET /missing HTTP/1.1\r\nHost: x\r\n\r\n\
                PUT /up/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                5\r\nhello\r\n0\r\n\r\nHEAD /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    socket.set_nodelay(true).expect("an option");
    for byte in text.bytes() {
        socket.write_all(&[byte]).expect("sent");
    }
    let mut back = String::new();
    socket.read_to_string(&mut back).expect("answers");
    wait_until("the requests", SOON, || list(&b, "/requests").len() == 4);
    let mut requests = list(&b, "/requests?limit=10&namespace=default");
    requests.reverse();
    let seen: Vec<_> = requests
        .iter()
        .map(|r| {
            (
                r["method"].as_str(),
                r["status"].as_str(),
                &r["octetCount"],
                &r["octetReverseCount"],
            )
        })
        .map(|(method, status, sent, received)| {
            (
                method.unwrap_or_default(),
                status.unwrap_or_default(),
                sent.as_u64(),
                received.as_u64(),
            )
        })
        .collect();
    let page = back
        .split("\r\n\r\n")
        .nth(2)
        .map_or(0, |rest| rest.find("HTTP/1.1").unwrap_or(0));
    assert_eq!(seen[0], ("GET", "200", Some(0), Some(PAGE.len() as u64)));
    assert_eq!(seen[1], ("GET", "404", Some(0), Some(page as u64)));
    assert_eq!((seen[2].0, seen[2].1, seen[2].2), ("PUT", "201", Some(5)));
    assert_eq!(seen[3], ("HEAD", "200", Some(0), Some(0)));
    drop(socket);
    wait_until("the connection to end", SOON, || {
        list(&b, "/connections?state=terminated")
            .iter()
            .any(|c| c["requestCount"] == 4)
    });
    let connections = list(&b, "/connections?state=terminated");
    let connection = connections
        .iter()
        .find(|c| c["requestCount"] == 4)
        .expect("a connection");
    for request in &requests {
        assert_eq!(request["connectionId"], connection["identity"]);
        assert_eq!(
            (&request["protocol"], &request["routingKey"]),
            (&"HTTP/1.1".into(), &"web".into())
        );
        for site in [
            "sourceSiteName",
            "destSiteName",
            "sourceSiteId",
            "destSiteId",
        ] {
            assert_eq!(request[site], connection[site]);
        }
        let number =
            |of: &Value, name: &str| of[name].as_u64().unwrap_or_else(|| panic!("{name}: {of}"));
        let (start, end) = (number(request, "startTime"), number(request, "endTime"));
        assert!(number(connection, "startTime") <= start && end <= number(connection, "endTime"));
        assert!(
            number(request, "latency") > 0
                && number(request, "latency") <= number(request, "duration")
        );
        assert_eq!(
            request["identity"].as_str().map(|id| &id[..5]),
            connection["identity"].as_str().map(|id| &id[..5])
        );
    }
}

#[test]
fn other_protocols_pass_and_observers_change_under_open_connections() {
    let (a, b) = linked();
    let server = Server::echo(free_addr());
    let [auto, one, two] = [free_addr(), free_addr(), free_addr()];
    for (name, addr, rest) in [
        ("auto", auto, ""),
        ("one", one, ", observer: http1"),
        ("two", two, ", observer: http2"),
    ] {
        a.connector(name, name, server.addr);
        listener(&b, name, addr, rest);
    }
    for addr in [auto, one, two] {
        wait_until("the listener", SOON, || works(addr));
    }
    // An echoed request is no valid answer; the bytes pass nevertheless.
    let before = stopped(&b, "malformed");
    let talk = [
        "GET / HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0",
    ];
    for (addr, text) in [(auto, talk[0]), (one, talk[0]), (auto, talk[1])] {
        let mut socket = connect(addr).expect("a connection");
        assert_eq!(
            round_trip(&mut socket, text.as_bytes()).expect("an echo"),
            text.as_bytes()
        );
        assert_eq!(
            round_trip(&mut socket, b"and so on").expect("an echo"),
            b"and so on"
        );
    }
    wait_until("observers to have given up", SOON, || {
        stopped(&b, "malformed") >= before + 3
    });
    for text in [
        &b"\x16\x03\x01 tls"[..],
        b"SSH-2.0-x\r\n",
        b"\0\0\0\0",
        b"G",
    ] {
        let mut socket = connect(auto).expect("a connection");
        assert_eq!(round_trip(&mut socket, text).expect("an echo"), text);
    }
    assert_eq!(stopped(&b, "malformed"), before + 3);
    // A changed observer applies to new connections; open ones stay.
    let mut open = connect(auto).expect("a connection");
    assert_eq!(round_trip(&mut open, b"x").expect("an echo"), b"x");
    listener(&b, "auto", auto, ", observer: http2");
    let unseen = stopped(&b, "malformed");
    wait_until("the new observer", SOON, || {
        works(auto);
        stopped(&b, "malformed") > unseen
    });
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(round_trip(&mut open, b"still").expect("an echo"), b"still");
}
