//! Conditions, and how they add up to a status.

use super::{Details, Kind};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConditionType {
    /// The resource has been applied.
    Configured,
    /// Its address is known.
    Resolved,
    /// The router runs.
    Running,
    /// The other side of the routing key is there.
    Matched,
    /// A grant has its code and deadline.
    Processed,
    /// A token was turned into a link.
    Redeemed,
    /// The link is up.
    Operational,
    /// All that are required are true.
    Ready,
}

impl ConditionType {
    /// As a status writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "Configured",
            Self::Resolved => "Resolved",
            Self::Running => "Running",
            Self::Matched => "Matched",
            Self::Processed => "Processed",
            Self::Redeemed => "Redeemed",
            Self::Operational => "Operational",
            Self::Ready => "Ready",
        }
    }

    /// Conditions that a resource needs for being ready, in the order in which they are looked at.
    /// `link_access`: of a Site, whether the site accepts links.
    pub fn required(kind: Kind, link_access: bool) -> &'static [Self] {
        match kind {
            Kind::Site if link_access => &[Self::Configured, Self::Running, Self::Resolved],
            Kind::Site => &[Self::Configured, Self::Running],
            Kind::Link => &[Self::Configured, Self::Operational],
            Kind::Listener | Kind::Connector | Kind::AttachedConnectorBinding => {
                &[Self::Configured, Self::Matched]
            }
            Kind::MultiKeyListener => &[Self::Configured, Self::Operational],
            Kind::RouterAccess => &[Self::Configured, Self::Resolved],
            Kind::AccessGrant => &[Self::Processed, Self::Resolved],
            Kind::AccessToken => &[Self::Redeemed],
            _ => &[Self::Configured],
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

/// State of a resource, and reason of a condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    Ready,
    /// Waits for something.
    #[default]
    Pending,
    /// Needs action by the operator.
    Error,
}

impl Phase {
    /// As a status writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Pending => "Pending",
            Self::Error => "Error",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// State of a condition, without its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConditionState {
    True,
    /// True, with a message.
    Noted(String),
    /// Not yet true; with a message other than "Pending", if any.
    Pending(Option<String>),
    /// It can not hold, and why.
    Error(String),
}

impl ConditionState {
    /// True, or pending with a text.
    pub fn when(holds: bool, otherwise: &str) -> Self {
        if holds {
            Self::True
        } else {
            Self::Pending(Some(otherwise.to_owned()))
        }
    }

    fn reason(&self) -> Phase {
        match self {
            Self::True | Self::Noted(_) => Phase::Ready,
            Self::Pending(_) => Phase::Pending,
            Self::Error(_) => Phase::Error,
        }
    }

    fn message(&self) -> &str {
        match self {
            Self::True => "OK",
            Self::Noted(text) | Self::Pending(Some(text)) | Self::Error(text) => text,
            Self::Pending(None) => "Pending",
        }
    }
}

/// A condition, as a status holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    pub status: ConditionStatus,
    pub reason: Phase,
    /// Why, in words.
    #[serde(default)]
    pub message: String,
    /// Generation of the resource that was looked at.
    #[serde(default)]
    pub observed_generation: i64,
    /// When `status` changed last.
    #[serde(serialize_with = "seconds")]
    pub last_transition_time: Timestamp,
}

/// RFC 3339 without fractions, as Kubernetes writes times.
fn seconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    let fraction = SignedDuration::from_nanos(i64::from(time.subsec_nanosecond()));
    serializer.collect_str(&time.checked_sub(fraction).unwrap_or(*time))
}

