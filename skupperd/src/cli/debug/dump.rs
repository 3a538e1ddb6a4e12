//! `skupper debug dump`: an archive of a namespace for a bug report, without secrets.

use crate::{
    cli::{
        CommandResult, Failure,
        archive::Archive,
        daemon_http::{self, DaemonResponse},
        output, show, system_status,
        target::{CommandTarget, Scope},
    },
    manifest::{self, redact},
    model::Kind,
    store::write_own,
};
use anyhow::anyhow;
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;
use serde_json::json;
use std::{
    fmt::Display,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Newest lines of the journal in the archive.
const JOURNAL_LINES: &str = "20000";
/// Longest file or output of a program in the archive, in bytes.
const MAX_PART: u64 = 16 << 20;
/// First and last line of a PEM block, wherever it was pasted.
const PEM_MARKS: (&str, &str) = ("-----BEGIN ", "-----END ");

/// The archive, and the parts that could not be read.
struct Dump {
    archive: Archive,
    missing: Vec<String>,
}

impl Dump {
    fn add(&mut self, path: &str, text: &str) -> CommandResult {
        self.archive.add(path, 0o600, without_keys(text).as_bytes())
    }

    /// Adds a part. One that cannot be read is listed in `missing.txt`.
    fn try_add<E: Display>(&mut self, path: &str, text: Result<String, E>) -> CommandResult {
        match text {
            Ok(text) => self.add(path, &text),
            Err(error) => {
                self.missing.push(format!("{path}: {error}"));
                Ok(())
            }
        }
    }
}

pub(super) fn run(target: &CommandTarget, file: &Path) -> CommandResult {
    let now = Timestamp::now();
    let mut dump = Dump {
        archive: Archive::new(now),
        missing: Vec::new(),
    };
    let resources = resources(target, &mut dump)?;
    if resources == 0 && !target.namespaces()?.contains(target.name()) {
        let text = format!("namespace {:?} does not exist", target.name());
        return Err(Failure::Failed(anyhow!(text)));
    }
    let issuers = target.issuers()?;
    dump.add("site-namespace/issuers.yaml", &to_yaml(&issuers)?)?;
    host(target, &mut dump)?;
    daemon(target, &mut dump)?;
    let missing = dump.missing.join("\n");
    if !missing.is_empty() {
        dump.add("missing.txt", &missing)?;
    }
    let path = archive_path(file, target.name().as_str(), now);
    write_own(&path, &dump.archive.finish()?, 0o600)
        .map_err(|e| anyhow!("{}: {e}", path.display()))?;
    output::print(&format!(
        "Skupper dump details written to compressed archive: {}",
        path.display()
    ))
}

/// The name that Skupper gives it.
fn archive_path(file: &Path, namespace: &str, now: Timestamp) -> PathBuf {
    let time = now.to_zoned(TimeZone::UTC).strftime("%Y%m%d%H%M%S");
    let mut path = file.as_os_str().to_owned();
    path.push(format!("-{namespace}-{time}.tar.gz"));
    path.into()
}

/// Adds all resources of the namespace with their statuses. Returns their number.
fn resources(target: &CommandTarget, dump: &mut Dump) -> Result<usize, Failure> {
    let mut number = 0;
    for kind in Kind::ALL {
        for mut document in target.documents(kind)? {
            redact(&mut document);
            let name = show::text(&document, "/metadata/name");
            let path = format!("site-namespace/resources/runtime/{kind}-{name}.yaml");
            dump.add(&path, &to_yaml(&document)?)?;
            number += 1;
        }
    }
    Ok(number)
}

/// Adds versions of the host, and the state of the unit and its journal.
fn host(target: &CommandTarget, dump: &mut Dump) -> CommandResult {
    let daemon = target.daemon()?;
    let versions = json!({
        "skupper": env!("CARGO_PKG_VERSION"),
        "skupperd": daemon.map(|d| d.version),
        "time": Timestamp::now().to_string(),
    });
    dump.add("versions/skupper.yaml", &to_yaml(&versions)?)?;
    dump.try_add("versions/os-release.txt", read("/etc/os-release"))?;
    dump.try_add("versions/uname.txt", read("/proc/version"))?;
    let systemd = run_program("systemctl", &["--version"]);
    dump.try_add("versions/systemd.txt", systemd)?;
    if target.scope == Scope::Root {
        return Ok(());
    }
    let user: &[&str] = match target.scope {
        Scope::User => &["--user"],
        _ => &[],
    };
    let with = |words: &[&'static str]| [user, words].concat();
    let unit = "skupperd.service";
    let status = with(&["status", "--no-pager", "--lines=0", unit]);
    dump.try_add(
        "site-namespace/unit-status.txt",
        run_program("systemctl", &status),
    )?;
    let cat = with(&["cat", "--no-pager", unit]);
    dump.try_add(
        "site-namespace/unit-file.txt",
        run_program("systemctl", &cat),
    )?;
    let journal = with(&[
        "--no-pager",
        "--output=short-iso",
        "--lines",
        JOURNAL_LINES,
        "-u",
    ]);
    let journal = [&journal[..], &[unit]].concat();
    let journal = run_program("journalctl", &journal);
    dump.try_add("site-namespace/logs/systemd-journal.txt", journal)?;
    if target.scope == Scope::System {
        dump.try_add("site-namespace/options.txt", read("/etc/default/skupperd"))?;
    }
    Ok(())
}

/// Adds status, metrics, health and connections of the running daemon.
fn daemon(target: &CommandTarget, dump: &mut Dump) -> CommandResult {
    let all = to_yaml(&system_status::all(target)?)?;
    dump.add("site-namespace/status.yaml", &all)?;
    let ask = |path: &str| daemon_http::get(target.layout.runtime(), path);
    let get = |path: &str| ask(path).map_err(|e| e.to_string())?.body();
    dump.try_add("site-namespace/metrics.txt", get("/metrics"))?;
    // An unhealthy daemon answers with another status than 200, and the reason.
    let health = ask("/healthz").map(DaemonResponse::text);
    dump.try_add("site-namespace/health.txt", health)?;
    dump.try_add("site-namespace/services.json", get("/services"))?;
    let connections = format!("/connections?limit=-1&namespace={}", target.name());
    dump.try_add("site-namespace/connections.json", get(&connections))?;
    if let Some(pid) = target.layout.holder() {
        for what in ["status", "limits", "sockstat"] {
            let from = match what {
                "sockstat" => format!("/proc/{pid}/net/sockstat"),
                _ => format!("/proc/{pid}/{what}"),
            };
            let path = format!("site-namespace/process-{what}.txt");
            dump.try_add(&path, read(&from))?;
        }
    }
    Ok(())
}

fn to_yaml(document: &impl Serialize) -> Result<String, Failure> {
    Ok(manifest::to_yaml(document).map_err(anyhow::Error::from)?)
}

fn read(path: &str) -> Result<String, String> {
    let text = || {
        let mut text = String::new();
        fs::File::open(path)?
            .take(MAX_PART)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    text().map_err(|e: std::io::Error| format!("{path}: {e}"))
}

/// What a program prints on standard output and standard error.
fn run_program(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text.truncate(text.floor_char_boundary(usize::try_from(MAX_PART).unwrap_or(usize::MAX)));
    Ok(text)
}

/// The text without private keys, which may have been pasted into an option or a log line.
fn without_keys(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for line in text.lines() {
        if line.contains(PEM_MARKS.0) && line.contains("PRIVATE KEY") {
            inside = true;
            out.push_str("(private key left out)\n");
        }
        if !inside {
            out.push_str(line);
            out.push('\n');
        }
        if line.contains(PEM_MARKS.1) {
            inside = false;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_named_as_in_skupper() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let path = archive_path(Path::new("/tmp/a.b"), "east", now);
        assert_eq!(path, Path::new("/tmp/a.b-east-20260102030405.tar.gz"));
    }

    #[test]
    fn private_keys_are_left_out_wherever_they_are() {
        let text = "a\n  -----BEGIN EC PRIVATE KEY-----\n  MHc\n  -----END EC PRIVATE KEY-----\nb\n\
                    -----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n";
        let expected = "a\n(private key left out)\nb\n\
                        -----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n";
        assert_eq!(without_keys(text), expected);
    }
}
