//! User and system scope: the sites of an ordinary user, callers without rights, and environment
//! variables.

use skupper_tests::{
    SOON,
    bus::{Bus, output_text},
    echo::{Server, works},
    free_addr, program,
    site::Site,
    skip::skip,
    wait_for, wait_until,
};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

/// A user without rights that has an account, as the bus requires: `daemon`.
const STRANGER: u32 = 1;

/// A user without rights, with copies of the programs and a home directory.
struct UnprivilegedUser {
    dir: TempDir,
}

impl UnprivilegedUser {
    /// `None` without root.
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skip("runs as another user need root");
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("skupper-stranger-")
            .tempdir()
            .expect("a directory");
        // Other users may not be able to read the target directory.
        for name in ["skupper", "skupperd"] {
            fs::copy(program(name), dir.path().join(name)).expect("a copy");
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let home = dir.path().join("home");
        fs::create_dir(&home).expect("a home");
        chown(&home, Some(STRANGER), Some(STRANGER)).expect("a home of their own");
        Some(Self { dir })
    }

    fn home(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, name: &str, bus: &Bus) -> Command {
        let user = STRANGER.to_string();
        let home = self.dir.path().join("home");
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
            .arg(self.dir.path().join(name))
            .env_clear()
            .envs(bus.environment())
            .env("XDG_DATA_HOME", home.join("data"))
            .env("XDG_RUNTIME_DIR", home.join("run"))
            .current_dir(home)
            .stdin(Stdio::null());
        command
    }

    fn skupper(&self, bus: &Bus, args: &[&str]) -> Output {
        let mut command = self.command("skupper", bus);
        command.args(args).output().expect("skupper runs")
    }
}

#[test]
fn an_ordinary_user_has_their_own_sites() {
    let Some(user) = UnprivilegedUser::new() else {
        return;
    };
    let bus = Bus::session();
    let mut daemon = user.command("skupperd", &bus);
    let mut daemon = daemon.stderr(Stdio::null()).spawn().expect("skupperd");
    let ok = |args: &[&str]| output_text(&user.skupper(&bus, args)).expect("success");
    wait_until("the daemon of the user", SOON, || {
        let output = user.skupper(&bus, &["system", "status"]);
        String::from_utf8_lossy(&output.stdout).contains("Daemon: running since")
    });
    let text = ok(&["site", "create", "mine"]);
    assert!(text.ends_with("Site \"mine\" is ready"), "{text}");
    let server = Server::echo(free_addr());
    let addr = free_addr();
    let [target, port] = [server.addr, addr].map(|a| a.port().to_string());
    ok(&[
        "connector",
        "create",
        "c",
        &target,
        "--host",
        "127.0.0.1",
        "-r",
        "k",
    ]);
    let create = ["listener", "create", "l", &port, "--host", "127.0.0.1"];
    ok(&[&create[..], &["-r", "k", "--wait", "ready"]].concat());
    assert!(works(addr));
    let input = user
        .home()
        .join("home/data/skupper/namespaces/default/input/resources");
    assert!(input.join("Site-mine.yaml").exists());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a signal");
    wait_for("the daemon to end", SOON, || {
        daemon.try_wait().expect("a child")
    });
}

#[test]
fn other_users_may_only_read() {
    let Some(stranger) = UnprivilegedUser::new() else {
        return;
    };
    let bus = Bus::system();
    let mut site = Site::new("a");
    site.start_on(&bus, "system");
    wait_until("the service on the bus", SOON, || {
        bus.call(&["Dump"]).is_ok()
    });
    site.wait_status("Site", "a", "Ready");
    // The sites of the system: the daemon knows their directory.
    let skupper = |args: &[&str]| stranger.skupper(&bus, &[&["--system"][..], args].concat());
    let shown = output_text(&skupper(&["site", "status"])).expect("everybody may look");
    assert!(shown.contains("a     Ready"), "{shown}");
    let token = stranger.home().join("home/token.yaml");
    let token = token.to_str().expect("a path");
    for args in [
        &["listener", "create", "l", "8080"][..],
        &["site", "update", "a", "--enable-link-access"],
        &["site", "delete", "a", "--all"],
        &["link", "generate", "--host", "127.0.0.1"],
        &["token", "issue", token],
        &["link", "revoke", "x"],
        &["issuer", "rotate"],
        &["system", "reload"],
        &["system", "teardown", "--yes"],
    ] {
        let output = skupper(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {errors}");
        assert!(
            errors.starts_with("permission denied: io.skupper."),
            "{args:?}: {errors}"
        );
        assert!(
            errors.contains("members of the group skupper"),
            "{args:?}: {errors}"
        );
    }
    assert_eq!(site.wait_status("Site", "a", "Ready"), "OK");
}

#[test]
fn environment_variables_are_honoured() {
    let home = tempfile::tempdir().expect("a directory");
    let bus = Bus::session();
    let run = |environment: &[(&str, &str)], args: &[&str]| {
        let output = Command::new(program("skupper"))
            .env_clear()
            .envs(environment.iter().copied())
            .args(args)
            .output()
            .expect("skupper runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let path = |name: &str| home.path().join(name).to_str().expect("a path").to_owned();
    let create = ["--user", "site", "create", "a"];
    let input = "namespaces/default/input/resources/Site-a.yaml";
    let address = ("DBUS_SESSION_BUS_ADDRESS", &*bus.address);

    let data = path("data");
    let (code, said) = run(&[("XDG_DATA_HOME", &data), address], &create);
    assert_eq!(code, Some(0), "{said}");
    assert!(Path::new(&data).join("skupper").join(input).exists());
    let other = path("home");
    let linux = ("SKUPPER_PLATFORM", "linux");
    assert_eq!(run(&[("HOME", &other), address, linux], &create).0, Some(0));
    let below = Path::new(&other).join(".local/share/skupper");
    assert!(below.join(input).exists());
    let (code, said) = run(
        &[("HOME", &other), address, ("SKUPPER_PLATFORM", "docker")],
        &create,
    );
    assert_eq!(code, Some(1));
    assert!(
        said.starts_with("platform \"docker\" not supported\n"),
        "{said}"
    );
    let root = path("root");
    let (code, said) = run(&[("SKUPPER_ROOT", &root)], &["site", "create", "a"]);
    assert_eq!(
        (code, &*said),
        (Some(0), ""),
        "without a bus nothing is missing"
    );
    assert!(Path::new(&root).join(input).exists());
    let session = ("SKUPPER_BUS", "session");
    let (_, said) = run(
        &[("SKUPPER_ROOT", &root), session, address],
        &["site", "status"],
    );
    assert!(said.starts_with("skupperd is not running: "), "{said}");
}
