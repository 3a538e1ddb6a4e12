//! Hosts: each a network namespace with a daemon, a bus and shells of its own, and a cable between two.

use crate::{SOON, bus::Bus, contract::root, netns, program, site::Site, wait_until};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, killpg},
    unistd::{Pid, gettid},
};
use std::{
    fs::{self, File},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{Sender, channel},
    thread,
};

type Work = Box<dyn FnOnce() + Send>;

/// A host.
pub struct Host {
    /// Its name.
    pub name: &'static str,
    /// Its daemon.
    pub site: Site,
    bus: Bus,
    /// To the thread that is in its network namespace.
    inside: Sender<Work>,
    /// What was started from its shells.
    groups: Vec<Pid>,
}

/// Two hosts, 10.99.0.1 and 10.99.0.2, whose daemons run and have no resources. Nothing where network
/// namespaces can not be had; that is said.
pub fn pair(names: [&'static str; 2]) -> Option<[Host; 2]> {
    let [a, b] = names.map(Host::new);
    let (a, b) = (a?, b?);
    let other = b.inside(|| gettid().to_string());
    a.inside(move || {
        let cable = "link add cable type veth peer name cable netns";
        let words: Vec<&str> = cable.split(' ').chain([other.as_str()]).collect();
        netns::run("ip", &words);
    });
    for (host, address) in [(&a, "10.99.0.1/24"), (&b, "10.99.0.2/24")] {
        host.inside(move || {
            netns::run("ip", &["addr", "add", address, "dev", "cable"]);
            netns::run("ip", &["link", "set", "cable", "up"]);
        });
    }
    let mut hosts = [a, b];
    let dirs = [0, 1].map(|n: usize| hosts[n].dir());
    for (host, other) in hosts.iter_mut().zip([dirs[1].clone(), dirs[0].clone()]) {
        host.start(&other);
    }
    Some(hosts)
}

impl Host {
    fn new(name: &'static str) -> Option<Self> {
        let (inside, work) = channel::<Work>();
        let (told, there) = channel();
        thread::spawn(move || {
            let there = netns::enter();
            told.send(there).expect("somebody waits");
            if there {
                work.into_iter().for_each(|work| work());
            }
        });
        there.recv().expect("an answer").then(|| Self {
            name,
            site: {
                let site = Site::new(name);
                site.remove("Site", name);
                site
            },
            bus: Bus::session(),
            inside,
            groups: Vec::new(),
        })
    }

    /// Does something in its network namespace.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (told, done) = channel();
        let work = move || drop(told.send(work()));
        self.inside.send(Box::new(work)).expect("the host's thread");
        done.recv().expect("the work is done")
    }

    /// The directory where its shells are.
    pub fn dir(&self) -> PathBuf {
        self.site.root().join("home")
    }

    /// Starts the daemon. What its shells call `scp` puts files into the other host's directory.
    fn start(&mut self, other: &Path) {
        let bin = self.site.root().join("bin");
        for dir in [&self.dir(), &bin] {
            fs::create_dir_all(dir).expect("a directory");
        }
        let scp = format!("#!/bin/sh\nexec cp \"$1\" {}/\n", other.display());
        let hostname = format!("#!/bin/sh\necho {}\n", self.name);
        for (name, text) in [("scp", scp), ("hostname", hostname)] {
            let file = bin.join(name);
            fs::write(&file, text).expect("a script");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        let tid = self.inside(gettid);
        // A thread of its own is in the namespace only while the daemon is started.
        thread::scope(|scope| {
            let (site, bus) = (&mut self.site, &self.bus);
            let start = move || {
                let namespace = File::open(format!("/proc/{tid}/ns/net")).expect("a namespace");
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("the namespace is entered");
                site.start_on(bus, "session");
            };
            scope.spawn(start).join().expect("the daemon is started");
        });
        wait_until("the daemon on its bus", SOON, || {
            self.shell("skupper system status")
                .contains("running since")
        });
    }

    /// Runs a script as a person would at a shell. Gives what it printed; it must succeed.
    pub fn shell(&mut self, script: &str) -> String {
        let log = self.site.root().join("shell.log");
        let out = File::create(&log).expect("a file");
        let programs = program("skupper");
        let programs = programs.parent().expect("a directory").to_owned();
        let path = format!(
            "{}:{}:{}",
            self.site.root().join("bin").display(),
            programs.display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let mut command = Command::new("sh");
        command
            .args(["-euc", script])
            .current_dir(self.dir())
            .envs(self.bus.environment())
            .env("PATH", path)
            .env("SKUPPER_ROOT", self.site.root())
            .env("SKUPPER_BUS", "session")
            .env_remove("SKUPPER_PLATFORM")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a file"))
            .stderr(out);
        let (group, status) = self.inside(move || {
            let mut child = command.spawn().expect("sh runs");
            let group = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
            (group, child.wait().expect("sh ends"))
        });
        self.groups.push(group);
        let said = fs::read_to_string(&log).expect("text");
        assert!(status.success(), "at {}: {script}\n{said}", self.name);
        said
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for group in &self.groups {
            // Most have ended by themselves.
            let _ = killpg(*group, Signal::SIGKILL);
        }
    }
}

/// Blocks of code of a page, with what is said of each, in order.
pub fn blocks(page: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join(page)).expect("a page");
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(info), None) => open = Some((info.to_owned(), String::new())),
            (None, Some((_, text))) => text.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
    }
    blocks
}
