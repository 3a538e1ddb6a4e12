//! `skupper system status`

use super::{
    CommandResult, Failure, input_errors, kernel_state, output, overview::chosen_site, show,
    target::CommandTarget, unit, view::ViewArgs,
};
use crate::{
    model::{Kind, Namespace, Phase},
    store::DaemonState,
};
use serde_json::{Value, json};

pub(super) fn run(target: &CommandTarget, view: &ViewArgs) -> CommandResult {
    view.show(|| all(target), screen)?;
    target.ensure_running()
}

/// The whole status as a document.
pub(super) fn all(target: &CommandTarget) -> Result<Value, Failure> {
    let namespaces = target.namespaces()?;
    let namespaces = namespaces.iter().map(|name| namespace(target, name));
    let namespaces: Vec<Value> = namespaces.collect::<Result<_, _>>()?;
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "scope": target.scope.as_str(),
        "bus": target.bus.map(|bus| bus.to_string()),
        "directory": target.layout.input_namespaces(),
        "daemon": daemon(target)?,
        "unit": unit::current_state(target).map(|state| json!({"enabled": state.file, "active": state.active})),
        "steering": steering_summary(target),
        "namespaces": namespaces,
    }))
}

fn daemon(target: &CommandTarget) -> Result<Value, Failure> {
    let daemon = target.daemon()?;
    // It may run without being on a bus.
    let process = target.layout.holder();
    let state = target.daemon_state()?;
    Ok(json!({
        "running": state != DaemonState::Absent,
        "state": state.as_str(),
        "onBus": daemon.is_some(),
        "process": process,
        "version": daemon.as_ref().map(|d| &d.version),
        "since": daemon.as_ref().map(|d| &d.since),
    }))
}

fn namespace(target: &CommandTarget, name: &Namespace) -> Result<Value, Failure> {
    let count = |kind| -> Result<(usize, usize), Failure> {
        let all = target.documents_of(name, kind)?;
        let ready = all.iter().filter(|v| is_ready(v)).count();
        Ok((ready, all.len() - ready))
    };
    let site = chosen_site(target.documents_of(name, Kind::Site)?);
    let errors = input_errors::hidden(target, name, &[])?;
    let incoming = site
        .as_ref()
        .and_then(|v| v.pointer("/status/incomingLinks"));
    let incoming = incoming.and_then(Value::as_array).map_or(0, Vec::len);
    let (up, down) = count(Kind::Link)?;
    let (listeners, waiting) = count(Kind::Listener)?;
    let (connectors, idle) = count(Kind::Connector)?;
    Ok(json!({
        "name": name,
        "site": site.as_ref().map(|v| show::text(v, "/metadata/name")),
        "status": site.as_ref().map(|v| show::status(v).1),
        "linksUp": up,
        "linksDown": down,
        "linksIn": incoming,
        "listeners": listeners + waiting,
        "listenersReady": listeners,
        "connectors": connectors + idle,
        "connectorsReady": connectors,
        "inputErrors": errors,
    }))
}

/// Whether the kernel steers, without the list of addresses. Null from a daemon of an earlier version.
fn steering_summary(target: &CommandTarget) -> Value {
    let mut listing = target.steering().ok().flatten().unwrap_or_default();
    if let Some(fields) = listing.as_object_mut() {
        fields.retain(|name, _| name != "bindings" && name != "sockets");
    }
    listing
}

/// A state of the kernel's part in listeners, which only a running daemon knows.
fn kernel_text(listing: &Value, state: fn(&Value) -> String) -> String {
    match listing.is_null() {
        true => "unknown: skupperd is not running".to_owned(),
        false => state(listing),
    }
}

fn is_ready(value: &Value) -> bool {
    value["status"]["status"] == Phase::Ready.as_str()
}

fn screen(all: &Value) -> String {
    let text = |path: &str| show::text(all, path);
    let state = text("/daemon/state");
    let daemon = match (text("/daemon/since"), text("/daemon/process")) {
        (since, _) if !since.is_empty() && state == DaemonState::Running.as_str() => {
            format!("{state} since {since}, version {}", text("/daemon/version"))
        }
        (_, process) if !process.is_empty() => format!("{state} as process {process}"),
        _ => state,
    };
    let unit = match all["unit"].is_null() {
        true => "none".to_owned(),
        false => format!("{}, {}", text("/unit/enabled"), text("/unit/active")),
    };
    let bus = Some(text("/bus")).filter(|bus| !bus.is_empty());
    let mut screen = output::lines(&[
        ("Version", text("/version")),
        ("Scope", text("/scope")),
        ("Bus", bus.unwrap_or_else(|| "none".to_owned())),
        ("Directory", text("/directory")),
        ("Daemon", daemon),
        ("Unit", unit),
        (
            "Steering",
            kernel_text(&all["steering"], kernel_state::steering),
        ),
        (
            "Acceleration",
            kernel_text(&all["steering"], kernel_state::acceleration),
        ),
    ]);
    let namespaces = all["namespaces"].as_array();
    let errors = |v: &Value| v["inputErrors"].as_array().cloned().unwrap_or_default();
    let row = |v: &Value| {
        let text = |path: &str| show::text(v, path);
        let of = |ready: &str, all: &str| format!("{}/{}", text(ready), text(all));
        vec![
            text("/name"),
            text("/site"),
            text("/status"),
            text("/linksUp"),
            text("/linksDown"),
            of("/listenersReady", "/listeners"),
            of("/connectorsReady", "/connectors"),
            errors(v).len().to_string(),
            text("/linksIn"),
        ]
    };
    let rows: Vec<Vec<String>> = namespaces.into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        return screen + "No namespaces found\n";
    }
    screen.push('\n');
    let header = [
        "NAMESPACE",
        "SITE",
        "STATUS",
        "LINKS-UP",
        "LINKS-DOWN",
        "LISTENERS-READY",
        "CONNECTORS-READY",
        "INPUT-ERRORS",
        "LINKS-IN",
    ];
    let errors: Vec<Value> = namespaces.into_iter().flatten().flat_map(errors).collect();
    screen + &output::columns(&header, &rows) + &input_errors::section(&errors)
}
