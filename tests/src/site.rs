//! A site: a directory, its daemon and the command.

use crate::{
    SOON,
    bus::Bus,
    clock::Clock,
    echo::{Server, works},
    program, wait_for,
};
use serde_json::Value;
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// Adds acceleration to the spec of a Site, in flow style.
fn accelerated(spec: &str) -> String {
    match spec.split_once("settings: {") {
        Some((before, after)) => format!("{before}settings: {{acceleration: auto, {after}"),
        None => spec.replacen('{', "{settings: {acceleration: auto}, ", 1),
    }
}

/// A site in a directory of its own.
pub struct Site {
    dir: TempDir,
    name: String,
    daemon: Option<Child>,
}

impl Site {
    /// A site that is not started.
    pub fn new(name: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("skupper-test-")
            .tempdir()
            .expect("a directory");
        let site = Self {
            dir,
            name: name.to_owned(),
            daemon: None,
        };
        site.resource("Site", name, "{}");
        site
    }

    /// An edge site that is not started.
    pub fn edge(name: &str) -> Self {
        let site = Self::new(name);
        site.resource("Site", name, "{edge: true}");
        site
    }

    /// The name of its Site resource.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The root directory of its daemon.
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// The directory of its manifests.
    pub fn input(&self) -> PathBuf {
        self.root().join("namespaces/default/input/resources")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.root().join("log")).unwrap_or_default()
    }

    /// Writes a manifest with this spec, in flow style. With `SKUPPER_TEST_ACCELERATION=auto` a
    /// Site without a setting for acceleration gets one.
    pub fn resource(&self, kind: &str, name: &str, spec: &str) {
        let asked = std::env::var("SKUPPER_TEST_ACCELERATION").is_ok_and(|asked| asked == "auto");
        let spec = if asked && kind == "Site" && !spec.contains("acceleration") {
            accelerated(spec)
        } else {
            spec.to_owned()
        };
        let text = format!(
            "apiVersion: skupper.io/v2alpha1\nkind: {kind}\nmetadata:\n  name: {name}\nspec: {spec}\n"
        );
        self.file(&format!("{kind}-{name}.yaml"), &text);
    }

    /// Writes a file into the input directory as editors do: a temporary file, then a rename.
    pub fn file(&self, name: &str, text: &str) {
        fs::create_dir_all(self.input()).expect("input directory");
        let temporary = self.input().join(format!(".{name}.tmp"));
        fs::write(&temporary, text).expect("manifest");
        fs::rename(temporary, self.input().join(name)).expect("manifest");
    }

    pub fn remove(&self, kind: &str, name: &str) {
        fs::remove_file(self.input().join(format!("{kind}-{name}.yaml"))).expect("manifest");
    }

    pub fn listener(&self, name: &str, key: &str, addr: SocketAddr) {
        let (host, port) = (addr.ip(), addr.port());
        let spec = format!("{{routingKey: {key}, host: \"{host}\", port: {port}}}");
        self.resource("Listener", name, &spec);
    }

    pub fn connector(&self, name: &str, key: &str, addr: SocketAddr) {
        let (host, port) = (addr.ip(), addr.port());
        let spec = format!("{{routingKey: {key}, host: \"{host}\", port: {port}}}");
        self.resource("Connector", name, &spec);
    }

    /// A RouterAccess for links on this address.
    pub fn access(&self, addr: SocketAddr) {
        let (host, port) = (addr.ip(), addr.port());
        let spec =
            format!("{{bindHost: \"{host}\", roles: [{{name: inter-router, port: {port}}}]}}");
        self.resource("RouterAccess", "access", &spec);
    }

    /// A RouterAccess for links of interior sites and one for edge sites.
    pub fn access_with_edges(&self, addr: SocketAddr, edges: SocketAddr) {
        let (host, port, edges) = (addr.ip(), addr.port(), edges.port());
        let spec = format!(
            "{{bindHost: \"{host}\", roles: [{{name: inter-router, port: {port}}}, \
             {{name: edge, port: {edges}}}]}}"
        );
        self.resource("RouterAccess", "access", &spec);
    }

    /// Runs the command for this site.
    pub fn skupper(&self, args: &[&str]) -> Output {
        let mut command = Command::new(program("skupper"));
        command
            .arg("--root")
            .arg(self.root())
            .args(args)
            .stdin(Stdio::null());
        command
            .env_remove("SKUPPER_PLATFORM")
            .output()
            .expect("skupper runs")
    }

    /// Runs the command, which must succeed, and returns its output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.skupper(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            crate::succeeded(args, &output),
            "skupper {args:?}: {errors}"
        );
        String::from_utf8(output.stdout).expect("text")
    }

    /// Generates a link to this site for another site to apply.
    pub fn link(&self, addr: SocketAddr, cost: u32) -> String {
        let host = addr.ip().to_string();
        let (name, cost) = (format!("to-{}", self.name), cost.to_string());
        self.ok(&[
            "link", "generate", "--host", &host, "--cost", &cost, "--name", &name,
        ])
    }

    /// Links this site to another one that has a RouterAccess on this address.
    pub fn link_to(&self, other: &Self, addr: SocketAddr, cost: u32) {
        self.file(
            &format!("link-{}.yaml", other.name),
            &other.link(addr, cost),
        );
    }

    /// Sends an HTTP request to the local socket of the daemon and returns the whole answer.
    pub fn http(&self, request: &str) -> String {
        let mut socket =
            UnixStream::connect(self.root().join("run/metrics.sock")).expect("a socket");
        let text = format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        socket.write_all(text.as_bytes()).expect("a request");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        answer
    }

    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts the daemon with further arguments.
    pub fn start_with(&mut self, args: &[&str]) {
        self.spawn(args, &[]);
    }

    /// Starts the daemon with this clock.
    pub fn start_at(&mut self, clock: &Clock) {
        self.spawn(&[], &clock.environment());
    }

    /// Starts the daemon through another program, which may drop rights.
    pub fn start_through(&mut self, wrapper: &[&str]) {
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(program("skupperd"));
        self.spawn_as(command, &[], &[]);
    }

    /// Starts the daemon with these variables of a service manager.
    pub fn start_with_environment(&mut self, environment: &[(&str, OsString)]) {
        self.spawn(&[], environment);
    }

    /// Starts the daemon on this bus as `session` or `system`.
    pub fn start_on(&mut self, bus: &Bus, kind: &str) {
        self.start_on_with(bus, kind, &[]);
    }

    /// [`Self::start_on`] with further arguments.
    pub fn start_on_with(&mut self, bus: &Bus, kind: &str, args: &[&str]) {
        let environment = bus.environment().map(|(name, value)| (name, value.into()));
        self.spawn(&[&["--bus", kind], args].concat(), &environment);
    }

    fn spawn(&mut self, args: &[&str], environment: &[(&str, OsString)]) {
        self.spawn_as(Command::new(program("skupperd")), args, environment);
    }

    fn spawn_as(&mut self, mut command: Command, args: &[&str], environment: &[(&str, OsString)]) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.root().join("log"))
            .expect("log file");
        let child = command
            .arg("--root")
            .arg(self.root())
            .args(args)
            .envs(environment.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("skupperd starts");
        self.daemon = Some(child);
    }

    /// The process id of the daemon.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("a running daemon").id()
    }

    /// Sends the daemon a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).expect("a pid"));
        nix::sys::signal::kill(pid, signal).expect("a signal");
    }

    /// Kills the daemon as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            child.kill().expect("killed");
            child.wait().expect("ended");
        }
    }

    /// Stops the daemon with SIGTERM and returns its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        let mut child = self.daemon.take()?;
        let status = wait_for("the daemon to stop", Duration::from_secs(40), || {
            child.try_wait().expect("a child")
        });
        status.code()
    }

    /// Waits until the daemon exits by itself and returns its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        let mut child = self.daemon.take()?;
        wait_for("the daemon to end", SOON, || {
            child.try_wait().expect("a child")
        })
        .code()
    }

    /// A resource with its status, if there is one.
    pub fn status(&self, kind: &str, name: &str) -> Option<Value> {
        let nouns = ["Site", "Link", "Listener", "MultiKeyListener", "Connector"];
        if nouns.contains(&kind) {
            let output = self.skupper(&[&kind.to_lowercase(), "status", name, "-o", "json"]);
            return serde_json::from_slice(&output.stdout).ok();
        }
        // The command has no noun for this kind.
        let file = format!("namespaces/default/runtime/resources/{kind}-{name}.yaml");
        serde_yaml::from_str(&fs::read_to_string(self.root().join(file)).ok()?).ok()
    }

    /// Waits until a resource has this status, and returns its message.
    pub fn wait_status(&self, kind: &str, name: &str, status: &str) -> String {
        self.wait_message(kind, name, status, "")
    }

    /// Waits until a resource has this status and `part` in its message, and returns the message.
    /// An earlier fault may have had the same status.
    pub fn wait_message(&self, kind: &str, name: &str, status: &str, part: &str) -> String {
        let mut last = Value::Null;
        let begin = std::time::Instant::now();
        loop {
            if let Some(value) = self.status(kind, name) {
                let message = value["status"]["message"].as_str().unwrap_or_default();
                if value["status"]["status"] == status && message.contains(part) {
                    return message.to_owned();
                }
                last = value;
            }
            assert!(
                begin.elapsed() < SOON,
                "{kind} {name} of {} has not status {status} with {part:?}: {last:#}\n{}",
                self.name,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.name, self.log());
        }
    }
}

