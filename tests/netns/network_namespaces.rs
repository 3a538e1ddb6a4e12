//! Listeners in other network namespaces, with a daemon that may enter them.

use skupper_tests::{
    SOON,
    echo::{Server, read_to_close, reads, refused},
    netns::{self, run},
    site::Site,
    skip::skip,
    wait_until,
};
use skupperd::sys::netns::within;
use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    os::{fd::AsFd, unix::fs::MetadataExt},
    process::{Child, Command},
    thread,
};

/// A named network namespace; dropping it deletes the namespace.
struct NamedNetns(String);

impl NamedNetns {
    fn new(mark: &str) -> Self {
        let named = Self(format!("skt{}{mark}", nix::unistd::gettid()));
        named.make();
        named
    }

    fn make(&self) {
        run("ip", &["netns", "add", &self.0]);
        run("ip", &["-n", &self.0, "link", "set", "lo", "up"]);
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }

    fn delete(&self) -> bool {
        let mut ip = Command::new("ip");
        ip.args(["netns", "delete", &self.0])
            .status()
            .is_ok_and(|s| s.success())
    }

    fn within<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        run_in_netns(&self.path(), run)
    }
}

impl Drop for NamedNetns {
    fn drop(&mut self) {
        if fs::metadata(self.path()).is_ok() {
            self.delete();
        }
    }
}

fn run_in_netns<T: Send>(path: &str, run: impl FnOnce() -> T + Send) -> T {
    let netns = File::open(path).expect("a namespace");
    within(netns.as_fd(), run).expect("entered")
}

/// A process in its own network namespace.
struct NetnsProcess(Child);

impl NetnsProcess {
    fn new() -> Self {
        let mut unshare = Command::new("unshare");
        let words = ["--net", "sh", "-c", "ip link set lo up && exec sleep 600"];
        let contained = Self(unshare.args(words).spawn().expect("unshare"));
        let name = || fs::read_to_string(format!("/proc/{}/comm", contained.0.id()));
        wait_until("it to be in there", SOON, || {
            name().is_ok_and(|name| name.trim() == "sleep")
        });
        contained
    }
}

