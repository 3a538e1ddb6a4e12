//! A private D-Bus bus that serves as session and as system bus of a test.

use crate::{SOON, wait_for};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};
use tempfile::TempDir;

/// A running dbus-daemon.
pub struct Bus {
    _dir: TempDir,
    daemon: Child,
    /// Its D-Bus address.
    pub address: String,
}

/// busctl's arguments of a method call to the service, before the method.
const CALL: [&str; 4] = [
    "call",
    "io.skupper.Skupper1",
    "/io/skupper/Skupper1",
    "io.skupper.Skupper1",
];

/// [`Bus::generate_link`] over the bus at this address.
pub fn generate_link_at(address: &str) -> Result<String, String> {
    let method = ["GenerateLink", "sa{sv}", "default", "1"];
    let mut busctl = Command::new("busctl");
    busctl.arg(format!("--address={address}"));
    busctl.args(CALL).args(method);
    busctl.args(["host", "s", "127.0.0.1"]).stdin(Stdio::null());
    output_text(&busctl.output().expect("busctl"))
}

/// The D-Bus policy that the packages install.
pub fn policy() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../packaging/root");
    root.join("usr/share/dbus-1/system.d/io.skupper.Skupper1.conf")
}

impl Bus {
    /// A bus that allows everything, as a session bus does.
    pub fn session() -> Self {
        let open = r#"<allow send_destination="*" eavesdrop="true"/><allow own="*"/>"#;
        Self::start("session", open, "")
    }

    /// A bus that allows only what the shipped policy allows.
    pub fn system() -> Self {
        let policy = format!("<include>{}</include>", policy().display());
        Self::start("system", "", &policy)
    }

    fn start(kind: &str, rules: &str, include: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("skupper-bus-")
            .tempdir()
            .expect("a directory");
        // Other users connect too.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let socket = dir.path().join("bus");
        let text = format!(
            r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>{kind}</type>
  <keep_umask/>
  <listen>unix:path={}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    {rules}
    <allow user="*"/>
    <allow send_type="method_return"/><allow send_type="error"/><allow send_type="signal"/>
    <allow receive_type="method_call"/><allow receive_type="method_return"/>
    <allow receive_type="error"/><allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  {include}
</busconfig>
"#,
            socket.display()
        );
        let file = dir.path().join("bus.conf");
        fs::write(&file, text).expect("a file");
        let daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", file.display()))
            .args(["--nofork", "--nopidfile", "--nosyslog"])
            .stdin(Stdio::null())
            .spawn()
            .expect("dbus-daemon");
        wait_for("the bus", SOON, || socket.exists().then_some(()));
        Self {
            address: format!("unix:path={}", socket.display()),
            daemon,
            _dir: dir,
        }
    }

    /// The environment in which a program finds this bus as its session and its system bus.
    pub fn environment(&self) -> [(&'static str, &str); 2] {
        ["DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS"].map(|v| (v, &*self.address))
    }

    /// Runs busctl on this bus.
    pub fn busctl(&self, args: &[&str]) -> Output {
        self.as_user(None, args)
    }

    /// Runs busctl on this bus as another user without groups.
    pub fn as_user(&self, user: Option<u32>, args: &[&str]) -> Output {
        let mut command = match user {
            None => Command::new("busctl"),
            Some(user) => {
                let mut command = Command::new("setpriv");
                let user = user.to_string();
                command.args([
                    "--reuid",
                    &user,
                    "--regid",
                    &user,
                    "--clear-groups",
                    "busctl",
                ]);
                command
            }
        };
        command.arg(format!("--address={}", self.address));
        command.args(args).stdin(Stdio::null());
        command.output().expect("busctl")
    }

    /// Calls a method of the service and returns what busctl prints.
    pub fn call(&self, args: &[&str]) -> Result<String, String> {
        output_text(&self.busctl(&[&CALL, args].concat()))
    }

    /// Requests a link to the site of namespace `default` at 127.0.0.1 from the service.
    pub fn generate_link(&self) -> Result<String, String> {
        generate_link_at(&self.address)
    }

    /// Reads a property of an object.
    pub fn property(&self, path: &str, interface: &str, name: &str) -> Option<String> {
        let interface = format!("io.skupper.Skupper1{interface}");
        let path = format!("/io/skupper/Skupper1{path}");
        let output = self.busctl(&[
            "get-property",
            "io.skupper.Skupper1",
            &path,
            &interface,
            name,
        ]);
        output_text(&output).ok()
    }

    pub fn stop(&mut self) {
        // It may have ended by itself.
        drop(self.daemon.kill());
        self.daemon.wait().expect("ended");
    }
}

/// The standard output of a successful program, the standard error of a failed one.
pub fn output_text(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.stop();
    }
}
