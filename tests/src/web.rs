//! nginx as a web server, and curl as its client.

use crate::{SOON, echo::refused, wait_until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

/// A running nginx; dropping it stops it.
pub struct Nginx(Child);

impl Nginx {
    /// Starts nginx with its files in `dir` and these `server` blocks, and waits until it listens
    /// on these addresses.
    pub fn start(dir: &Path, servers: &str, addrs: &[SocketAddr]) -> Self {
        let text = format!(
            "daemon off; worker_processes 1; pid {0}/nginx.pid; error_log {0}/error.log; \
             events {{ worker_connections 1024; }}\nhttp {{ access_log off; sendfile on; \
             client_max_body_size 4g; client_body_temp_path {0}/body; proxy_temp_path {0}/p; \
             fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s; {servers} }}",
            dir.display()
        );
        let file = dir.join("nginx.conf");
        fs::write(&file, text).expect("configuration");
        let child = Command::new("nginx")
            .arg("-c")
            .arg(file)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts");
        wait_until("nginx", SOON, || addrs.iter().all(|addr| !refused(*addr)));
        Self(child)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap_or(0));
        kill(pid, Signal::SIGTERM).ok();
        self.0.wait().ok();
    }
}

/// Runs curl, which must succeed, and returns its output.
pub fn curl(args: &[&str]) -> String {
    let output = Command::new("curl")
        .args(["-sS", "-m", "300"])
        .args(args)
        .output()
        .expect("curl");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {args:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
