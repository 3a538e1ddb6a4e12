//! The command installs and controls systemd units; a fake service manager records its calls.

use skupper_tests::{bus::Bus, program};
use std::{
    process::Command,
    sync::{Arc, Mutex, mpsc},
    thread,
};

/// A fake service manager on a bus with one unit. It records its calls.
#[derive(Clone, Default)]
struct Manager {
    calls: Arc<Mutex<Vec<String>>>,
    unit: Arc<Mutex<(bool, bool)>>,
}

type Changes = Vec<(String, String, String)>;

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn subscribe(&self) {}

    fn load_unit(&self, name: String) -> zbus::OwnedObjectPath {
        assert_eq!(name, "skupperd.service");
        path(UNIT)
    }

    #[zbus(out_args("carries", "changes"))]
    fn enable_unit_files(
        &self,
        files: Vec<String>,
        _runtime: bool,
        _force: bool,
    ) -> (bool, Changes) {
        self.note("enable", &files.concat());
        self.unit.lock().expect("the unit").0 = true;
        (true, Vec::new())
    }

    fn disable_unit_files(&self, files: Vec<String>, _runtime: bool) -> Changes {
        self.note("disable", &files.concat());
        self.unit.lock().expect("the unit").0 = false;
        Vec::new()
    }

    fn reload(&self) {}

    async fn start_unit(
        &self,
        name: String,
        _mode: String,
        #[zbus(signal_emitter)] emitter: zbus::object_server::SignalEmitter<'_>,
    ) -> zbus::OwnedObjectPath {
        self.note("start", &name);
        self.unit.lock().expect("the unit").1 = true;
        // The job ends before the call returns: the fastest case.
        Self::job_removed(&emitter, 1, path(JOB), &name, "done")
            .await
            .expect("a signal");
        path(JOB)
    }

    async fn stop_unit(
        &self,
        name: String,
        _mode: String,
        #[zbus(signal_emitter)] emitter: zbus::object_server::SignalEmitter<'_>,
    ) -> zbus::OwnedObjectPath {
        self.note("stop", &name);
        self.unit.lock().expect("the unit").1 = false;
        Self::job_removed(&emitter, 1, path(JOB), &name, "done")
            .await
            .expect("a signal");
        path(JOB)
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &zbus::object_server::SignalEmitter<'_>,
        id: u32,
        job: zbus::OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

const UNIT: &str = "/org/freedesktop/systemd1/unit/skupperd_2eservice";
const JOB: &str = "/org/freedesktop/systemd1/job/1";

fn path(text: &str) -> zbus::OwnedObjectPath {
    zbus::OwnedObjectPath::try_from(text).expect("a path")
}

impl Manager {
    /// Serves until the test ends.
    fn serve(&self, bus: &Bus) {
        let (manager, address) = (self.clone(), bus.address.clone());
        let (ready, is_ready) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async {
                let connection = zbus::connection::Builder::address(address.as_str())
                    .serve_at("/org/freedesktop/systemd1", manager.clone())
                    .serve_at(UNIT, Unit(manager))
                    .name("org.freedesktop.systemd1")
                    .build()
                    .await
                    .expect("a service");
                ready.send(()).expect("somebody who waits");
                connection.closed().await;
            });
        });
        is_ready.recv().expect("a service");
    }

    fn note(&self, what: &str, unit: &str) {
        let mut calls = self.calls.lock().expect("the list");
        calls.push(format!("{what} {unit}"));
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().expect("the list"))
    }
}

struct Unit(Manager);

#[zbus::interface(name = "org.freedesktop.systemd1.Unit")]
impl Unit {
    #[zbus(property)]
    fn load_state(&self) -> String {
        "loaded".to_owned()
    }

    #[zbus(property)]
    fn active_state(&self) -> String {
        let active = self.0.unit.lock().expect("the unit").1;
        if active { "active" } else { "inactive" }.to_owned()
    }

