//! The console in a browser, and who may see it.

use serde_json::{Value, json};
use skupper_tests::{
    SOON,
    browser::Browser,
    echo::{Server, connect, works},
    free_addr, free_port, netns, program,
    site::Site,
    wait_until,
};
use skupperd::observe::console;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
};

/// `skupper console` of a site.
pub(crate) struct Console {
    child: Child,
    addr: SocketAddr,
    token: String,
}

impl Console {
    fn start(site: &Site) -> Self {
        let port = free_port();
        let mut child = Command::new(program("skupper"))
            .arg("--root")
            .arg(site.root())
            .args(["console", "--port", &port.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("skupper runs");
        let mut url = String::new();
        let stdout = child.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut url).expect("a line");
        let (addr, token) = parts(&url);
        assert_eq!(addr.port(), port);
        Self { child, addr, token }
    }

    fn url(&self) -> String {
        format!("http://{}/#{}", self.addr, self.token)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }
}

/// The address and the token in the URL of the console.
fn parts(url: &str) -> (SocketAddr, String) {
    let rest = url.trim_end().strip_prefix("http://").expect("an address");
    let (addr, token) = rest.split_once("/#").expect("a token");
    (addr.parse().expect("an address"), token.to_owned())
}

/// Sends a request with these header lines and returns the answer.
pub(crate) fn ask(addr: SocketAddr, request: &str, head: &[&str]) -> String {
    let mut socket = connect(addr).expect("a connection");
    let head: String = head.iter().map(|line| format!("{line}\r\n")).collect();
    let text = format!("{request} HTTP/1.1\r\nConnection: close\r\n{head}\r\n");
    socket.write_all(text.as_bytes()).expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    answer
}

pub(crate) fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
    status.unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

/// Three sites in a row, a service across all of them, and open connections.
struct Row {
    sites: Vec<Site>,
    _server: Server,
    open: Vec<TcpStream>,
}

fn row() -> Row {
    let mut sites: Vec<Site> = ["east", "middle", "west"].map(Site::new).into();
    let addrs = [free_addr(), free_addr()];
    sites[0].access(addrs[0]);
    sites[1].access(addrs[1]);
    let links: Vec<String> = (0..2).map(|n| sites[n].link(addrs[n], 1)).collect();
    for (n, link) in links.iter().enumerate() {
        sites[n + 1].file("link.yaml", link);
    }
    let server = Server::echo(free_addr());
    let addr = free_addr();
    sites[0].connector("echo", "echo", server.addr);
    sites[2].listener("echo", "echo", addr);
    sites.iter_mut().for_each(Site::start);
    wait_until("the service to work", SOON, || works(addr));
    let open = (0..3).map(|_| connect(addr).expect("a connection"));
    let mut row = Row {
        sites,
        _server: server,
        open: open.collect(),
    };
    row.talk();
    row
}

impl Row {
    /// Sends bytes over each connection and reads them back.
    fn talk(&mut self) {
        for socket in &mut self.open {
            socket.write_all(&[7; 10_000]).expect("sent");
            socket.read_exact(&mut [0; 10_000]).expect("received");
        }
    }
}

fn near(colour: [u8; 3], other: [u8; 3]) -> bool {
    let differences = colour.iter().zip(other).map(|(a, b)| a.abs_diff(b));
    differences.max() < Some(12)
}

/// The centre of each element of the page.
fn middles(browser: &Browser, of: &str) -> Vec<(f64, f64)> {
    let script = format!(
        "[...document.querySelectorAll('{of}')].map((e) => {{
            const r = e.getBoundingClientRect();
            return [(r.left + r.right) / 2, (r.top + r.bottom) / 2];
        }})"
    );
    serde_json::from_value(browser.eval(&script)).expect("places")
}

fn texts(browser: &Browser, of: &str) -> Vec<String> {
    let script = format!("[...document.querySelectorAll('{of}')].map((e) => e.textContent)");
    serde_json::from_value(browser.eval(&script)).expect("texts")
}

const LOOKED: &str = "Number(document.body?.dataset.looks || 0) > 1";

const FOCUSED: &str = "document.activeElement.getAttribute('aria-label') || document.activeElement.id || document.activeElement.className || document.activeElement.tagName";