impl Drop for NetnsProcess {
    fn drop(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("ended");
    }
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn add_listener(site: &Site, name: &str, port: u16, netns: &str) {
    let settings = format!("settings: {{network-namespace: '{netns}'}}");
    let spec = format!("{{routingKey: ours, host: 127.0.0.1, port: {port}, {settings}}}");
    site.resource("Listener", name, &spec);
}

/// The number of sockets of the daemon.
fn sockets(site: &Site) -> usize {
    let entries = fs::read_dir(format!("/proc/{}/fd", site.pid())).expect("its descriptors");
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links
        .filter(|link| link.to_string_lossy().starts_with("socket:"))
        .count()
}

/// The number of sockets once client connections have ended.
fn settled(site: &Site) -> usize {
    let mut last = (0, usize::MAX);
    wait_until("the same sockets for a while", SOON, || {
        let now = sockets(site);
        last = (if now == last.1 { last.0 + 1 } else { 0 }, now);
        last.0 > 20
    });
    last.1
}

fn site() -> Option<(Site, Server)> {
    if !netns::enter() {
        return None;
    }
    let server = Server::says(at(7000), "ours");
    let site = Site::new("here");
    site.connector("ours", "ours", server.addr);
    Some((site, server))
}

/// Whether the kernel steers; false where BPF programs cannot be loaded.
fn steers(site: &Site) -> bool {
    wait_until("the daemon to say which way", SOON, || {
        site.log().contains("steering is ")
    });
    !site.log().contains("steering is off")
}

/// The number of programs of the daemon that are attached to a network namespace.
fn attached(site: &Site, named: &NamedNetns) -> usize {
    let inode = fs::metadata(named.path()).expect("a namespace").ino();
    let mark = format!("netns_ino:\t{inode}\n");
    let descriptors = fs::read_dir(format!("/proc/{}/fdinfo", site.pid()));
    let descriptors = descriptors.expect("its descriptors");
    let said = descriptors.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    said.filter(|said| said.contains(&mark)).count()
}

/// The number of TCP sockets in use in a network namespace.
fn sockets_in(named: &NamedNetns) -> usize {
    let all = named.within(|| fs::read_to_string("/proc/thread-self/net/sockstat"));
    let all = all.expect("what sockets there are");
    let line = all.lines().find(|line| line.starts_with("TCP:"));
    let mut words = line.expect("those of TCP").split(' ');
    words.find(|word| *word == "inuse");
    words.next().expect("a number").parse().expect("a number")
}

/// A running site whose daemon steers, and a namespace. `None` after a skip.
fn steered_site() -> Option<(Site, Server, NamedNetns)> {
    let (mut site, server) = site()?;
    let blue = NamedNetns::new("b");
    site.start();
    if !steers(&site) {
        skip("the kernel does not steer here");
        return None;
    }
    Some((site, server, blue))
}

#[test]
fn a_hundred_listeners_in_another_namespace_are_steered_to_a_few_sockets_there() {
    let Some((site, _server, blue)) = steered_site() else {
        return;
    };
    site.listener("here", "ours", at(1000));
    wait_until("the connector", SOON, || reads(at(1000), "ours"));
    let none = settled(&site);
    assert_eq!((attached(&site, &blue), sockets_in(&blue)), (0, 0));
    let port = |n: u16| 20000 + n;
    for n in 0..100 {
        add_listener(&site, &format!("l{n}"), port(n), &blue.path());
    }
    blue.within(|| {
        for n in 0..100 {
            wait_until("each of them", SOON, || reads(at(port(n)), "ours"));
        }
    });
    assert_eq!(attached(&site, &blue), 1);
    let listening = blue.within(|| Command::new("ss").args(["-Hltn"]).output());
    let listening = String::from_utf8(listening.expect("ss").stdout).expect("text");
    let workers = thread::available_parallelism().expect("processors").get();
    assert!(listening.lines().count() <= 2 * workers, "{listening}");
    // The daemon holds few sockets too.
    assert!(settled(&site) <= none + 2 * workers + 1);
    // A program that listens there keeps its address, and the status says so.
    let theirs = blue.within(|| Server::says(at(30000), "theirs"));
    add_listener(&site, "theirs", 30000, &blue.path());
    let message = site.wait_status("Listener", "theirs", "Error");
    let why = "127.0.0.1:30000: binding: Address already in use by another program";
    assert!(message.contains(why), "{message}");
    blue.within(|| assert_eq!(read_to_close(theirs.addr).expect("theirs"), "theirs"));
    drop(theirs);
    wait_until("what was given up", SOON, || {
        blue.within(|| reads(at(30000), "ours"))
    });
    // A later program takes precedence too, until it ends.
    let later = blue.within(|| Server::says(at(port(7)), "later"));
    wait_until("who came later", SOON, || {
        blue.within(|| reads(later.addr, "later"))
    });
    blue.within(|| assert!(reads(at(port(8)), "ours")));
    drop(later);
    wait_until("what it had", SOON, || {
        blue.within(|| reads(at(port(7)), "ours"))
    });
    // Removing a listener does not affect the others; removing the last one cleans up.
    for n in 0..100 {
        site.remove("Listener", &format!("l{n}"));
    }
    wait_until("one to go", SOON, || blue.within(|| refused(at(port(99)))));
    blue.within(|| assert!(reads(at(30000), "ours")));
    site.remove("Listener", "theirs");
    wait_until("nothing attached", SOON, || attached(&site, &blue) == 0);
    wait_until("no sockets", SOON, || sockets(&site) == none);
    assert!(blue.delete());
}

#[test]
fn ranges_and_prefixes_in_another_namespace_follow_the_sites_steering() {
    let Some((site, _server, blue)) = steered_site() else {
        return;
    };
    let heard = |ip: [u8; 4], port: u16| blue.within(|| reads((ip, port).into(), "ours"));
    add_listener(&site, "l", 443, &blue.path());
    wait_until("the listener", SOON, || heard([127, 0, 0, 1], 443));
    for (steering, programs) in [("off", 0), ("auto", 1)] {
        let spec = format!("{{settings: {{steering: \"{steering}\"}}}}");
        site.resource("Site", "here", &spec);
        wait_until(steering, SOON, || attached(&site, &blue) == programs);
        wait_until(steering, SOON, || heard([127, 0, 0, 1], 443));
    }
    let settings = format!(
        "{{network-namespace: '{}', ports: '8000-9999', host-prefix: 127.7.0.0/16}}",
        blue.path()
    );
    let spec = format!("{{routingKey: ours, host: 127.0.0.1, port: 443, settings: {settings}}}");
    site.resource("Listener", "l", &spec);
    wait_until("all of it", SOON, || {
        heard([127, 0, 0, 1], 9999) && heard([127, 7, 8, 9], 443) && heard([127, 0, 0, 1], 443)
    });
    assert!(blue.within(|| refused(([127, 8, 0, 1], 443).into())));
}

#[test]
fn a_listener_on_localhost_of_another_namespace() {
    let Some((mut site, server)) = site() else {
        return;
    };
    for steering in ["auto", "off"] {
        let (blue, green) = (NamedNetns::new("b"), NamedNetns::new("g"));
        let theirs = Server::says(at(7001), "theirs");
        site.connector("theirs", "theirs", theirs.addr);
        add_listener(&site, "blue", 443, &blue.path());
        add_listener(&site, "green", 443, &green.path());
        // The same address in the daemon's own namespace is independent.
        site.listener("here", "theirs", at(443));
        site.start_with(&["--steering", steering]);
        wait_until("the listener in there", SOON, || {
            blue.within(|| reads(at(443), "ours")) && green.within(|| reads(at(443), "ours"))
        });
        wait_until("the listener here", SOON, || reads(at(443), "theirs"));
        // The listener accepts while there is a connector, and keeps its address all the time.
        site.remove("Connector", "ours");
        wait_until("it to close", SOON, || blue.within(|| refused(at(443))));
        // Without steering the address stays bound, because the daemon could not bind it again.
        let free = blue.within(|| TcpListener::bind(at(443)).is_ok());
        assert_eq!(free, steering == "auto" && steers(&site));
        site.connector("ours", "ours", server.addr);
        wait_until("it to open", SOON, || {
            blue.within(|| reads(at(443), "ours"))
        });
        // Change the key and the port.
        add_listener(&site, "blue", 444, &blue.path());
        wait_until("the other port", SOON, || {
            blue.within(|| reads(at(444), "ours") && refused(at(443)))
        });
        site.remove("Listener", "green");
        wait_until("it to go", SOON, || green.within(|| refused(at(443))));
        wait_until("its address to be free", SOON, || {
            green.within(|| TcpListener::bind(at(443)).is_ok())
        });
        assert_eq!(site.stop(), Some(0));
        site.remove("Listener", "here");
        site.remove("Connector", "theirs");
    }
}

#[test]
fn sockets_follow_namespaces_that_go_and_come() {
    let Some((mut site, _server)) = site() else {
        return;
    };
    let blue = NamedNetns::new("b");
    site.start();
    wait_until("the connector", SOON, || {
        site.status("Connector", "ours").is_some()
    });
    let mut left = None;
    for _ in 0..4 {
        add_listener(&site, "blue", 443, &blue.path());
        wait_until("the listener", SOON, || {
            blue.within(|| reads(at(443), "ours"))
        });
        site.wait_status("Listener", "blue", "Ready");
        assert!(blue.delete());
        let why = format!(
            "spec.settings[network-namespace]: {} does not exist",
            blue.path()
        );
        site.wait_message("Listener", "blue", "Error", &why);
        // The first round counts the descriptors without namespaces.
        let before = *left.get_or_insert_with(|| settled(&site));
        wait_until("the sockets to go", SOON, || sockets(&site) == before);
        blue.make();
    }
    wait_until("the listener", SOON, || {
        blue.within(|| reads(at(443), "ours"))
    });
    // The namespace of a process, until the process ends.
    let contained = NetnsProcess::new();
    let pid = contained.0.id();
    add_listener(&site, "blue", 443, &format!("pid:{pid}"));
    wait_until("the listener", SOON, || {
        run_in_netns(&format!("/proc/{pid}/ns/net"), || reads(at(443), "ours"))
    });
    wait_until("the first to be free", SOON, || {
        blue.within(|| TcpListener::bind(at(443)).is_ok())
    });
    let with = sockets(&site);
    drop(contained);
    let message = site.wait_status("Listener", "blue", "Error");
    assert!(
        message.contains(&format!("pid:{pid} is not running")),
        "{message}"
    );
    wait_until("the sockets to go", SOON, || Some(sockets(&site)) == left);
    assert!(with > sockets(&site));
}

#[test]
fn invalid_namespaces_of_listeners_are_reported() {
    let Some((mut site, _server)) = site() else {
        return;
    };
    let blue = NamedNetns::new("b");
    let busy = blue.within(|| TcpListener::bind(at(443)).expect("an address"));
    site.start_with(&["--steering", "off"]);
    let path = blue.path();
    for (spec, why) in [
        (
            format!("network-namespace: '{path}'"),
            format!("{path}: 127.0.0.1:443: binding: Address already in use"),
        ),
        (
            format!("network-namespace: '{path}', ports: '8000-9000'"),
            "sockets at most".to_owned(),
        ),
        (
            format!("network-namespace: '{path}', host-prefix: 127.7.0.0/16"),
            "127.7.0.0/16 port 443: another namespace needs steering".to_owned(),
        ),
        (
            "network-namespace: blue".to_owned(),
            "\"blue\" is neither a path, nor unit:NAME.service, nor pid:NUMBER".to_owned(),
        ),
        (
            "network-namespace: /etc/passwd".to_owned(),
            "/etc/passwd: not a network namespace".to_owned(),
        ),
    ] {
        let spec =
            format!("{{routingKey: ours, host: 127.0.0.1, port: 443, settings: {{{spec}}}}}");
        site.resource("Listener", "l", &spec);
        let message = site.wait_message("Listener", "l", "Error", &why);
        assert!(
            message.contains("spec.settings[network-namespace]: "),
            "{message}"
        );
    }
    drop(busy);
    add_listener(&site, "l", 443, &path);
    wait_until("the listener", SOON, || {
        blue.within(|| reads(at(443), "ours"))
    });
    // The daemon refuses paths that others may write to.
    let namespace = site.root().join("namespaces/default");
    std::os::unix::fs::chown(&namespace, Some(1000), None).expect("another's");
    add_listener(&site, "l", 444, &path);
    site.wait_message(
        "Listener",
        "l",
        "Error",
        "users other than root and the daemon can write",
    );
    // The status reports that the daemon may not enter namespaces.
    std::os::unix::fs::chown(&namespace, Some(0), None).expect("ours");
    assert_eq!(site.stop(), Some(0));
    site.start_through(&[
        "setpriv",
        "--bounding-set",
        "-sys_admin",
        "--inh-caps",
        "-all",
    ]);
    wait_until("the reason", SOON, || {
        let message = site.wait_status("Listener", "l", "Error");
        message.contains("no CAP_SYS_ADMIN, and cannot reach /run/skupperd-netns.sock: No such")
    });
}