    #[zbus(property)]
    fn unit_file_state(&self) -> String {
        let enabled = self.0.unit.lock().expect("the unit").0;
        if enabled { "enabled" } else { "disabled" }.to_owned()
    }
}

#[test]
fn the_unit_is_installed_started_stopped_and_uninstalled() {
    let bus = Bus::session();
    let home = tempfile::tempdir().expect("a directory");
    let skupper = |args: &[&str]| {
        let output = Command::new(program("skupper"))
            .envs(bus.environment())
            .env("XDG_DATA_HOME", home.path())
            .env("USER", "nobody-who-lingers")
            .env("SKUPPER_PLATFORM", "linux")
            .arg("--user")
            .args(args)
            .output()
            .expect("skupper runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        (output.status.code(), said)
    };
    // No service manager is running.
    let (code, said) = skupper(&["system", "start"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("systemd: service is not on the bus"),
        "{said}"
    );

    let manager = Manager::default();
    manager.serve(&bus);
    let ok = |args: &[&str]| {
        let (code, said) = skupper(args);
        assert_eq!(code, Some(0), "{said}");
        said
    };
    let unit = |what: &str| format!("{what} skupperd.service");
    let said = ok(&["system", "install", "--reload-type", "auto"]);
    assert!(said.contains("Platform linux is now configured for Skupper"));
    assert!(
        said.contains("loginctl enable-linger nobody-who-lingers"),
        "{said}"
    );
    assert_eq!(manager.calls(), [unit("enable"), unit("start")]);
    ok(&["system", "install"]);
    let said = ok(&["system", "start"]);
    assert!(said.contains("skupperd is already running"), "{said}");
    assert_eq!(manager.calls(), [""; 0]);

    ok(&["site", "create", "a"]);
    let input = home
        .path()
        .join("skupper/namespaces/default/input/resources/Site-a.yaml");
    assert!(
        input.exists(),
        "c27: XDG_DATA_HOME is where a user's resources are"
    );
    let (code, said) = skupper(&["system", "status"]);
    assert_eq!(code, Some(3), "{said}");
    let expected = [
        "Scope: user",
        "Bus: session",
        "Daemon: not running",
        "Unit: enabled, active",
    ];
    assert!(expected.iter().all(|line| said.contains(line)), "{said}");
    let (code, said) = skupper(&["system", "uninstall"]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("Uninstallation halted: Active sites detected"),
        "{said}"
    );
    // One skupperd runs the sites of all namespaces.
    ok(&["-n", "other", "site", "create", "b"]);
    for words in [&["system", "stop"][..], &["-n", "none", "system", "stop"]] {
        let (code, said) = skupper(words);
        assert_eq!(code, Some(1), "{words:?}: {said}");
        assert!(said.contains("sites of other namespaces: "), "{said}");
        assert!(
            said.contains("other") && said.contains("use --all"),
            "{said}"
        );
    }
    assert_eq!(manager.calls(), [""; 0]);
    assert!(ok(&["system", "stop", "--all"]).contains("skupperd is stopped\n"));
    assert_eq!(manager.calls(), [unit("stop")]);
    ok(&["system", "start"]);
    ok(&["-n", "other", "site", "delete", "b"]);
    assert_eq!(manager.calls(), [unit("start")]);
    let said = ok(&["system", "stop"]);
    assert!(
        said.contains("skupperd is stopped\nResources stay in"),
        "{said}"
    );
    assert!(ok(&["system", "stop"]).contains("skupperd is not running"));
    assert_eq!(manager.calls(), [unit("stop")]);
    // A reload starts a stopped unit.
    assert!(ok(&["system", "reload"]).contains("skupperd is running\n"));
    ok(&["system", "uninstall", "--force"]);
    let all = [unit("start"), unit("disable"), unit("stop")];
    assert_eq!(manager.calls(), all);
    assert!(ok(&["system", "uninstall"]).contains("There is nothing to uninstall"));
    assert!(input.exists(), "nothing of that removes what people wrote");
}