#[test]
fn a_browser_draws_three_sites_with_live_connections() {
    if !netns::enter() {
        return;
    }
    let Some(browser) = Browser::start() else {
        return;
    };
    let mut row = row();
    let console = Console::start(&row.sites[2]);
    let known = "document.querySelectorAll('.node').length === 3";
    browser.open(&console.url());
    browser.wait("a second look", LOOKED);
    browser.wait("three sites", known);
    browser.wait(
        "two links",
        "document.querySelectorAll('.edge').length === 2",
    );
    browser.wait("a flow", "document.querySelectorAll('.flow').length === 1");
    row.talk();
    browser.wait(
        "three connections",
        "document.querySelectorAll('#connections tbody tr').length === 3 \
         && document.querySelector('#services tbody td:nth-child(4)').textContent === '3'",
    );
    assert_eq!(
        browser.eval("location.hash"),
        "",
        "the token is still in the address"
    );

    let mut names = texts(&browser, ".node text");
    names.sort();
    assert_eq!(names, ["east", "middle", "west"]);
    let words = browser.eval(
        "[...document.querySelectorAll('.node')].map((e) => e.getAttribute('aria-label')).sort()",
    );
    assert_eq!(
        words,
        json!([
            "Site east, linked with middle",
            "Site middle, linked with east, west",
            "Site west, on this host, linked with middle",
        ])
    );
    let service = texts(&browser, "#services tbody tr:first-child > *");
    assert_eq!(service[..4], ["echo", "west", "east", "3"]);
    let states = texts(&browser, "#links tbody td:nth-child(4)");
    assert_eq!(states, ["up", "up"]);
    let clients = texts(&browser, "#connections tbody th");
    let mut own: Vec<String> = row
        .open
        .iter()
        .map(|socket| socket.local_addr().expect("an address").to_string())
        .collect();
    let mut shown = clients;
    shown.sort();
    own.sort();
    assert_eq!(shown, own);

    // Keyboard: the first tab stop skips the drawing, and each site is a tab stop.
    let focused = || browser.eval(FOCUSED);
    browser.press("Tab", 9);
    assert_eq!(focused(), "skip");
    browser.press("Tab", 9);
    assert_eq!(focused(), "pause");
    browser.press("Tab", 9);
    let first = focused();
    assert!(
        first.as_str().is_some_and(|s| s.starts_with("Site ")),
        "{first}"
    );
    browser.press("Tab", 9);
    let second = focused();
    assert!(
        second.as_str().is_some_and(|s| s.starts_with("Site ")),
        "{second}"
    );
    assert_ne!(first, second);
    let moved = [
        ("ArrowLeft", 37),
        ("ArrowRight", 39),
        ("ArrowUp", 38),
        ("ArrowDown", 40),
    ];
    let moves = moved.iter().any(|(key, code)| {
        browser.press(key, *code);
        focused() != second
    });
    assert!(moves, "arrow keys go nowhere");
    browser.press("Enter", 13);
    assert_eq!(
        browser.eval("document.querySelectorAll('.node.chosen').length"),
        1
    );
    assert_eq!(
        browser.eval("document.getElementById('chosen').hidden"),
        false
    );
    assert_eq!(texts(&browser, "#sites tbody tr").len(), 1);
    browser.press("Escape", 27);
    assert_eq!(
        browser.eval("document.querySelectorAll('.node.chosen').length"),
        0
    );

    // The page updates itself, and the focus stays.
    let held = focused();
    let bytes = || texts(&browser, "#connections tbody td:nth-child(7)");
    let before = bytes();
    row.talk();
    wait_until("more bytes", SOON, || bytes() != before);
    assert_eq!(focused(), held);
    row.open.truncate(1);
    browser.wait(
        "two connections less",
        "document.querySelectorAll('#connections tbody tr').length === 1",
    );

    // The drawing shows sites and links in their colours at their positions.
    browser.eval("document.activeElement.blur()");
    browser.call("Page.bringToFront", json!({}));
    let nodes = middles(&browser, ".node circle");
    let edges = middles(&browser, ".edge");
    let corner: Vec<(f64, f64)> = middles(&browser, "#map")
        .iter()
        .map(|(x, _)| (*x, 0.0))
        .collect();
    let top = browser.eval("document.getElementById('map').getBoundingClientRect().top");
    let paper = (corner[0].0, top.as_f64().expect("a place") + 6.0);
    let light = browser.screenshot();
    let media = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
    browser.call("Emulation.setEmulatedMedia", media);
    let dark = browser.screenshot();
    assert_eq!(browser.errors(), [""; 0]);
    let points: Vec<(f64, f64)> = nodes.iter().chain(&edges).copied().chain([paper]).collect();
    let palettes = [
        (
            light,
            [
                [0x1f, 0x6f, 0xeb],
                [0x82, 0x50, 0xdf],
                [0x2f, 0x85, 0x5a],
                [255, 255, 255],
            ],
        ),
        (
            dark,
            [
                [0x58, 0xa6, 0xff],
                [0xbc, 0x8c, 0xff],
                [0x56, 0xd3, 0x64],
                [0x1c, 0x20, 0x24],
            ],
        ),
    ];
    for (shot, [site, here, up, back]) in palettes {
        let colours = browser.colours(&shot, &points);
        let count = |of: [u8; 3], part: &[[u8; 3]]| part.iter().filter(|c| near(**c, of)).count();
        assert_eq!(count(site, &colours[..3]), 2, "{colours:?}");
        assert_eq!(count(here, &colours[..3]), 1, "{colours:?}");
        assert_eq!(count(up, &colours[3..5]), 2, "{colours:?}");
        assert_eq!(count(back, &colours[5..]), 1, "{colours:?}");
    }

    // The page shows a lost link and reports a stopped daemon.
    browser.call("Emulation.setEmulatedMedia", json!({"features": []}));
    browser.open(&console.url());
    browser.wait("two looks", LOOKED);
    row.sites[0].kill();
    browser.wait(
        "one link less",
        "document.querySelectorAll('.edge:not(.down)').length === 1",
    );
    row.sites[2].kill();
    browser.wait(
        "the daemon to be missed",
        "document.querySelector('#state.lost') !== null",
    );
}

