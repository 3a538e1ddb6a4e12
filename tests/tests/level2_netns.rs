//! Listeners in other network namespaces, with a daemon that may enter them.

use skupper_tests::{
    SOON,
    echo::{Server, hear, refused},
    netns::{self, run},
    site::Site,
    wait_until,
};
use skupperd::sys::netns::within;
use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    os::fd::AsFd,
    process::{Child, Command},
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
        assert!(blue.within(|| TcpListener::bind(at(443)).is_err()));
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
    site.start();
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
