//! `skupper debug check`: what an operator would look at first, looked at all at once. Nothing is
//! changed, and nothing is sent but attempts to connect.

use crate::{
    cli::{
        Failure, Outcome,
        output::{self, Format},
        place::{Place, Scope},
        show, unit,
    },
    model::{Kind, Phase},
};
use anyhow::anyhow;
use serde_json::{Value, json};
use std::{
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

/// Time for a server to accept: what is slower is of no use to a client either.
const CONNECT: Duration = Duration::from_secs(3);

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// It may be meant.
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

pub(super) fn run(place: &Place, format: &Format) -> Outcome {
    let encoding = format.encoding()?;
    let mut findings = vec![daemon(place)?];
    findings.extend(starts(place));
    findings.extend(resources(place)?);
    for connector in place.documents(Kind::Connector)? {
        findings.extend(server(&connector));
    }
    for link in place.documents(Kind::Link)? {
        findings.extend(endpoints(&link));
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
        1 => Err(Failure::Failed(anyhow!("1 check has failed"))),
        n => Err(Failure::Failed(anyhow!("{n} checks have failed"))),
    }
}

fn daemon(place: &Place) -> Result<Finding, Failure> {
    let what = "skupperd";
    if let Some(daemon) = place.daemon()? {
        let (theirs, ours) = (daemon.version, env!("CARGO_PKG_VERSION"));
        return Ok(if theirs == ours {
            finding(what, Verdict::Good, format!("running, version {theirs}"))
        } else {
            let text = format!("running version {theirs}, and this command is {ours}: restart it");
            finding(what, Verdict::Notice, text)
        });
    }
    Ok(match place.layout.holder() {
        Some(pid) => finding(what, Verdict::Good, format!("running as process {pid}")),
        None => finding(what, Verdict::Bad, "not running: skupper system start"),
    })
}

/// Whether the daemon comes back by itself.
fn starts(place: &Place) -> Vec<Finding> {
    if place.scope == Scope::Root {
        return Vec::new();
    }
    let what = "unit";
    let state = unit::of(place).map(|state| state.file);
    let mut findings = vec![match state.as_deref() {
        None => finding(what, Verdict::Notice, "skupperd.service is not installed"),
        Some("enabled") => finding(what, Verdict::Good, "starts by itself"),
        Some(state) => {
            let text = format!("{state}: it does not start by itself; skupper system install");
            finding(what, Verdict::Notice, text)
        }
    }];
    if let Some(user) = unit::without_lingering(place) {
        let text = format!("sites end when {user} logs out: loginctl enable-linger {user}");
        findings.push(finding("lingering", Verdict::Notice, text));
    }
    findings
}

/// What the daemon says of each resource.
fn resources(place: &Place) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    for kind in Kind::ALL {
        for document in place.documents(kind)? {
            // What is only kept has no status.
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
            // A Secret that is wanted and good is told nothing.
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
        let text = format!("there is none in namespace {:?}", place.name());
        findings.insert(0, finding("Site", Verdict::Bad, text));
    }
    Ok(findings)
}

/// Whether anybody accepts where a connector leads to.
fn server(connector: &Value) -> Option<Finding> {
    let text = |path: &str| show::text(connector, path);
    let (host, port) = (text("/spec/host"), text("/spec/port"));
    if host.is_empty() || host.starts_with("unix:") {
        return None;
    }
    let what = format!("server of Connector {}", text("/metadata/name"));
    Some(reach(what, &host, &port))
}

/// Whether any endpoint of a link accepts.
fn endpoints(link: &Value) -> Vec<Finding> {
    let name = show::text(link, "/metadata/name");
    // By way of a proxy nobody else gets there.
    if link.pointer("/spec/settings/proxy-configuration").is_some() {
        return Vec::new();
    }
    let endpoints = link["spec"]["endpoints"].as_array().into_iter().flatten();
    let reached = endpoints.map(|endpoint| {
        let text = |path: &str| show::text(endpoint, path);
        let (host, port) = (text("/host"), text("/port"));
        let what = format!("endpoint {} of Link {name}", text("/name"));
        reach(what, &host, &port)
    });
    reached.collect()
}

fn reach(what: String, host: &str, port: &str) -> Finding {
    let Ok(port) = port.parse::<u16>() else {
        return finding(what, Verdict::Bad, format!("{port:?} is no port"));
    };
    let addresses = match (host, port).to_socket_addrs() {
        Ok(addresses) => addresses,
        Err(error) => return finding(what, Verdict::Bad, format!("{host}: {error}")),
    };
    let mut last = format!("{host}: no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(_) => return finding(what, Verdict::Good, format!("{address} accepts")),
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    finding(what, Verdict::Bad, last)
}