/// A resource's status, as its status file holds it. `D`: fields of its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status<D = Details> {
    /// Fields of the kind.
    #[serde(flatten)]
    pub details: D,
    #[serde(default)]
    pub status: Phase,
    /// State, in words.
    #[serde(default)]
    pub message: String,
    /// Conditions, the one called Ready last.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// What was accepted and has no effect here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Status {
    /// Reads the status of a kind from a status file's `status`.
    pub fn read(kind: Kind, status: &serde_json::Value) -> Result<Self, serde_json::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Common {
            status: Phase,
            message: String,
            conditions: Vec<Condition>,
            notes: Vec<String>,
        }
        let Common {
            status: phase,
            message,
            conditions,
            notes,
        } = Common::deserialize(status)?;
        Ok(Self {
            details: Details::read(kind, status)?,
            status: phase,
            message,
            conditions,
            notes,
        })
    }
}

/// Current conditions and details of a resource; [`StatusDraft::finish`] makes the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusDraft {
    required: &'static [ConditionType],
    conditions: Vec<(ConditionType, ConditionState)>,
    details: Details,
    notes: Vec<String>,
}

impl StatusDraft {
    /// Nothing is known yet: pending. `link_access`: of a Site, whether the site accepts links.
    pub fn new(kind: Kind, link_access: bool) -> Self {
        Self {
            required: ConditionType::required(kind, link_access),
            conditions: Vec::new(),
            details: Details::default(),
            notes: Vec::new(),
        }
    }

    /// A resource that can not be set up.
    pub fn error(kind: Kind, text: impl Into<String>) -> Self {
        Self::new(kind, false).with(
            ConditionType::Configured,
            ConditionState::Error(text.into()),
        )
    }

    /// A resource of a kind that is kept and that a host has no use for.
    pub fn unserved(kind: Kind) -> Self {
        let text = format!("{kind} has no effect on a host; it is stored unchanged");
        Self::new(kind, false).with(ConditionType::Configured, ConditionState::Noted(text))
    }

    #[must_use]
    pub fn with(mut self, kind: ConditionType, state: ConditionState) -> Self {
        match self.conditions.iter_mut().find(|(k, _)| *k == kind) {
            Some((_, old)) => *old = state,
            None => self.conditions.push((kind, state)),
        }
        self
    }

    /// Sets the fields of the kind.
    #[must_use]
    pub fn details(mut self, details: impl Into<Details>) -> Self {
        self.details = details.into();
        self
    }

    /// Sets what was accepted and has no effect here.
    #[must_use]
    pub fn notes(mut self, notes: Vec<String>) -> Self {
        self.notes = notes;
        self
    }

    /// The conditions added up: the first required one that is absent or does not hold decides.
    pub fn summary(&self) -> (Phase, String) {
        for required in self.required {
            match self.conditions.iter().find(|(kind, _)| kind == required) {
                None => return (Phase::Pending, format!("Not {required}")),
                Some((_, ConditionState::True)) => {}
                Some((_, state)) => return (state.reason(), state.message().to_owned()),
            }
        }
        (Phase::Ready, ConditionState::True.message().to_owned())
    }

    /// The status. A condition whose `status` is as in `previous` keeps its time.
    pub fn finish(self, previous: Option<&Status>, generation: i64, now: Timestamp) -> Status {
        let (status, message) = self.summary();
        let condition = |kind: ConditionType, reason: Phase, message: &str| {
            let holds = match reason {
                Phase::Ready => ConditionStatus::True,
                _ => ConditionStatus::False,
            };
            let before = previous.and_then(|p| p.conditions.iter().find(|c| c.kind == kind));
            let since = before
                .filter(|c| c.status == holds)
                .map(|c| c.last_transition_time);
            Condition {
                kind,
                status: holds,
                reason,
                message: message.to_owned(),
                observed_generation: generation,
                last_transition_time: since.unwrap_or(now),
            }
        };
        let mut conditions: Vec<Condition> = self
            .conditions
            .iter()
            .map(|(kind, state)| condition(*kind, state.reason(), state.message()))
            .collect();
        conditions.push(condition(ConditionType::Ready, status, &message));
        Status {
            details: self.details,
            status,
            message,
            conditions,
            notes: self.notes,
        }
    }
}

#[cfg(test)]
mod tests;
