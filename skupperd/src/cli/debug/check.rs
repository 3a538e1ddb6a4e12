//! `skupper debug check`: the first checks of an operator, all at once. Changes nothing, and sends
//! nothing but attempts to connect.

use crate::{
    cli::{
        CommandResult, Failure, input_errors,
        output::{self, OutputArgs},
        show,
        target::{CommandTarget, Scope},
        unit,
    },
    model::{Kind, Phase},
    store::DaemonState,
};
use anyhow::anyhow;
use serde_json::{Value, json};
use std::{
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

/// Time for a server to accept a connection.
const CONNECT: Duration = Duration::from_secs(3);

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Possibly intended.
    Notice,
    Bad,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Notice => "notice",
            Self::Bad => "failed",
        }
    }
}

struct Finding {
    what: String,
    verdict: Verdict,
    message: String,
}

fn finding(what: impl Into<String>, verdict: Verdict, message: impl Into<String>) -> Finding {
    Finding {
        what: what.into(),
        verdict,
        message: message.into(),
    }
}

pub(super) fn run(target: &CommandTarget, format: &OutputArgs) -> CommandResult {
    let encoding = format.encoding()?;
    let mut findings = vec![check_daemon(target)?];
    findings.extend(autostart(target));
    findings.extend(check_resources(target)?);
    for connector in target.documents(Kind::Connector)? {
        findings.extend(check_server(&connector));
    }
    for link in target.documents(Kind::Link)? {
        findings.extend(check_endpoints(&link));
    }
    match encoding {
        Some(encoding) => {
            let all = findings.iter().map(
                |f| json!({"check": f.what, "result": f.verdict.as_str(), "message": f.message}),
            );
            output::document(&all.collect(), encoding)?;
        }
        None => {
            let row = |f: &Finding| {
                vec![
                    f.what.clone(),
                    f.verdict.as_str().to_owned(),
                    f.message.clone(),
                ]
            };
            let rows: Vec<Vec<String>> = findings.iter().map(row).collect();
            output::table(&["CHECK", "RESULT", "MESSAGE"], &rows)?;
        }
    }
    let bad = findings.iter().filter(|f| f.verdict == Verdict::Bad);
    match bad.count() {
        0 => Ok(()),
        1 => Err(Failure::Failed(anyhow!("1 check failed"))),
        n => Err(Failure::Failed(anyhow!("{n} checks failed"))),
    }
}

fn check_daemon(target: &CommandTarget) -> Result<Finding, Failure> {
    let what = "skupperd";
    if target.daemon_state()? == DaemonState::Stopping {
        let text = "stopping: it accepts no new connections";
        return Ok(finding(what, Verdict::Bad, text));
    }
    if let Some(daemon) = target.daemon()? {
        let (theirs, ours) = (daemon.version, env!("CARGO_PKG_VERSION"));
        return Ok(if theirs == ours {
            finding(what, Verdict::Good, format!("running, version {theirs}"))
        } else {
            let text = format!("running version {theirs}, and this command is {ours}: restart it");
            finding(what, Verdict::Notice, text)
        });
    }
    Ok(match (target.daemon_state()?, target.layout.holder()) {
        (DaemonState::Absent, _) => {
            finding(what, Verdict::Bad, "not running: skupper system start")
        }
        (state, Some(pid)) => {
            let text = format!("{} as process {pid}", state.as_str());
            finding(what, Verdict::Good, text)
        }
        (state, None) => finding(what, Verdict::Good, state.as_str()),
    })
}

