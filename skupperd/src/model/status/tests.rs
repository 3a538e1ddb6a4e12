use super::*;
use crate::model::{ListenerDetails, SiteDetails};
use serde_json::{Value, json};

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    time("2026-03-04T05:06:07.891Z")
}

#[test]
fn the_first_that_is_missing_or_false_decides() {
    use ConditionType::{Configured, Resolved, Running};
    let summary = |draft: StatusDraft| {
        let (phase, message) = draft.summary();
        (phase, message)
    };
    let site = || StatusDraft::new(Kind::Site, true);
    let pending = |text: &str| (Phase::Pending, text.to_owned());
    assert_eq!(summary(site()), pending("Not Configured"));
    let draft = site().with(Configured, ConditionState::True);
    assert_eq!(summary(draft.clone()), pending("Not Running"));
    let draft = draft.with(Running, ConditionState::Pending(None));
    assert_eq!(summary(draft.clone()), pending("Pending"));
    // A later error does not come before an earlier wait.
    let draft = draft.with(Resolved, ConditionState::Error("port taken".to_owned()));
    assert_eq!(summary(draft.clone()), pending("Pending"));
    let draft = draft.with(Running, ConditionState::True);
    assert_eq!(
        summary(draft.clone()),
        (Phase::Error, "port taken".to_owned())
    );
    let draft = draft.with(Resolved, ConditionState::when(true, "unused"));
    assert_eq!(summary(draft), (Phase::Ready, "OK".to_owned()));
    // Without link access nothing needs to be resolved.
    let closed = StatusDraft::new(Kind::Site, false).with(Configured, ConditionState::True);
    assert_eq!(
        summary(closed.with(Running, ConditionState::True)).0,
        Phase::Ready
    );
    assert_eq!(
        summary(StatusDraft::error(Kind::Link, "no")),
        (Phase::Error, "no".to_owned())
    );
    let unserved = summary(StatusDraft::unserved(Kind::SecuredAccess));
    let text = "SecuredAccess has no effect on a host; it is stored unchanged";
    assert_eq!(unserved, (Phase::Ready, text.to_owned()));
}

impl StatusDraft {
    /// Of a listener that is applied, with or without a connector.
    pub(crate) fn of_listener(matched: bool) -> Self {
        Self::new(Kind::Listener, false)
            .with(ConditionType::Configured, ConditionState::True)
            .with(
                ConditionType::Matched,
                ConditionState::when(matched, "No matching connectors"),
            )
            .details(ListenerDetails {
                has_matching_connector: matched,
                ..ListenerDetails::default()
            })
    }
}

#[test]
fn statuses_have_the_form_of_skupper() {
    let status = StatusDraft::of_listener(false).finish(None, 2, now());
    let at = "2026-03-04T05:06:07Z";
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "observedGeneration": 2, "lastTransitionTime": at,
        })
    };
    let expected = json!({
        "status": "Pending",
        "message": "No matching connectors",
        "hasMatchingConnector": false,
        "conditions": [
            condition("Configured", "True", "Ready", "OK"),
            condition("Matched", "False", "Pending", "No matching connectors"),
            condition("Ready", "False", "Pending", "No matching connectors"),
        ],
    });
    let value = serde_json::to_value(&status).unwrap();
    assert_eq!(value, expected);
    let again = Status::read(Kind::Listener, &value).unwrap();
    assert_eq!(serde_json::to_value(&again).unwrap(), expected);
    let typed: Status<ListenerDetails> = serde_json::from_value(value).unwrap();
    assert!(!typed.details.has_matching_connector);
}

#[test]
fn an_unchanged_condition_keeps_its_time() {
    let first = StatusDraft::of_listener(false).finish(None, 1, time("2026-01-01T00:00:00Z"));
    let second =
        StatusDraft::of_listener(true).finish(Some(&first), 1, time("2026-01-02T00:00:00Z"));
    let third =
        StatusDraft::of_listener(true).finish(Some(&second), 1, time("2026-01-03T00:00:00Z"));
    let days: Vec<i8> = third
        .conditions
        .iter()
        .map(|c| {
            c.last_transition_time
                .strftime("%d")
                .to_string()
                .parse()
                .unwrap()
        })
        .collect();
    // Configured since the first, Matched and Ready since the second.
    assert_eq!(days, [1, 2, 2]);
    assert_eq!(third.message, "OK");
}

#[test]
fn statuses_written_by_skupper_are_read() {
    let value = json!({
        "status": "Ready", "message": "OK", "sitesInNetwork": 2, "defaultIssuer": "skupper-site-ca",
        "controller": {"name": "x"},
        "conditions": [{
            "type": "Running", "status": "True", "reason": "Ready", "message": "OK",
            "lastTransitionTime": "2026-02-03T04:05:06Z",
        }],
        "network": [{
            "id": "1", "name": "west", "links": [{"name": "l", "operational": true}],
            "services": [{"routingKey": "db", "connectors": ["a"]}],
        }],
    });
    let status = Status::read(Kind::Site, &value).unwrap();
    let Details::Site(site) = &status.details else {
        panic!("{status:?}")
    };
    assert_eq!(
        (
            site.sites_in_network,
            site.network[0].services[0].connectors.len()
        ),
        (2, 1)
    );
    assert_eq!(status.conditions[0].observed_generation, 0);
    assert_eq!(
        Status::read(Kind::Link, &json!({})).unwrap().status,
        Phase::Pending
    );
    assert!(Status::read(Kind::Site, &json!({"status": "Sleepy"})).is_err());
    assert!(Status::read(Kind::Site, &Value::from(1)).is_err());
}

#[test]
fn kinds_without_fields_of_their_own() {
    let status = StatusDraft::new(Kind::Secret, false)
        .with(ConditionType::Configured, ConditionState::True)
        .finish(None, 1, now());
    let value = serde_json::to_value(&status).unwrap();
    let mut keys: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    assert_eq!(keys, ["conditions", "message", "status"]);
    let site = SiteDetails {
        sites_in_network: 1,
        ..Default::default()
    };
    assert_eq!(
        serde_json::to_value(&site).unwrap(),
        json!({"sitesInNetwork": 1})
    );
}
