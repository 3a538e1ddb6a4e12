//! Flags that several kinds of resources have, and how they get into a spec.

use crate::model::{Observer, Selector, check_host, check_name, parse_port};
use clap::Args;
use serde_json::{Value, json};

/// Advanced options.
#[derive(Debug, Args)]
pub(super) struct Settings {
    /// Setting; an empty value takes it away
    #[arg(long = "setting", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

impl Settings {
    pub(super) fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>) {
        for setting in &self.settings {
            match setting.split_once('=').filter(|(key, _)| !key.is_empty()) {
                Some((key, "")) => spec["settings"][key] = Value::Null,
                Some((key, text)) => spec["settings"][key] = json!(text),
                None => wrong.push(format!(
                    "setting is not valid: {setting:?} is not KEY=VALUE"
                )),
            }
        }
    }
}

/// Credentials.
#[derive(Debug, Args)]
pub(super) struct Credentials {
    /// Name of TLS credentials
    #[arg(long)]
    tls_credentials: Option<String>,
}

impl Credentials {
    pub(super) fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>) {
        let (name, field) = (self.tls_credentials.as_deref(), "tlsCredentials");
        named(name, field, "tlsCredentials value", spec, wrong);
    }
}

/// Servers that are not named by a host.
#[derive(Debug, Args)]
pub(super) struct Servers {
    /// Servers of this host by what they are: unit=NAME, slice=NAME, user-unit=[UID:]NAME,
    /// cgroup=/PATH, exe=/PATH or uid=NUMBER; PORT 0 is every port they listen on
    #[arg(long, conflicts_with = "workload")]
    selector: Option<String>,
    /// The same, written as KIND/NAME: unit/nginx.service
    #[arg(long)]
    workload: Option<String>,
}

impl Servers {
    pub(super) fn given(&self) -> bool {
        self.selector.is_some() || self.workload.is_some()
    }

    pub(super) fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>) {
        for (noun, given) in [("selector", &self.selector), ("workload", &self.workload)] {
            match given.as_ref().map(|text| text.parse::<Selector>()) {
                None => {}
                Some(Ok(selector)) => spec["selector"] = json!(selector),
                Some(Err(e)) => wrong.push(format!("{noun} is not valid: {e}")),
            }
        }
    }
}

/// Puts the name of something into a field of a spec.
pub(super) fn named(
    given: Option<&str>,
    field: &str,
    noun: &str,
    spec: &mut Value,
    wrong: &mut Vec<String>,
) {
    let Some(name) = given else { return };
    match check_name(name) {
        Ok(()) => spec[field] = json!(name),
        Err(e) => wrong.push(format!("{noun} is not valid: {e}")),
    }
}

/// Puts what is true or false into fields of a spec, where it is said.
pub(super) fn told<const N: usize>(given: [(&str, Option<bool>); N], spec: &mut Value) {
    for (field, given) in given {
        if let Some(given) = given {
            spec[field] = json!(given);
        }
    }
}

/// Puts host names and addresses into a field of a spec.
pub(super) fn hosts(given: &[String], field: &str, spec: &mut Value, wrong: &mut Vec<String>) {
    for host in given {
        if let Err(e) = check_host(host) {
            wrong.push(format!("host is not valid: {e}"));
        }
    }
    if !given.is_empty() {
        spec[field] = json!(given);
    }
}

/// Puts the transport into a spec: there is one.
pub(super) fn transport(
    given: Option<&str>,
    noun: &str,
    spec: &mut Value,
    wrong: &mut Vec<String>,
) {
    match given {
        None => {}
        Some("tcp") => spec["type"] = json!("tcp"),
        Some(other) => wrong.push(format!(
            "{noun} type is not valid: value {other} not allowed. \
             It should be one of this options: [tcp]"
        )),
    }
}

/// Puts an observer into a spec.
pub(super) fn observer(given: Option<&str>, spec: &mut Value, wrong: &mut Vec<String>) {
    let Some(text) = given else { return };
    let all = Observer::ALL.map(Observer::as_str);
    if all.contains(&text) {
        spec["observer"] = json!(text);
    } else {
        wrong.push(format!(
            "observer is not valid: value {text} not allowed. It should be one of this options: [{}]",
            all.join(" ")
        ));
    }
}

/// Puts a port into a spec. `any`: 0 stands for every port.
pub(super) fn port(given: &str, any: bool, noun: &str, spec: &mut Value, wrong: &mut Vec<String>) {
    let parsed = given
        .parse::<i64>()
        .map_err(|_| format!("{given:?} is not a number"));
    match parsed.and_then(|port| match port {
        0 if any => Ok(0),
        port => parse_port(port).map_err(|e| e.to_string()),
    }) {
        Ok(port) => spec["port"] = json!(port),
        Err(e) => wrong.push(format!("{noun} port is not valid: {e}")),
    }
}