/// Two running sites; the second has dialled the first.
pub fn linked() -> (Site, Site) {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    start_linked(&mut a, &mut b);
    (a, b)
}

/// Links the second site to the first, whose name is `a`, and starts both. Returns the address that
/// the first accepts links on, once the link is up.
pub fn start_linked(a: &mut Site, b: &mut Site) -> SocketAddr {
    let addr = crate::free_addr();
    a.access(addr);
    b.link_to(a, addr, 1);
    a.start();
    b.start();
    b.wait_status("Link", "to-a", "Ready");
    addr
}

/// A running interior site and an edge site linked to it.
pub fn with_edge() -> (Site, Site) {
    let (mut a, mut e) = (Site::new("a"), Site::edge("e"));
    let addr = crate::free_addr();
    a.access_with_edges(addr, crate::free_addr());
    e.link_to(&a, addr, 1);
    a.start();
    e.start();
    e.wait_status("Link", "to-a", "Ready");
    (a, e)
}

/// Two linked sites with an echo server at the first and a listener at the second.
pub fn service() -> (Site, Site, Server, SocketAddr) {
    let (a, b) = linked();
    let (server, addr) = echo(&a, &b);
    (a, b, server, addr)
}

/// An echo server behind a connector at one site and a listener at another. Returns once it works.
pub fn echo(at: &Site, from: &Site) -> (Server, SocketAddr) {
    let server = Server::echo(crate::free_addr());
    let addr = crate::free_addr();
    at.connector("echo", "echo", server.addr);
    from.listener("echo", "echo", addr);
    crate::wait_until("the service to work", SOON, || works(addr));
    (server, addr)
}