/// Whether the daemon starts with the host, or with the user's session.
fn autostart(target: &CommandTarget) -> Vec<Finding> {
    if target.scope == Scope::Root {
        return Vec::new();
    }
    let what = "unit";
    let state = unit::current_state(target).map(|state| state.file);
    let mut findings = vec![match state.as_deref() {
        None => finding(what, Verdict::Notice, "skupperd.service is not installed"),
        Some("enabled") => finding(what, Verdict::Good, "starts by itself"),
        Some(state) => {
            let text = format!("{state}: it does not start by itself; skupper system install");
            finding(what, Verdict::Notice, text)
        }
    }];
    if let Some(user) = unit::without_lingering(target) {
        let text = format!("sites end when {user} logs out: loginctl enable-linger {user}");
        findings.push(finding("lingering", Verdict::Notice, text));
    }
    findings
}

/// The status of each resource, and what is in the input files and is none.
fn check_resources(target: &CommandTarget) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    let mut all = Vec::new();
    for kind in Kind::ALL {
        all.push((kind, target.documents(kind)?));
    }
    let shown: Vec<&Value> = all.iter().flat_map(|(_, documents)| documents).collect();
    for error in input_errors::hidden(target, target.name(), &shown)? {
        let text = |path: &str| show::text(&error, path);
        let what = format!("input file {}", text("/file"));
        let reason = text("/text");
        let reason = reason.strip_prefix(&text("/file")).unwrap_or(&reason);
        let reason = reason.trim_start_matches(':');
        findings.push(finding(what, Verdict::Bad, format!("line {reason}")));
    }
    for (kind, documents) in all {
        for document in documents {
            // Kinds that are stored only have no status.
            if document.get("status").is_none() && !kind.is_served() {
                continue;
            }
            let (name, phase, message) = show::status(&document);
            let verdict = match phase.as_str() {
                p if p == Phase::Error.as_str() => Verdict::Bad,
                p if p == Phase::Ready.as_str() => Verdict::Good,
                _ => Verdict::Notice,
            };
            let good = verdict == Verdict::Good;
            // A valid Secret has no status.
            if kind == Kind::Secret && document.get("status").is_none() {
                continue;
            }
            let message = if good && message == "OK" {
                String::new()
            } else {
                message
            };
            findings.push(finding(format!("{kind} {name}"), verdict, message));
        }
    }
    if !findings.iter().any(|f| f.what.starts_with("Site ")) {
        let text = format!(
            "there is none in namespace {:?}; create one with: skupper site create NAME",
            target.name()
        );
        findings.insert(0, finding("Site", Verdict::Bad, text));
    }
    Ok(findings)
}

/// Whether the server of a connector accepts connections.
fn check_server(connector: &Value) -> Option<Finding> {
    let text = |path: &str| show::text(connector, path);
    let (host, port) = (text("/spec/host"), text("/spec/port"));
    if host.is_empty() || host.starts_with("unix:") {
        return None;
    }
    let what = format!("server of Connector {}", text("/metadata/name"));
    Some(try_connect(what, &host, &port))
}

/// Whether each endpoint of a link accepts connections.
fn check_endpoints(link: &Value) -> Vec<Finding> {
    let name = show::text(link, "/metadata/name");
    // The endpoint may be reachable through the proxy only.
    if link.pointer("/spec/settings/proxy-configuration").is_some() {
        return Vec::new();
    }
    let endpoints = link["spec"]["endpoints"].as_array().into_iter().flatten();
    let reached = endpoints.map(|endpoint| {
        let text = |path: &str| show::text(endpoint, path);
        let (host, port) = (text("/host"), text("/port"));
        let what = format!("endpoint {} of Link {name}", text("/name"));
        try_connect(what, &host, &port)
    });
    reached.collect()
}

fn try_connect(what: String, host: &str, port: &str) -> Finding {
    let Ok(port) = port.parse::<u16>() else {
        return finding(what, Verdict::Bad, format!("{port:?} is not a port"));
    };
    let addresses = match (host, port).to_socket_addrs() {
        Ok(addresses) => addresses,
        Err(error) => return finding(what, Verdict::Bad, format!("{host}: {error}")),
    };
    let mut last = format!("{host} has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(_) => return finding(what, Verdict::Good, format!("{address} accepts")),
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    finding(what, Verdict::Bad, last)
}
