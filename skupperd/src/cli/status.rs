//! `skupper system status`

use super::{
    Failure, Outcome, debug,
    output::{self, Format},
    place::Place,
    show, unit,
};
use crate::model::{Kind, Namespace, Phase};
use serde_json::{Value, json};

pub(super) fn run(place: &Place, format: &Format) -> Outcome {
    let encoding = format.encoding()?;
    let all = all(place)?;
    match encoding {
        Some(encoding) => output::document(&all, encoding),
        None => print(&all),
    }
}

/// All of it, as a document.
pub(super) fn all(place: &Place) -> Result<Value, Failure> {
    let namespaces = place.namespaces()?;
    let namespaces = namespaces.iter().map(|name| namespace(place, name));
    let namespaces: Vec<Value> = namespaces.collect::<Result<_, _>>()?;
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "scope": place.scope.as_str(),
        "bus": place.bus.map(|bus| bus.to_string()),
        "directory": place.layout.input_namespaces(),
        "daemon": daemon(place)?,
        "unit": unit(place),
        "steering": summary(place),
        "namespaces": namespaces,
    }))
}

fn daemon(place: &Place) -> Result<Value, Failure> {
    let daemon = place.daemon()?;
    // One that is on no bus may still run.
    let process = place.layout.holder();
    Ok(json!({
        "running": daemon.is_some() || process.is_some(),
        "onBus": daemon.is_some(),
        "process": process,
        "version": daemon.as_ref().map(|d| &d.version),
        "since": daemon.as_ref().map(|d| &d.since),
    }))
}

/// How the unit stands, where there is a service manager that can tell.
fn unit(place: &Place) -> Value {
    let state = unit::manager(place).and_then(|systemd| unit::state(&systemd));
    match state {
        Ok(state) if state.exists() => json!({"enabled": state.file, "active": state.active}),
        _ => Value::Null,
    }
}

fn namespace(place: &Place, name: &Namespace) -> Result<Value, Failure> {
    let count = |kind| -> Result<(usize, usize), Failure> {
        let all = place.documents_of(name, kind)?;
        let ready = all.iter().filter(|v| is_ready(v)).count();
        Ok((ready, all.len() - ready))
    };
    let sites = place.documents_of(name, Kind::Site)?;
    // The one that is not refused, if any.
    let site = sites.iter().find(|v| v.get("spec").is_some());
    let (up, down) = count(Kind::Link)?;
    let (listeners, waiting) = count(Kind::Listener)?;
    let (connectors, idle) = count(Kind::Connector)?;
    Ok(json!({
        "name": name,
        "site": site.map(|v| show::text(v, "/metadata/name")),
        "status": site.map(|v| show::status(v).1),
        "linksUp": up,
        "linksDown": down,
        "listeners": listeners + waiting,
        "listenersReady": listeners,
        "connectors": connectors + idle,
        "connectorsReady": connectors,
    }))
}

/// Whether the kernel steers, without what it steers where. A daemon that does not say is of an
/// earlier version.
fn summary(place: &Place) -> Value {
    let mut listing = place.steering().ok().flatten().unwrap_or_default();
    if let Some(fields) = listing.as_object_mut() {
        fields.retain(|name, _| name != "bindings" && name != "sockets");
    }
    listing
}

/// Of what the kernel does for listeners: whether, and why not.
fn steering(listing: &Value, words: fn(&Value) -> String) -> String {
    match listing.is_null() {
        true => "none without skupperd".to_owned(),
        false => words(listing),
    }
}

fn is_ready(value: &Value) -> bool {
    value["status"]["status"] == Phase::Ready.as_str()
}

fn print(all: &Value) -> Outcome {
    let text = |path: &str| show::text(all, path);
    let daemon = match (text("/daemon/since"), text("/daemon/process")) {
        (since, _) if !since.is_empty() => {
            format!("running since {since}, version {}", text("/daemon/version"))
        }
        (_, process) if !process.is_empty() => format!("running as process {process}"),
        _ => "not running".to_owned(),
    };
    let unit = match all["unit"].is_null() {
        true => "none".to_owned(),
        false => format!("{}, {}", text("/unit/enabled"), text("/unit/active")),
    };
    let bus = Some(text("/bus")).filter(|bus| !bus.is_empty());
    output::details(&[
        ("Version", text("/version")),
        ("Scope", text("/scope")),
        ("Bus", bus.unwrap_or_else(|| "none".to_owned())),
        ("Directory", text("/directory")),
        ("Daemon", daemon),
        ("Unit", unit),
        ("Steering", steering(&all["steering"], debug::words)),
        (
            "Acceleration",
            steering(&all["steering"], debug::accelerated),
        ),
    ])?;
    let namespaces = all["namespaces"].as_array();
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
        ]
    };
    let rows: Vec<Vec<String>> = namespaces.into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        return output::print("There are no namespaces");
    }
    output::print("")?;
    let header = [
        "NAMESPACE",
        "SITE",
        "STATUS",
        "LINKS-UP",
        "LINKS-DOWN",
        "LISTENERS-READY",
        "CONNECTORS-READY",
    ];
    output::table(&header, &rows)
}