/// A fake daemon that gives these answers.
fn fake_daemon(answers: impl Fn(&str) -> Value + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(&socket);
            let mut request = String::new();
            if !reader.read_line(&mut request).is_ok_and(|n| n > 0) {
                continue;
            }
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                line.clear();
            }
            let path = request.split(' ').nth(1).unwrap_or("/");
            let (kind, body) = match path {
                "/" => ("text/html", console::page().to_owned()),
                path => ("application/json", answers(path).to_string()),
            };
            let headers: String = console::headers()
                .iter()
                .map(|(name, value)| format!("{name}: {value}\r\n"))
                .collect();
            let length = body.len();
            write!(&socket, "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}").ok();
        }
    });
    addr
}

fn list(records: Vec<Value>) -> Value {
    json!({"count": records.len(), "results": records})
}

const MARKUP: &str = "</script><img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>";

#[test]
fn hostile_names_are_escaped_and_any_number_of_sites_is_drawn() {
    if !netns::enter() {
        return;
    }
    let Some(browser) = Browser::start() else {
        return;
    };
    for count in [0, 1, 100_usize] {
        let addr = fake_daemon(move |path| {
            let name = |n: usize| format!("{MARKUP}{n}");
            let kind = path.trim_start_matches("/api/v2alpha1/").split('?').next();
            list(match kind {
                Some("sites") => (0..count)
                    .map(|n| json!({"identity": format!("id{n:03}\"<'&"), "name": name(n), "namespace": MARKUP, "platform": MARKUP, "version": MARKUP}))
                    .collect(),
                Some("routerlinks") => (1..count)
                    .map(|n| json!({"sourceSiteId": format!("id{n:03}\"<'&"), "destinationSiteId": format!("id{:03}\"<'&", n / 3), "name": MARKUP, "status": "up", "message": MARKUP, "cost": null}))
                    .collect(),
                Some("listeners" | "connectors") => (0..count.min(1))
                    .map(|_| json!({"siteId": "id000\"<'&", "routingKey": MARKUP, "status": ""}))
                    .collect(),
                Some("services") => (0..count.min(1)).map(|_| json!({"name": MARKUP})).collect(),
                Some("connections") => (0..count.min(1))
                    .map(|_| json!({"sourceSiteId": "id000\"<'&", "destSiteId": "", "sourceHost": MARKUP, "sourcePort": MARKUP, "destHost": MARKUP, "destPort": "", "sourceSiteName": MARKUP, "destSiteName": MARKUP, "routingKey": MARKUP, "octetCount": 1, "octetReverseCount": 1, "duration": 1}))
                    .collect(),
                _ => Vec::new(),
            })
        });
        browser.open(&format!("http://{addr}/"));
        browser.wait("two looks", LOOKED);
        assert_eq!(browser.eval("document.title"), "Skupper console");
        assert_eq!(browser.eval("document.querySelectorAll('img').length"), 0);
        assert_eq!(browser.eval("document.scripts.length"), 1);
        let nodes = middles(&browser, ".node circle");
        assert_eq!(nodes.len(), count);
        assert_eq!(texts(&browser, "#sites tbody tr").len(), count.max(1));
        if count > 0 {
            let first = &texts(&browser, "#sites tbody th")[0];
            assert!(first.starts_with(MARKUP), "{first}");
        }
        let frame = browser.eval("(() => { const r = document.getElementById('map').getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; })()");
        let frame: [f64; 4] = serde_json::from_value(frame).expect("a frame");
        for (n, (x, y)) in nodes.iter().enumerate() {
            let inside = *x > frame[0] && *x < frame[2] && *y > frame[1] && *y < frame[3];
            assert!(
                inside,
                "site {n} of {count} is at {x} {y}, outside of {frame:?}"
            );
            for (other, (a, b)) in nodes.iter().enumerate().take(n) {
                let apart = (x - a).hypot(y - b);
                assert!(
                    apart > 12.0,
                    "sites {n} and {other} of {count} are {apart} apart"
                );
            }
        }
        assert_eq!(browser.errors(), [""; 0], "{count}");
    }
}

