//! Processes of the peers: their start and end, their CPU time and their memory.

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Timeout for the orderly end of a process.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ports of the peers. Below the kernel's range of client ports, and outside of the range that the
/// tests of this project use.
const PORTS: std::ops::Range<u16> = 30_000..32_768;

static RUNNING: Mutex<Running> = Mutex::new(Running {
    pids: Vec::new(),
    interrupted: false,
    last_port: None,
});

struct Running {
    pids: Vec<Pid>,
    /// Starting further processes is an error.
    interrupted: bool,
    last_port: Option<u16>,
}

fn running() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// On SIGINT and SIGTERM, kills all processes. The measurement then fails, and nothing follows it.
pub(crate) fn stop_on_interrupt() -> Result<()> {
    let stop = || {
        let mut running = running();
        running.interrupted = true;
        for pid in &running.pids {
            // It may have exited by itself.
            let _ = kill(*pid, Signal::SIGKILL);
        }
    };
    ctrlc::set_handler(stop).context("waiting for Ctrl-C")
}

/// Fails after an interrupt.
pub(crate) fn ensure_not_interrupted() -> Result<()> {
    ensure!(!running().interrupted, "interrupted");
    Ok(())
}

/// A port of 127.0.0.1 that nothing listens on, different from earlier ones.
pub(crate) fn free_port() -> Result<u16> {
    let mut running = running();
    let count = PORTS.end - PORTS.start;
    // Several benchmarks on one machine start at different ports.
    let first = running.last_port.map_or_else(
        || (std::process::id() % u32::from(count)) as u16,
        |last| last - PORTS.start + 1,
    );
    let mut ports = (0..count).map(|n| PORTS.start + (first + n) % count);
    let port = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    running.last_port = port;
    port.with_context(|| format!("no free port from {} to {}", PORTS.start, PORTS.end - 1))
}

/// One process of a peer. It is stopped on drop.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a process in a directory, to which its output goes.
    pub(crate) fn start(name: &str, command: &mut Command, dir: &Path) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| log.display().to_string())?;
        command
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let mut running = running();
        ensure!(!running.interrupted, "interrupted");
        let child = command.spawn().with_context(|| {
            let program = command.get_program().to_string_lossy();
            format!("starting {program}")
        })?;
        let process = Self {
            name: name.to_owned(),
            child,
            log,
        };
        running.pids.push(process.pid());
        Ok(process)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Fails if the process has exited, with the end of its output.
    pub(crate) fn ensure_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            self.unregister();
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(5).collect();
            let end: Vec<&str> = lines.into_iter().rev().collect();
            bail!("{} has exited, {status}: {}", self.name, end.join("; "));
        }
        Ok(())
    }

    /// CPU time of all its threads so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let clock = ClockId::pid_cpu_clock_id(self.pid())
            .with_context(|| format!("CPU time of {}", self.name))?;
        Ok(clock_gettime(clock)?.into())
    }

    /// Resident memory in KiB.
    pub(crate) fn resident(&self) -> Result<f64> {
        let file = format!("/proc/{}/smaps_rollup", self.pid());
        let text = fs::read_to_string(&file).with_context(|| file.clone())?;
        parse_resident(&text).with_context(|| format!("no Rss in {file}"))
    }

    fn unregister(&self) {
        running().pids.retain(|pid| *pid != self.pid());
    }
}

fn parse_resident(smaps: &str) -> Option<f64> {
    let value = smaps.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

impl Drop for Process {
    fn drop(&mut self) {
        // Before its id can be that of another process.
        self.unregister();
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let _ = kill(self.pid(), Signal::SIGTERM);
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_kib() {
        let text = "55d0-7ffd ---p 0 00:00 0 [rollup]\nRss:            3340 kB\nPss: 1 kB\n";
        assert_eq!(parse_resident(text), Some(3340.0));
        assert_eq!(parse_resident(""), None);
    }

    #[test]
    fn ports_differ_and_can_be_bound() -> Result<()> {
        let ports = [free_port()?, free_port()?];
        assert_ne!(ports[0], ports[1]);
        for port in ports {
            assert!(PORTS.contains(&port));
            drop(TcpListener::bind(("127.0.0.1", port))?);
        }
        Ok(())
    }

    #[test]
    fn an_early_exit_is_reported_with_the_output() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such file; exit 3"]);
        let mut process = Process::start("p", &mut command, dir.path())?;
        let error = loop {
            if let Err(error) = process.ensure_running() {
                break error.to_string();
            }
        };
        assert_eq!(error, "p has exited, exit status: 3: no such file");
        Ok(())
    }
}
