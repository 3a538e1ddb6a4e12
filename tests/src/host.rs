//! Two hosts joined by a cable: each is a network namespace with a daemon, a bus and shells.

use crate::{SOON, bus::Bus, netns, program, site::Site, wait_until};
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

pub struct Host {
    pub name: &'static str,
    pub site: Site,
    bus: Bus,
    /// Queue of the thread in its network namespace.
    netns_thread: Sender<Work>,
    /// Process groups of its shells, killed at the end.
    groups: Vec<Pid>,
}

/// Two hosts, 10.99.0.1 and 10.99.0.2, with running daemons and no resources. `None`, after a skip,
/// where network namespaces are not available.
pub fn pair(names: [&'static str; 2]) -> Option<[Host; 2]> {
    let [a, b] = names.map(Host::new);
    let (a, b) = (a?, b?);
    let other = b.in_netns(|| gettid().to_string());
    a.in_netns(move || {
        let cable = "link add cable type veth peer name cable netns";
        let words: Vec<&str> = cable.split(' ').chain([other.as_str()]).collect();
        netns::run("ip", &words);
    });
    for (host, address) in [(&a, "10.99.0.1/24"), (&b, "10.99.0.2/24")] {
        host.in_netns(move || {
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
        let (netns_thread, work) = channel::<Work>();
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
            netns_thread,
            groups: Vec::new(),
        })
    }

    /// Runs `work` in its network namespace.
    pub fn in_netns<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (told, done) = channel();
        let work = move || drop(told.send(work()));
        self.netns_thread
            .send(Box::new(work))
            .expect("the host's thread");
        done.recv().expect("the work is done")
    }

    /// The working directory of its shells.
    pub fn dir(&self) -> PathBuf {
        self.site.root().join("home")
    }

    /// Starts the daemon. In its shells `scp` copies files into the directory of the other host, and
    /// `journalctl` prints the daemon's log.
    fn start(&mut self, other: &Path) {
        let bin = self.site.root().join("bin");
        for dir in [&self.dir(), &bin] {
            fs::create_dir_all(dir).expect("a directory");
        }
        let scp = format!("#!/bin/sh\nexec cp \"$1\" {}/\n", other.display());
        let hostname = format!("#!/bin/sh\necho {}\n", self.name);
        let log = self.site.root().join("log");
        let journalctl = format!("#!/bin/sh\nexec cat {}\n", log.display());
        // Its buses have the paths that systemd uses.
        let busctl = "#!/bin/sh\nPATH=${PATH#*:} exec busctl \
                      --address=\"$DBUS_SESSION_BUS_ADDRESS\" \"$@\"\n";
        let programs = [
            ("scp", scp),
            ("hostname", hostname),
            ("journalctl", journalctl),
            ("busctl", busctl.to_owned()),
        ];
        for (name, text) in programs {
            let file = bin.join(name);
            fs::write(&file, text).expect("a script");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        let tid = self.in_netns(gettid);
        // A separate thread enters the namespace, so that this one keeps its own.
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
            let (_, text) = self.try_shell("skupper system status");
            text.contains("running since")
        });
    }

    /// Runs a shell script, which must succeed, and returns what it prints.
    pub fn shell(&mut self, script: &str) -> String {
        let (succeeded, said) = self.try_shell(script);
        assert!(succeeded, "at {}: {script}\n{said}", self.name);
        said
    }

    /// Runs a shell script, and returns whether it succeeded and what it printed.
    ///
    /// Paths of the system's sites in the script are replaced by those of this host's directory.
    pub fn try_shell(&mut self, script: &str) -> (bool, String) {
        let root = self.site.root().display();
        let script = script
            .replace("/etc/skupper/", &format!("{root}/"))
            .replace("/var/lib/skupper/", &format!("{root}/"))
            .replace("/run/skupper/", &format!("{root}/run/"));
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
            .args(["-euc", &script])
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
        let (group, status) = self.in_netns(move || {
            let mut child = command.spawn().expect("sh runs");
            let group = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
            (group, child.wait().expect("sh ends"))
        });
        self.groups.push(group);
        let said = fs::read_to_string(&log).expect("text");
        (status.success(), said)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for group in &self.groups {
            // Most groups have ended already.
            let _ = killpg(*group, Signal::SIGKILL);
        }
    }
}
