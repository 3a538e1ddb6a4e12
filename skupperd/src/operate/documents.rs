//! Resources with their statuses, as true as they can be: a status is the daemon's word, and holds only
//! while the daemon runs.

use super::{OperateResult, resources};
use crate::{
    manifest::ManifestError,
    model::{Kind, Name, StatusDraft},
    store::{DaemonState, NamespaceDir, NamespaceResources, STOPPING, StatusDir, mark_unknown},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Message of a status while the daemon does not run.
pub const NOT_RUNNING: &str = "skupperd is not running";

/// Resources of a kind with their statuses, by name; without a status where the daemon has not written
/// one yet. Unless the daemon runs, no status says that something works.
pub fn documents(
    namespace: &NamespaceDir,
    kind: Kind,
    state: DaemonState,
) -> OperateResult<Vec<Value>> {
    documents_with(namespace, kind, state, namespace.statuses(kind)?)
}

/// The same with the last report of a daemon in this process, by name: files are written after it.
pub fn documents_with(
    namespace: &NamespaceDir,
    kind: Kind,
    state: DaemonState,
    statuses: BTreeMap<Name, Value>,
) -> OperateResult<Vec<Value>> {
    let reported = |statuses| with_statuses(namespace, kind, statuses);
    let (mut found, reason) = match state {
        DaemonState::Running => return reported(statuses),
        DaemonState::Absent => (unserved(namespace, kind, statuses)?, NOT_RUNNING),
        DaemonState::Starting => (reported(statuses)?, "skupperd is starting"),
        DaemonState::Stopping => (reported(statuses)?, STOPPING),
    };
    if kind.is_served() {
        for document in &mut found {
            mark_unknown(document, reason);
        }
    }
    Ok(found)
}

/// Documents of the input files that are not valid, and files that cannot be read.
pub fn input_errors(namespace: &NamespaceDir) -> OperateResult<Vec<ManifestError>> {
    Ok(namespace.load()?.errors)
}

/// What the daemon has reported.
pub(super) fn reported(namespace: &NamespaceDir, kind: Kind) -> OperateResult<Vec<Value>> {
    with_statuses(namespace, kind, namespace.statuses(kind)?)
}

/// Resources that the files ask for, or that have a status.
fn with_statuses(
    namespace: &NamespaceDir,
    kind: Kind,
    statuses: BTreeMap<Name, Value>,
) -> OperateResult<Vec<Value>> {
    let mut found: BTreeMap<Name, Value> = resources::desired(namespace, kind)?
        .into_iter()
        .map(|located| (located.resource.name().clone(), (*located.document).clone()))
        .collect();
    found.extend(statuses);
    Ok(found.into_values().collect())
}

/// What the files ask for now. Of the last report stays what a daemon that ended cannot have changed.
fn unserved(
    namespace: &NamespaceDir,
    kind: Kind,
    mut statuses: BTreeMap<Name, Value>,
) -> OperateResult<Vec<Value>> {
    let NamespaceResources {
        resources, errors, ..
    } = namespace.load()?;
    let mut found = BTreeMap::new();
    for error in &errors {
        if let Some(key) = error.key().filter(|key| key.kind == kind) {
            let draft = StatusDraft::error(kind, error.to_string());
            let mut document = StatusDir::minimal_document(&key, namespace.name());
            document["status"] = json!(draft.finish(None, 1, Timestamp::now()));
            found.insert(key.name, document);
        }
    }
    for located in resources {
        if located.resource.kind() != kind {
            continue;
        }
        let name = located.resource.name();
        let mut document = (*located.document).clone();
        let last = statuses.remove(name);
        if let Some(id) = last.as_ref().and_then(|v| v.pointer("/metadata/uid")) {
            document["metadata"]["uid"] = id.clone();
        }
        let status = last.and_then(|mut document| Some(document.get_mut("status")?.take()));
        if status.is_some() || kind.is_served() {
            document["status"] = lasting(kind, status);
        }
        found.insert(name.clone(), document);
    }
    Ok(found.into_values().collect())
}

/// The part of a status that is true without a daemon.
fn lasting(kind: Kind, status: Option<Value>) -> Value {
    match status {
        // Redemptions and certificates are on disk.
        Some(status)
            if !kind.is_served()
                || matches!(
                    kind,
                    Kind::AccessGrant | Kind::AccessToken | Kind::Certificate
                ) =>
        {
            status
        }
        Some(status) => json!({ "conditions": status["conditions"] }),
        None => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{ConditionState, ConditionType, Key, Namespace},
        store::Layout,
    };
    use std::fs;

    const LISTENER: &str = "apiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata: {name: NAME}\n\
                            spec: {routingKey: k, host: 127.0.0.1, port: PORT}\n";

    #[test]
    fn no_status_is_ready_unless_the_daemon_runs() {
        let root = tempfile::tempdir().unwrap();
        let namespace = Layout::root(root.path()).namespace(&Namespace::default_namespace());
        let input = namespace.input_resources();
        fs::create_dir_all(&input).unwrap();
        let write = |name: &str, port: &str| {
            let text = LISTENER.replace("NAME", name).replace("PORT", port);
            fs::write(input.join(format!("{name}.yaml")), text).unwrap();
        };
        write("served", "1");
        write("gone", "2");
        let mut dir = StatusDir::open(&namespace).unwrap();
        for document in reported(&namespace, Kind::Listener).unwrap() {
            let name = document["metadata"]["name"].as_str().unwrap();
            let key = Key::new(Kind::Listener, Name::new(name).unwrap());
            let draft = StatusDraft::of_listener(true)
                .with(ConditionType::Configured, ConditionState::True);
            dir.set(&key, document, draft, Timestamp::now());
        }
        assert!(dir.take_batch().unwrap().write().error.is_none());
        // Changes since the daemon ended.
        fs::remove_file(input.join("gone.yaml")).unwrap();
        write("added", "3");
        write("broken", "0");
        let states = |state| {
            let all = documents(&namespace, Kind::Listener, state).unwrap();
            let line = |v: &Value| {
                let name = v["metadata"]["name"].as_str().unwrap();
                let message = v["status"]["message"].as_str().unwrap_or_default();
                let phase = v["status"]["status"].as_str().unwrap_or_default();
                format!("{name} {phase} {message}")
            };
            all.iter().map(line).collect::<Vec<_>>()
        };
        let running = states(DaemonState::Running);
        assert!(
            running.contains(&"served Ready OK".to_owned()),
            "{running:?}"
        );
        assert!(running.contains(&"gone Ready OK".to_owned()), "{running:?}");
        let absent = states(DaemonState::Absent);
        assert_eq!(absent[0], "added Pending skupperd is not running");
        assert!(absent[1].starts_with("broken Error "), "{absent:?}");
        assert_eq!(absent[2..], ["served Pending skupperd is not running"]);
        for state in [DaemonState::Starting, DaemonState::Stopping] {
            let found = states(state);
            assert!(
                !found.iter().any(|line| line.contains("Ready")),
                "{found:?}"
            );
            let expected = format!("served Pending skupperd is {}", state.as_str());
            assert!(
                found.iter().any(|line| line.starts_with(&expected)),
                "{found:?}"
            );
        }
        let all = documents(&namespace, Kind::Listener, DaemonState::Absent).unwrap();
        let conditions = all[2]["status"]["conditions"].as_array().unwrap();
        assert!(!conditions.is_empty());
        assert!(
            conditions.iter().all(|c| c["status"] == "Unknown"),
            "{conditions:?}"
        );
        assert!(all[2]["status"].get("hasMatchingConnector").is_none());
    }
}
