//! Options that several kinds of resources have, and the fields they set.

use super::completion;
use crate::{
    manifest::settings::settings_of,
    model::{Kind, Namespace, ObserverMode, Selector, check_host, check_name, parse_port},
};
use clap::{Arg, Args};
use serde_json::{Value, json};

/// `--setting` for a kind: its help, with the manual page that lists the keys, and their completion.
pub(super) fn setting_arg(arg: Arg, kind: Kind) -> Arg {
    // Both sides of an attached connector have one page.
    let page = match kind {
        Kind::AttachedConnectorBinding => Kind::AttachedConnector,
        kind => kind,
    };
    let keys = match settings_of(kind).next() {
        Some(_) => format!("as skupper-{}(5) lists them", page.as_str().to_lowercase()),
        None => format!("where no key has an effect in {kind} on a host"),
    };
    let help = format!("Set KEY in spec.settings, {keys}; KEY= removes it; repeat for several");
    arg.help(help).add(completion::settings(kind))
}

#[derive(Debug, Args)]
pub(super) struct SettingArgs {
    /// Set KEY in spec.settings; KEY= removes it; repeat for several
    #[arg(long = "setting", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

impl SettingArgs {
    pub(super) fn apply(&self, spec: &mut Value, errors: &mut Vec<String>) {
        for setting in &self.settings {
            match setting.split_once('=').filter(|(key, _)| !key.is_empty()) {
                Some((key, "")) => spec["settings"][key] = Value::Null,
                Some((key, text)) => spec["settings"][key] = json!(text),
                None => errors.push(format!(
                    "setting is not valid: {setting:?} is not KEY=VALUE"
                )),
            }
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct CredentialArgs {
    /// TLS credentials: name of a Secret or Certificate resource, or of a directory below input/certs
    #[arg(long, value_name = "NAME")]
    tls_credentials: Option<String>,
}

impl CredentialArgs {
    pub(super) fn apply(&self, spec: &mut Value, errors: &mut Vec<String>) {
        let (name, field) = (self.tls_credentials.as_deref(), "tlsCredentials");
        set_name(name, field, "tlsCredentials value", spec, errors);
    }
}

/// Servers found by what they are, in place of a host.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// Find the servers on this host by process: unit=NAME, slice=NAME, user-unit=[UID:]NAME,
    /// cgroup=/PATH, exe=/PATH or uid=NUMBER
    #[arg(long, value_name = "KIND=NAME", conflicts_with = "workload")]
    selector: Option<String>,
    /// The same as --selector, written as in Skupper: unit/nginx.service
    #[arg(long, value_name = "KIND/NAME")]
    workload: Option<String>,
}

impl ServerArgs {
    pub(super) fn is_set(&self) -> bool {
        self.selector.is_some() || self.workload.is_some()
    }

    pub(super) fn apply(&self, spec: &mut Value, errors: &mut Vec<String>) {
        for (noun, given) in [("selector", &self.selector), ("workload", &self.workload)] {
            match given.as_ref().map(|text| text.parse::<Selector>()) {
                None => {}
                Some(Ok(selector)) => spec["selector"] = json!(selector),
                Some(Err(e)) => errors.push(format!("{noun} is not valid: {e}")),
            }
        }
    }
}

/// Sets a field that is the name of a resource.
pub(super) fn set_name(
    given: Option<&str>,
    field: &str,
    noun: &str,
    spec: &mut Value,
    errors: &mut Vec<String>,
) {
    let Some(name) = given else { return };
    match check_name(name) {
        Ok(()) => spec[field] = json!(name),
        Err(e) => errors.push(format!("{noun} is not valid: {e}")),
    }
}

/// Sets a field that is the name of another namespace.
pub(super) fn set_namespace(
    given: Option<&str>,
    field: &str,
    spec: &mut Value,
    errors: &mut Vec<String>,
) {
    match given.map(Namespace::new) {
        None => {}
        Some(Ok(name)) => spec[field] = json!(name),
        Some(Err(e)) => errors.push(format!("namespace is not valid: {e}")),
    }
}

/// Sets the boolean fields that are given.
pub(super) fn set_bools<const N: usize>(given: [(&str, Option<bool>); N], spec: &mut Value) {
    for (field, given) in given {
        if let Some(given) = given {
            spec[field] = json!(given);
        }
    }
}

/// Sets a field that is a list of host names and addresses.
pub(super) fn set_hosts(given: &[String], field: &str, spec: &mut Value, errors: &mut Vec<String>) {
    for host in given {
        if let Err(e) = check_host(host) {
            errors.push(format!("host is not valid: {e}"));
        }
    }
    if !given.is_empty() {
        spec[field] = json!(given);
    }
}

/// Sets the transport. TCP is the only one.
pub(super) fn set_transport(
    given: Option<&str>,
    noun: &str,
    spec: &mut Value,
    errors: &mut Vec<String>,
) {
    match given {
        None => {}
        Some("tcp") => spec["type"] = json!("tcp"),
        Some(other) => errors.push(format!(
            "{noun} type is not valid: value {other} not allowed. \
             It should be one of this options: [tcp]"
        )),
    }
}

pub(super) fn set_observer(given: Option<&str>, spec: &mut Value, errors: &mut Vec<String>) {
    let Some(text) = given else { return };
    let all = ObserverMode::ALL.map(ObserverMode::as_str);
    if all.contains(&text) {
        spec["observer"] = json!(text);
    } else {
        errors.push(format!(
            "observer is not valid: value {text} not allowed. It should be one of this options: [{}]",
            all.join(" ")
        ));
    }
}

/// Sets the port. `any`: 0 is valid and means every port.
pub(super) fn set_port(
    given: &str,
    any: bool,
    noun: &str,
    spec: &mut Value,
    errors: &mut Vec<String>,
) {
    let parsed = given
        .parse::<i64>()
        .map_err(|_| format!("{given:?} is not a number"));
    match parsed.and_then(|port| match port {
        0 if any => Ok(0),
        port => parse_port(port).map_err(|e| e.to_string()),
    }) {
        Ok(port) => spec["port"] = json!(port),
        Err(e) => errors.push(format!("{noun} port is not valid: {e}")),
    }
}
