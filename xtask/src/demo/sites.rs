//! The two sites: a directory, the daemons, and the command.

use super::web::WebServer;
use crate::sh;
use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    io::Write,
    net::{SocketAddr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Timeout for the orderly end of a daemon.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Sites {
    dir: PathBuf,
    /// Address on which east accepts links.
    pub(super) link: SocketAddr,
    /// Address of the service at west.
    pub(super) listener: SocketAddr,
    running: Mutex<Processes>,
}

/// Processes to stop.
#[derive(Default)]
struct Processes {
    daemons: Vec<(&'static str, Child)>,
    web: Option<WebServer>,
    /// Starting further processes is an error.
    closed: bool,
}

impl Sites {
    pub(super) fn new() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("skupper-demo-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        // Allocated together, so that they differ.
        let [link, listener] = [free_port()?, free_port()?];
        let [link, listener] = [link.local_addr()?, listener.local_addr()?];
        Ok(Self {
            dir,
            link,
            listener,
            running: Mutex::default(),
        })
    }

    fn root(&self, site: &str) -> PathBuf {
        self.dir.join(site)
    }

    pub(super) fn log(&self, site: &str) -> PathBuf {
        self.dir.join(format!("{site}.log"))
    }

    pub(super) fn input(&self, site: &str) -> PathBuf {
        self.root(site).join("namespaces/default/input/resources")
    }

    /// Writes a resource to the input directory; the daemon applies it.
    pub(super) fn resource(&self, site: &str, kind: &str, name: &str, spec: &str) -> Result<()> {
        let text = format!(
            "apiVersion: skupper.io/v2alpha1\nkind: {kind}\nmetadata:\n  name: {name}\nspec: {spec}\n"
        );
        let dir = self.input(site);
        let file = dir.join(format!("{kind}-{name}.yaml"));
        fs::create_dir_all(&dir)
            .and_then(|()| fs::write(&file, text))
            .with_context(|| file.display().to_string())
    }

    pub(super) fn start(&self, site: &'static str) -> Result<()> {
        let log = self.log(site);
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let mut running = self.running();
        if running.closed {
            bail!("interrupted");
        }
        let daemon = Command::new(program("skupperd"))
            .arg("--root")
            .arg(self.root(site))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Its own process group: Ctrl-C reaches only this program, which stops the daemons in
            // order.
            .process_group(0)
            .spawn()
            .context("starting skupperd")?;
        running.daemons.push((site, daemon));
        Ok(())
    }

    /// Keeps the web server until the end.
    pub(super) fn hold(&self, web: WebServer) {
        self.running().web = Some(web);
    }

    /// Fails when a daemon has ended by itself.
    pub(super) fn check_running(&self) -> Result<()> {
        for (site, daemon) in &mut self.running().daemons {
            if let Some(status) = daemon.try_wait()? {
                bail!("skupperd of {site} has ended: {status}");
            }
        }
        Ok(())
    }

    /// The command line for a site, as a user would type it.
    pub(super) fn command(&self, site: &str) -> String {
        format!(
            "{} --root {}",
            program("skupper").display(),
            self.root(site).display()
        )
    }

    /// Runs the command for a site and returns its output.
    pub(super) fn skupper(&self, site: &str, args: &[&str]) -> Result<String> {
        self.with_input(site, args, "")
    }

    /// Applies resources to a site.
    pub(super) fn apply(&self, site: &str, resources: &str) -> Result<()> {
        self.with_input(site, &["system", "apply", "-f", "-"], resources)
            .map(drop)
    }

    fn with_input(&self, site: &str, args: &[&str], input: &str) -> Result<String> {
        let words = || format!("skupper {}", args.join(" "));
        let mut child = Command::new(program("skupper"))
            .arg("--root")
            .arg(self.root(site))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(words)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).with_context(words)?;
        }
        let output = child.wait_with_output().with_context(words)?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("{}: {}: {}", words(), output.status, errors.trim_end());
        }
        String::from_utf8(output.stdout).with_context(words)
    }

    /// Prints the logs of the daemons.
    pub(super) fn show_logs(&self) {
        for site in ["east", "west"] {
            // The daemon was not started.
            let Ok(log) = fs::read_to_string(self.log(site)) else {
                continue;
            };
            eprintln!("--- log of {site}");
            eprint!("{log}");
        }
    }

    /// Stops all processes and removes the directory. Continues after errors and reports them.
    pub(super) fn clean_up(&self) -> Result<()> {
        let mut running = self.running();
        running.closed = true;
        running.web = None;
        let mut failed = Vec::new();
        for (site, daemon) in &running.daemons {
            if let Err(e) = signal(daemon, Signal::SIGTERM) {
                failed.push(format!("stopping {site}: {e}"));
            }
        }
        for (site, mut daemon) in running.daemons.drain(..) {
            match ended(&mut daemon) {
                Ok(true) => {}
                Ok(false) => {
                    failed.push(format!("{site} did not stop in {PATIENCE:?}"));
                    failed.extend(daemon.kill().err().map(|e| format!("killing {site}: {e}")));
                    failed.extend(
                        daemon
                            .wait()
                            .err()
                            .map(|e| format!("waiting for {site}: {e}")),
                    );
                }
                Err(e) => failed.push(format!("waiting for {site}: {e}")),
            }
        }
        if let Err(e) = fs::remove_dir_all(&self.dir) {
            failed.push(format!("removing {}: {e}", self.dir.display()));
        }
        if failed.is_empty() {
            Ok(())
        } else {
            bail!("cleaning up: {}", failed.join("; "))
        }
    }

    fn running(&self) -> MutexGuard<'_, Processes> {
        // Processes that a panicked thread has started must be stopped too.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn signal(daemon: &Child, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(daemon.id())?);
    Ok(kill(pid, signal)?)
}

/// Waits for the end of a daemon, with a timeout.
fn ended(daemon: &mut Child) -> std::io::Result<bool> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if daemon.try_wait()?.is_some() {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(false)
}

fn program(name: &str) -> PathBuf {
    Path::new(&sh::target()).join("debug").join(name)
}

fn free_port() -> Result<TcpListener> {
    TcpListener::bind("127.0.0.1:0").context("looking for a free port")
}
