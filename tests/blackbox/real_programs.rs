//! Real programs over a link: nginx, curl, an AMQP client (Qpid Proton), an HTTP proxy.

use skupper_tests::{
    SOON,
    echo::{Server, connect, refused, works},
    free_addr, free_port,
    site::{Site, echo, linked},
    skip::program_runs,
    wait_until,
    web::{Nginx, curl},
};
use std::{
    io::{Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum")
        .arg(path)
        .output()
        .expect("sha256sum");
    String::from_utf8_lossy(&output.stdout)
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn nginx_and_curl_1_gib_both_ways_and_200_at_once() {
    if !program_runs("nginx".as_ref(), &["-v"]) || !program_runs("curl".as_ref(), &["--version"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    // Workers of nginx may run as another user.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(dir.path(), open).expect("permissions");
    std::fs::create_dir(dir.path().join("up")).expect("a directory");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(dir.path().join("up"), open).expect("permissions");
    let port = free_port();
    let big = dir.path().join("big");
    let made = Command::new("sh")
        .arg("-c")
        .arg("head -c 1073741824 /dev/urandom > \"$1\"")
        .arg("sh")
        .arg(&big)
        .status()
        .expect("sh");
    assert!(made.success());
    std::fs::write(dir.path().join("index.html"), "hello").expect("a page");
    let servers = format!(
        "server {{ listen 127.0.0.1:{port}; root {}; location /up/ {{ dav_methods PUT; }} }}",
        dir.path().display()
    );
    let _nginx = Nginx::start(dir.path(), &servers, &[([127, 0, 0, 1], port).into()]);
    let (a, b) = linked();
    let addr = free_addr();
    a.connector("web", "web", ([127, 0, 0, 1], port).into());
    b.listener("web", "web", addr);
    wait_until("the listener", SOON, || !refused(addr));
    let url = format!("http://{addr}");
    assert_eq!(curl(&[&format!("{url}/index.html")]), "hello");
    let down = dir.path().join("down");
    curl(&["-o", down.to_str().expect("a path"), &format!("{url}/big")]);
    let sum = sha256(&big);
    assert_eq!(sha256(&down), sum);
    std::fs::remove_file(&down).expect("removed");
    // With keep-alive, and with a connection for each request.
    let two = format!("{url}/index.html");
    assert_eq!(curl(&["-w", "%{num_connects}", &two, &two]), "hello1hello0");
    assert_eq!(curl(&["-H", "Connection: close", &two, &two]), "hellohello");
    let many: Vec<Child> = (0..200)
        .map(|_| {
            Command::new("curl")
                .args(["-sS", "-f", "-m", "60", "-o", "/dev/null", &two])
                .spawn()
                .expect("curl")
        })
        .collect();
    for mut child in many {
        assert!(child.wait().expect("curl ends").success());
    }
    // Uploads: the server stores the bytes of each connection.
    let count = std::sync::atomic::AtomicUsize::new(0);
    let folder = dir.path().to_owned();
    let server = Server::start(free_addr(), move |mut socket| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let name = format!("uploaded-{n}");
        let mut file = std::fs::File::create(folder.join(&name)).expect("a file");
        std::io::copy(&mut socket, &mut file).expect("an upload");
        socket.write_all(name.as_bytes()).ok();
    });
    a.connector("sink", "sink", server.addr);
    let up = free_addr();
    b.listener("sink", "sink", up);
    wait_until("the sink", SOON, || !refused(up));
    let mut socket = connect(up).expect("a connection");
    let mut file = std::fs::File::open(&big).expect("the file");
    std::io::copy(&mut file, &mut socket).expect("sent");
    socket
        .shutdown(std::net::Shutdown::Write)
        .expect("half-closed");
    let mut name = String::new();
    socket.read_to_string(&mut name).expect("an answer");
    assert_eq!(sha256(&dir.path().join(name)), sum);
}

#[test]
fn an_independent_amqp_client_exchanges_messages_by_address() {
    // `cargo xtask setup` installs Qpid Proton there.
    let python = skupper_tests::target().join("venv/bin/python");
    if !program_runs(&python, &["-c", "import proton"]) {
        return;
    }
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    let (link, one, two) = (free_addr(), free_port(), free_port());
    a.access(link);
    a.resource(
        "Site",
        "a",
        &format!("{{settings: {{local-amqp-port: \"{one}\"}}}}"),
    );
    b.resource(
        "Site",
        "b",
        &format!("{{settings: {{local-amqp-port: \"{two}\"}}}}"),
    );
    b.link_to(&a, link, 1);
    a.start();
    b.start();
    b.wait_status("Link", "to-a", "Ready");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("proton/exchange.py");
    for (from, to) in [(one, one), (one, two), (two, one)] {
        let output = Command::new(&python)
            .arg(&script)
            .args([from.to_string(), to.to_string()])
            .output()
            .expect("python runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{from} to {to}: {text}{errors}\n{}",
            a.log()
        );
        assert!(text.contains("received 25 of 25"), "{text}");
    }
}

struct TinyProxy(Child);

impl TinyProxy {
    fn start(dir: &Path, port: u16, login: Option<&str>) -> Self {
        let login = login.map_or(String::new(), |login| format!("BasicAuth {login}\n"));
        let conf = format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 50\nAllow 127.0.0.1\n\
             LogFile \"{}/tinyproxy.log\"\n{login}",
            dir.display()
        );
        let path = dir.join("tinyproxy.conf");
        std::fs::write(&path, conf).expect("configuration");
        let child = Command::new("tinyproxy")
            .args(["-d", "-c"])
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tinyproxy starts");
        wait_until("tinyproxy", SOON, || {
            !refused(([127, 0, 0, 1], port).into())
        });
        Self(child)
    }
}

impl Drop for TinyProxy {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_link_passes_a_connect_proxy_with_and_without_a_password() {
    if !program_runs(Path::new("tinyproxy"), &["-v"]) {
        return;
    }
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    let (at_a, port) = (free_addr(), free_port());
    a.access(at_a);
    a.start();
    let link = a.link(at_a, 1);
    let link = format!("{link}  settings: {{proxy-configuration: way-out}}\n");
    b.file("link.yaml", &link);
    b.start();
    b.wait_status("Site", "b", "Ready");
    let says = |why: &str| {
        wait_until(why, SOON, || {
            let link = b.status("Link", "to-a").unwrap_or_default();
            let message = link["status"]["message"].as_str().unwrap_or_default();
            message.contains(why)
        });
    };
    says("secret \"way-out\" not found");
    let secret = |login: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: way-out}}\n\
             stringData: {{host: 127.0.0.1, port: \"{port}\"{login}}}\n"
        );
        b.file("way-out.yaml", &text);
    };
    secret("");
    says("Connection refused");
    let proxy = TinyProxy::start(b.root(), port, None);
    b.wait_status("Link", "to-a", "Ready");
    let (_server, addr) = echo(&a, &b);
    let log = std::fs::read_to_string(b.root().join("tinyproxy.log")).expect("a log");
    assert!(log.contains(&format!("CONNECT {at_a}")), "{log}");
    drop(proxy);
    let _proxy = TinyProxy::start(b.root(), port, Some("me sesame"));
    says("the proxy requires a user name and password");
    secret(", username: me, password: wrong");
    says("the proxy rejected the user name and password");
    secret(", username: me, password: sesame");
    b.wait_status("Link", "to-a", "Ready");
    wait_until("the service", SOON, || works(addr));
    assert!(!b.log().contains("sesame"), "the password is in the log");
}
