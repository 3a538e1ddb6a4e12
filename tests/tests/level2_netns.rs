//! Listeners in other network namespaces, with a daemon that may enter them.

use skupper_tests::{
    SOON,
    echo::{Server, hear, refused},
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

/// A network namespace with a name; it goes when this is dropped.
struct Named(String);

impl Named {
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
        inside(&self.path(), run)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        if fs::metadata(self.path()).is_ok() {
            self.delete();
        }
    }
}

fn inside<T: Send>(path: &str, run: impl FnOnce() -> T + Send) -> T {
    let netns = File::open(path).expect("a namespace");
    within(netns.as_fd(), run).expect("entered")
}

/// A process in a network namespace of its own.
struct Contained(Child);

impl Contained {
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

impl Drop for Contained {
    fn drop(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("ended");
    }
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn says(addr: SocketAddr, text: &str) -> bool {
    hear(addr).is_ok_and(|heard| heard == text)
}

fn place(site: &Site, name: &str, port: u16, netns: &str) {
    let settings = format!("settings: {{network-namespace: '{netns}'}}");
    let spec = format!("{{routingKey: ours, host: 127.0.0.1, port: {port}, {settings}}}");
    site.resource("Listener", name, &spec);
}

/// Sockets that the daemon has.
fn sockets(site: &Site) -> usize {
    let entries = fs::read_dir(format!("/proc/{}/fd", site.pid())).expect("its descriptors");
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links
        .filter(|link| link.to_string_lossy().starts_with("socket:"))
        .count()
}

/// The same, once clients' connections have ended.
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

/// Whether the kernel steers; not where there can be no BPF programs.
fn steers(site: &Site) -> bool {
    wait_until("the daemon to say which way", SOON, || {
        site.log().contains("steering is ")
    });
    !site.log().contains("steering is off")
}

/// Programs of the daemon that are attached to a network namespace.
fn attached(site: &Site, named: &Named) -> usize {
    let inode = fs::metadata(named.path()).expect("a namespace").ino();
    let mark = format!("netns_ino:\t{inode}\n");
    let descriptors = fs::read_dir(format!("/proc/{}/fdinfo", site.pid()));
    let descriptors = descriptors.expect("its descriptors");
    let said = descriptors.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    said.filter(|said| said.contains(&mark)).count()
}

/// Sockets for TCP of a network namespace, whatever they do.
fn sockets_in(named: &Named) -> usize {
    let all = named.within(|| fs::read_to_string("/proc/thread-self/net/sockstat"));
    let all = all.expect("what sockets there are");
    let line = all.lines().find(|line| line.starts_with("TCP:"));
    let mut words = line.expect("those of TCP").split(' ');
    words.find(|word| *word == "inuse");
    words.next().expect("a number").parse().expect("a number")
}

#[test]
fn a_hundred_listeners_in_another_namespace_are_steered_to_a_few_sockets_there() {
    let Some((mut site, _server)) = site() else {
        return;
    };
    let blue = Named::new("b");
    site.start();
    if !steers(&site) {
        skip("the kernel does not steer here");
        return;
    }
    site.listener("here", "ours", at(1000));
    wait_until("the connector", SOON, || says(at(1000), "ours"));
    let none = settled(&site);
    assert_eq!((attached(&site, &blue), sockets_in(&blue)), (0, 0));
    let port = |n: u16| 20000 + n;
    for n in 0..100 {
        place(&site, &format!("l{n}"), port(n), &blue.path());
    }
    blue.within(|| {
        for n in 0..100 {
            wait_until("each of them", SOON, || says(at(port(n)), "ours"));
        }
    });
    assert_eq!(attached(&site, &blue), 1);
    let listening = blue.within(|| Command::new("ss").args(["-Hltn"]).output());
    let listening = String::from_utf8(listening.expect("ss").stdout).expect("text");
    let workers = thread::available_parallelism().expect("processors").get();
    assert!(listening.lines().count() <= 2 * workers, "{listening}");
    // Of the few the daemon has, too.
    assert!(settled(&site) <= none + 2 * workers + 1);
    // What listens in there already is not taken from it, and what is said is what is right.
    let theirs = blue.within(|| Server::says(at(30000), "theirs"));
    place(&site, "theirs", 30000, &blue.path());
    let message = site.wait_status("Listener", "theirs", "Error");
    let why = "127.0.0.1:30000: binding: Address already in use by another program";
    assert!(message.contains(why), "{message}");
    blue.within(|| assert_eq!(hear(theirs.addr).expect("theirs"), "theirs"));
    drop(theirs);
    wait_until("what was given up", SOON, || {
        blue.within(|| says(at(30000), "ours"))
    });
    // Who comes later goes before us as well, until it goes.
    let later = blue.within(|| Server::says(at(port(7)), "later"));
    wait_until("who came later", SOON, || {
        blue.within(|| says(later.addr, "later"))
    });
    blue.within(|| assert!(says(at(port(8)), "ours")));
    drop(later);
    wait_until("what it had", SOON, || {
        blue.within(|| says(at(port(7)), "ours"))
    });
    // A listener that goes leaves the others alone, and the last one leaves nothing.
    for n in 0..100 {
        site.remove("Listener", &format!("l{n}"));
    }
    wait_until("one to go", SOON, || blue.within(|| refused(at(port(99)))));
    blue.within(|| assert!(says(at(30000), "ours")));
    site.remove("Listener", "theirs");
    wait_until("nothing attached", SOON, || attached(&site, &blue) == 0);
    wait_until("no sockets", SOON, || sockets(&site) == none);
    assert!(blue.delete());
}

#[test]
fn a_placed_listener_changes_with_the_sites_steering_and_its_range_and_prefix_are_steered() {
    let Some((mut site, _server)) = site() else {
        return;
    };
    let blue = Named::new("b");
    site.start();
    if !steers(&site) {
        skip("the kernel does not steer here");
        return;
    }
    let heard = |ip: [u8; 4], port: u16| blue.within(|| says((ip, port).into(), "ours"));
    place(&site, "l", 443, &blue.path());
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
fn a_listener_is_at_the_localhost_of_another_namespace() {
    let Some((mut site, server)) = site() else {
        return;
    };
    for steering in ["auto", "off"] {
        let (blue, green) = (Named::new("b"), Named::new("g"));
        let theirs = Server::says(at(7001), "theirs");
        site.connector("theirs", "theirs", theirs.addr);
        place(&site, "blue", 443, &blue.path());
        place(&site, "green", 443, &green.path());
        // The same address in the daemon's own namespace is another one.
        site.listener("here", "theirs", at(443));
        site.start_with(&["--steering", steering]);
        wait_until("the listener in there", SOON, || {
            blue.within(|| says(at(443), "ours")) && green.within(|| says(at(443), "ours"))
        });
        wait_until("the listener here", SOON, || says(at(443), "theirs"));
        // It is open while a connector is there, and its address is its own all the time.
        site.remove("Connector", "ours");
        wait_until("it to close", SOON, || blue.within(|| refused(at(443))));
        // With a socket of its own the address stays taken, which it would have to ask for again.
        let free = blue.within(|| TcpListener::bind(at(443)).is_ok());
        assert_eq!(free, steering == "auto" && steers(&site));
        site.connector("ours", "ours", server.addr);
        wait_until("it to open", SOON, || blue.within(|| says(at(443), "ours")));
        // Another key, another port.
        place(&site, "blue", 444, &blue.path());
        wait_until("the other port", SOON, || {
            blue.within(|| says(at(444), "ours") && refused(at(443)))
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
fn a_namespace_that_goes_takes_the_sockets_with_it_and_one_that_comes_has_them() {
    let Some((mut site, _server)) = site() else {
        return;
    };
    let blue = Named::new("b");
    site.start();
    wait_until("the connector", SOON, || {
        site.status("Connector", "ours").is_some()
    });
    let mut left = None;
    for _ in 0..4 {
        place(&site, "blue", 443, &blue.path());
        wait_until("the listener", SOON, || {
            blue.within(|| says(at(443), "ours"))
        });
        site.wait_status("Listener", "blue", "Ready");
        assert!(blue.delete());
        let why = format!(
            "spec.settings[network-namespace]: {} is not there",
            blue.path()
        );
        site.wait_message("Listener", "blue", "Error", &why);
        // The first round shows what the daemon has without any, for each of the others.
        let before = *left.get_or_insert_with(|| settled(&site));
        wait_until("the sockets to go", SOON, || sockets(&site) == before);
        blue.make();
    }
    wait_until("the listener", SOON, || {
        blue.within(|| says(at(443), "ours"))
    });
    // A process has one too, until it ends.
    let contained = Contained::new();
    let pid = contained.0.id();
    place(&site, "blue", 443, &format!("pid:{pid}"));
    wait_until("the listener", SOON, || {
        inside(&format!("/proc/{pid}/ns/net"), || says(at(443), "ours"))
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
fn what_is_wrong_with_a_place_in_another_namespace_is_said() {
    let Some((mut site, _server)) = site() else {
        return;
    };
    let blue = Named::new("b");
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
            "127.7.0.0/16 port 443: in another namespace, addresses and ports are named".to_owned(),
        ),
        (
            "network-namespace: blue".to_owned(),
            "\"blue\" is neither a path, nor unit:NAME.service, nor pid:NUMBER".to_owned(),
        ),
        (
            "network-namespace: /etc/passwd".to_owned(),
            "/etc/passwd: it is no namespace".to_owned(),
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
    place(&site, "l", 443, &path);
    wait_until("the listener", SOON, || {
        blue.within(|| says(at(443), "ours"))
    });
    // Not for what others may write.
    let namespace = site.root().join("namespaces/default");
    std::os::unix::fs::chown(&namespace, Some(1000), None).expect("another's");
    place(&site, "l", 444, &path);
    site.wait_message(
        "Listener",
        "l",
        "Error",
        "others than root and the daemon may write",
    );
    // Nor for who may not enter.
    std::os::unix::fs::chown(&namespace, Some(0), None).expect("ours");
    assert_eq!(site.stop(), Some(0));
    site.start_by(&[
        "setpriv",
        "--bounding-set",
        "-sys_admin",
        "--inh-caps",
        "-all",
    ]);
    wait_until("the reason", SOON, || {
        let message = site.wait_status("Listener", "l", "Error");
        message.contains("CAP_SYS_ADMIN is missing, and asking /run/skupperd-netns.sock: No such")
    });
}
