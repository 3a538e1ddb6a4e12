//! Containers with systemd, booted by `testbed/machine`, and the packages in them.

use crate::{program, skip::skip, target};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A running container; dropping it removes it.
pub struct Machine {
    name: String,
}

/// Programs that containers need; `cargo xtask setup package` installs them.
const NEEDS: [&str; 2] = ["systemd-nspawn", "mmdebstrap"];

impl Machine {
    /// Boots a Debian release. `None`, after a skip, where that is not possible.
    pub fn boot(suite: &str) -> Option<Self> {
        Self::boot_with(suite, "", &[])
    }

    /// Boots with options of systemd-nspawn. `mark` distinguishes several machines of one test.
    pub fn boot_with(suite: &str, mark: &str, options: &[&str]) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skip("machines of their own need root");
            return None;
        }
        if let Some(missing) = NEEDS.iter().find(|need| !installed(need)) {
            skip(&format!(
                "no {missing} here: cargo xtask setup package brings it"
            ));
            return None;
        }
        let root = target().join("machines").join(suite);
        let root = root.to_str().expect("a path that is text");
        succeed(script(&["root", root, suite]));
        // Thread ids are unique on the host.
        let name = format!("test-{}{mark}", nix::unistd::gettid());
        let machine = Self { name };
        let mut words = vec!["up", &machine.name, root];
        words.extend(options);
        succeed(script(&words));
        Some(machine)
    }

    /// The path of its root directory on this host.
    pub fn root(&self) -> PathBuf {
        format!("/run/skupper-machines/{}/root", self.name).into()
    }

    /// Copies a file into the container.
    pub fn copy(&self, from: &Path, to: &str) {
        let to = self.root().join(to.trim_start_matches('/'));
        std::fs::copy(from, &to)
            .unwrap_or_else(|e| panic!("{} to {}: {e}", from.display(), to.display()));
    }

    /// Runs a shell command as root.
    pub fn run(&self, line: &str) -> Output {
        script(&["run", &self.name, "sh", "-c", line])
    }

    /// Runs a shell command, which must succeed, and returns its output.
    pub fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "{line}: {}\n{out}{err}",
            output.status
        );
        out
    }

    /// Moves this thread, and threads that it starts later, into its network namespace.
    pub fn enter_network(&self) {
        let leader = format!("/run/skupper-machines/{}/leader", self.name);
        let leader = std::fs::read_to_string(leader).expect("a machine that runs");
        let netns = File::open(format!("/proc/{}/ns/net", leader.trim())).expect("its network");
        nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).expect("its network");
    }

    pub fn reboot(&self) {
        succeed(script(&["reboot", &self.name]));
    }
}

impl Drop for Machine {
    #[expect(clippy::print_stderr, reason = "output of the test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.run("journalctl --no-pager --output=short-monotonic | tail -n 60");
            eprintln!("end of the journal:\n{}", text(&log.stdout));
        }
        let down = script(&["down", &self.name]);
        if !down.status.success() {
            eprintln!("cannot remove {}: {}", self.name, text(&down.stderr));
        }
    }
}

/// Boots a machine and installs both packages with apt.
pub fn install(suite: &str) -> Option<Machine> {
    install_with(suite, "", &[])
}

/// [`install`] with options of [`Machine::boot_with`].
pub fn install_with(suite: &str, mark: &str, options: &[&str]) -> Option<Machine> {
    packages("deb")?;
    let machine = Machine::boot_with(suite, mark, options)?;
    install_into(&machine).then_some(machine)
}

/// Installs both packages in a machine. Returns false, after a skip, where they cannot be built.
pub fn install_into(machine: &Machine) -> bool {
    let Some(files) = packages("deb") else {
        return false;
    };
    for file in &files {
        let name = file.file_name().expect("a name").to_string_lossy();
        machine.copy(file, &format!("/root/{name}"));
    }
    machine.ok("DEBIAN_FRONTEND=noninteractive apt-get install -y /root/*.deb");
    true
}

/// Whether a program is on the path of root.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<_> = std::env::split_paths(&path).collect();
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    dirs.extend(cargo.map(|home| home.join("bin")));
    dirs.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    dirs.iter().any(|dir| dir.join(program).is_file())
}

/// The packages of this build, `deb` or `rpm`: `skupperd` first, then `skupper`. Tests share them.
/// `None`, after a skip, where they cannot be built.
pub fn packages(format: &str) -> Option<[PathBuf; 2]> {
    let tool = if format == "deb" {
        "cargo-deb"
    } else {
        "cargo-generate-rpm"
    };
    if !installed(tool) {
        skip(&format!(
            "no {tool} here: cargo xtask setup package brings it"
        ));
        return None;
    }
    let dir = target().join("package/test").join(format);
    std::fs::create_dir_all(&dir).expect("a directory for packages");
    let lock = File::create(dir.join("lock")).expect("a lock");
    lock.lock().expect("the right to make packages");
    let found = || {
        let mut files: Vec<_> = std::fs::read_dir(&dir)
            .expect("packages")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|e| e == format))
            .collect();
        // `skupper_` and `skupper-` sort before `skupperd`.
        files.sort();
        files.reverse();
        <[PathBuf; 2]>::try_from(files).ok()
    };
    let newest = newest(&[
        &program("skupperd"),
        &program("skupper"),
        &program("xtask"),
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging"),
    ]);
    if let Some(files) = found()
        && files.iter().all(|file| changed(file) > newest)
    {
        return Some(files);
    }
    // Packages of another version have other names.
    for entry in std::fs::read_dir(&dir).expect("packages") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == format) {
            std::fs::remove_file(&path).expect("an old package");
        }
    }
    make_packages(format, &dir);
    Some(found().expect("two packages"))
}

/// Builds the packages of this build in a directory.
pub fn make_packages(format: &str, dir: &Path) {
    let words = [format, "--profile=dev", "--no-build", "--output"];
    let xtask = Command::new(program("xtask"))
        .args(words)
        .arg(dir)
        .env("CARGO_TARGET_DIR", target())
        .stdin(Stdio::null())
        .output();
    succeed(xtask.expect("xtask runs"));
}

fn changed(path: &Path) -> std::time::SystemTime {
    let metadata = path.metadata().and_then(|m| m.modified());
    metadata.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The latest modification of these files and of what is in these directories.
fn newest(paths: &[&Path]) -> std::time::SystemTime {
    let times = paths.iter().map(|path| {
        if !path.is_dir() {
            return changed(path);
        }
        let inner: Vec<_> = std::fs::read_dir(path)
            .expect("a directory")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        let inner: Vec<_> = inner.iter().map(PathBuf::as_path).collect();
        newest(&inner).max(changed(path))
    });
    times.max().expect("something to compare with")
}

fn script(words: &[&str]) -> Output {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testbed/machine"))
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("testbed/machine runs")
}

fn succeed(output: Output) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}: {out}{err}", output.status);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
