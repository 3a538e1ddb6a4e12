//! Connectors that select servers by control group, user or executable. Each test has its own
//! network namespace.

use serde_json::Value;
use skupper_tests::{
    SOON, echo::works, free_addr, netns, program, site::Site, skip::skip, wait_for, wait_until,
};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A control group like that of a unit; dropping it removes it.
struct Group(PathBuf);

impl Group {
    fn new(path: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let Some(root) = mount.and_then(|line| line.split(' ').nth(4)) else {
            skip("no control groups of version 2 here");
            return None;
        };
        let dir = Path::new(root).join(path);
        if let Err(error) = fs::create_dir_all(&dir) {
            skip(&format!("no control groups may be made here: {error}"));
            return None;
        }
        Some(Self(dir))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The group is empty once its processes are reaped. Leave other slices alone.
        let mut dir = self.0.clone();
        while dir.to_string_lossy().contains("skuppertest") && fs::remove_dir(&dir).is_ok() {
            dir.pop();
        }
    }
}

/// An echo server in its own process; dropping it ends the process.
struct Instance(Child);

impl Instance {
    fn start(group: Option<&Group>, before: &str, addr: SocketAddr) -> Self {
        let join = group.map(|g| format!("echo $$ > {}/cgroup.procs &&", g.0.display()));
        let hold = program("hold");
        let line = format!(
            "{} exec {before} {} {addr} {addr} 0",
            join.unwrap_or_default(),
            hold.display()
        );
        let child = Command::new("sh")
            .args(["-c", &line])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        Self(child.expect("a server"))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn connector(site: &Site, selector: &str, port: u16) {
    let spec = format!("{{routingKey: web, selector: '{selector}', port: {port}}}");
    site.resource("Connector", "web", &spec);
}

/// Waits until a connector has these servers.
fn servers(site: &Site, wanted: &[SocketAddr]) {
    let mut wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    wanted.sort();
    wait_until(&format!("servers {wanted:?}"), SOON, || {
        let status = site.status("Connector", "web").unwrap_or_default();
        let pods = status["status"]["selectedPods"].as_array().cloned();
        let addr = |pod: Value| {
            let ip = pod["ip"].as_str().unwrap_or_default().to_owned();
            format!("{ip}:{}", pod["port"])
        };
        let mut found: Vec<String> = pods.into_iter().flatten().map(addr).collect();
        found.sort();
        found == wanted
    });
}

fn message(site: &Site, text: &str) {
    let mut last = String::new();
    wait_for(text, SOON, || {
        let status = site.status("Connector", "web")?;
        last = status["status"]["message"].as_str()?.to_owned();
        last.contains(text).then_some(())
    });
}

#[test]
fn instances_of_a_unit_join_and_leave() {
    if !netns::enter() {
        return;
    }
    let slice = format!("skuppertest{}.slice", std::process::id());
    let group = |n: u32| Group::new(&format!("{slice}/web@{n}.service"));
    let (Some(first), Some(second)) = (group(1), group(2)) else {
        return;
    };
    let other = Group::new(&format!("{slice}/other.service")).expect("a group");
    let mut site = Site::new("here");
    let client = free_addr();
    let port = free_addr().port();
    let addr = |n: u8| SocketAddr::from(([127, 0, 0, n], port));
    site.listener("web", "web", client);
    connector(&site, "unit/web@*.service", port);
    site.start();
    message(&site, "is running but does not listen on TCP port");
    let stranger = Instance::start(Some(&other), "", addr(9));
    let one = Instance::start(Some(&first), "", addr(1));
    servers(&site, &[addr(1)]);
    wait_until("the service", SOON, || works(client));
    site.wait_status("Connector", "web", "Ready");
    // New instances are found without a change of the connector, and stopped ones are dropped.
    let two = Instance::start(Some(&second), "", addr(2));
    servers(&site, &[addr(1), addr(2)]);
    let shown = site.ok(&["connector", "status", "web"]);
    assert!(
        shown.contains(&format!("web@2.service 127.0.0.2:{port}")),
        "{shown}"
    );
    drop(one);
    for _ in 0..20 {
        assert!(
            works(client),
            "the other instance takes what the first refuses"
        );
    }
    servers(&site, &[addr(2)]);
    drop(two);
    servers(&site, &[]);
    site.wait_status("Listener", "web", "Pending");
    connector(&site, "unit/web@*.service", 0);
    let moved = [free_addr(), free_addr()];
    let both = moved.map(|addr| Instance::start(Some(&first), "", addr));
    servers(&site, &moved);
    assert!(works(client));
    drop(both);
    drop(first);
    drop(second);
    message(&site, "unit=web@*.service is not running");
    connector(&site, &format!("slice={slice}"), 0);
    servers(&site, &[addr(9)]);
    drop(stranger);
}

#[test]
fn users_and_executables_are_selected() {
    if !netns::enter() {
        return;
    }
    let mut site = Site::new("here");
    let (client, a, b) = (free_addr(), free_addr(), free_addr());
    site.listener("web", "web", client);
    connector(&site, "uid=54321", 0);
    site.start();
    message(
        &site,
        "No servers: uid=54321 does not listen on any TCP port",
    );
    let as_user = "setpriv --reuid=54321 --regid=54321 --clear-groups";
    let one = Instance::start(None, as_user, a);
    let two = Instance::start(None, "", b);
    servers(&site, &[a]);
    wait_until("the service", SOON, || works(client));
    let exe = program("hold").canonicalize().expect("a path");
    connector(&site, &format!("exe={}", exe.display()), b.port());
    servers(&site, &[b]);
    wait_until("the other server", SOON, || works(client));
    drop(one);
    assert!(works(client));
    drop(two);
    servers(&site, &[]);
}

#[test]
fn open_connections_outlive_the_listening_socket() {
    use std::io::{Read, Write};
    if !netns::enter() {
        return;
    }
    let mut site = Site::new("here");
    let (client, server) = (free_addr(), free_addr());
    site.listener("web", "web", client);
    connector(
        &site,
        &format!("uid={}", nix::unistd::geteuid()),
        server.port(),
    );
    let socket = std::net::TcpListener::bind(server).expect("a server");
    site.start();
    servers(&site, &[server]);
    wait_until("the listener", SOON, || {
        std::net::TcpStream::connect(client).is_ok()
    });
    let mut near = std::net::TcpStream::connect(client).expect("a connection");
    near.write_all(b"a").expect("sent");
    let mut byte = [0];
    let mut far = loop {
        // Skip the connection that only probed the listener: it has sent nothing.
        let (mut far, _) = socket.accept().expect("a connection");
        if far.read(&mut byte).expect("a byte or the end") == 1 {
            break far;
        }
    };
    drop(socket);
    servers(&site, &[]);
    message(&site, "No servers");
    // The server finishes its open connections.
    for _ in 0..3 {
        far.write_all(b"b").expect("sent");
        near.read_exact(&mut byte).expect("received");
        near.write_all(b"c").expect("sent");
        far.read_exact(&mut byte).expect("received");
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
}