#[test]
fn the_console_needs_its_token_and_a_local_name_and_is_read_only() {
    let mut site = Site::new("a");
    site.start();
    site.wait_status("Site", "a", "Ready");
    let console = Console::start(&site);
    let daemons = free_addr();
    let mut other = Site::new("b");
    other.start_with(&["--console", &daemons.to_string()]);
    other.wait_status("Site", "b", "Ready");
    // With a console in the daemon the command prints that address.
    let (addr, token) = parts(&other.ok(&["console"]));
    assert_eq!(addr, daemons);
    let file = other.root().join("run/console.url");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&file.metadata().expect("a file").permissions());
    assert_eq!(mode & 0o777, 0o600);
    for (addr, token) in [(console.addr, &console.token), (addr, &token)] {
        let shown = format!("Authorization: Bearer {token}");
        let host = format!("Host: {addr}");
        let page = ask(addr, "GET /", &[&host]);
        assert_eq!(status(&page), 200);
        assert!(
            page.contains("content-security-policy: default-src 'none'"),
            "{page}"
        );
        assert!(page.contains("x-content-type-options: nosniff"), "{page}");
        assert!(
            !page.to_lowercase().contains("access-control-allow"),
            "{page}"
        );
        for path in [
            "/api/v2alpha1/sites",
            "/services",
            "/connections",
            "/metrics",
        ] {
            let get = format!("GET {path}");
            assert_eq!(status(&ask(addr, &get, &[&host, &shown])), 200, "{path}");
            assert_eq!(status(&ask(addr, &get, &[&host])), 403, "{path}");
            let wrong = "Authorization: Bearer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
            assert_eq!(status(&ask(addr, &get, &[&host, wrong])), 403, "{path}");
            let rebound = format!("Host: rebound.example:{}", addr.port());
            assert_eq!(status(&ask(addr, &get, &[&rebound, &shown])), 403, "{path}");
            let head = ask(addr, &format!("HEAD {path}"), &["Host: localhost", &shown]);
            assert_eq!(status(&head), 200, "{path}");
            assert!(head.ends_with("\r\n\r\n"), "{head}");
        }
        assert_eq!(status(&ask(addr, "GET /", &["Host: rebound.example"])), 403);
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let answer = ask(addr, &format!("{method} /"), &[&host, &shown]);
            assert_eq!(status(&answer), 405, "{method}");
        }
    }
    // Clients of the local socket are trusted, but not a web page that was redirected to it (DNS
    // rebinding).
    let rebound = other.http("GET /connections");
    assert_eq!(status(&rebound), 200);
    assert_eq!(status(&other.http("GET /api/v2alpha1/sites")), 200);
    // A restart changes address and token.
    other.kill();
    other.start();
    wait_until("the old address to be gone", SOON, || !file.exists());
    // The console listens on loopback only.
    let refused = Command::new(program("skupperd"))
        .args(["--console", "0.0.0.0:9465", "--root"])
        .arg(site.root())
        .output()
        .expect("skupperd runs");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("loopback"));
}
