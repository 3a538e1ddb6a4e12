//! Statuses and conditions, in upstream's form.

use serde_json::{Map, Value, json};

/// State of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It holds.
    True,
    /// It does not hold yet; with a text when there is more to say than "Pending".
    Pending(Option<String>),
    /// It can not hold, and why.
    Error(String),
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Such as `Configured`.
    pub kind: &'static str,
    /// State.
    pub state: State,
}

impl Condition {
    fn message(&self) -> String {
        match &self.state {
            State::True => "OK".to_owned(),
            State::Pending(Some(text)) | State::Error(text) => text.clone(),
            State::Pending(None) => "Pending".to_owned(),
        }
    }

    fn reason(&self) -> &'static str {
        match self.state {
            State::True => "Ready",
            State::Pending(_) => "Pending",
            State::Error(_) => "Error",
        }
    }
}

/// Required conditions in order.
pub type Conditions = Vec<Condition>;

/// A resource's status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Required conditions in order.
    pub conditions: Conditions,
    /// Fields of the kind.
    pub fields: Map<String, Value>,
}

impl Status {
    /// A status with one failed condition.
    pub fn error(text: impl Into<String>) -> Self {
        let condition = Condition {
            kind: "Configured",
            state: State::Error(text.into()),
        };
        Self {
            conditions: vec![condition],
            fields: Map::new(),
        }
    }

    /// `Ready`, `Pending` or `Error`, and its text: the first condition that does not hold.
    pub fn summary(&self) -> (&'static str, String) {
        let first = self.conditions.iter().find(|c| c.state != State::True);
        first.map_or(("Ready", "OK".to_owned()), |c| (c.reason(), c.message()))
    }

    /// As a status file holds it. Conditions that stand as in `previous` keep their time.
    pub fn to_json(&self, now: &str, previous: Option<&Value>) -> Value {
        let since = |kind: &str, status: &str| {
            let list = previous?.get("conditions")?.as_array()?;
            let same = list
                .iter()
                .find(|c| c["type"] == kind && c["status"] == status)?;
            same["lastTransitionTime"].as_str().map(str::to_owned)
        };
        let (status, message) = self.summary();
        let condition = |kind: &str, holds: bool, reason: &str, message: &str| {
            let holds = if holds { "True" } else { "False" };
            json!({
                "type": kind,
                "status": holds,
                "reason": reason,
                "message": message,
                "observedGeneration": 1,
                "lastTransitionTime": since(kind, holds).unwrap_or_else(|| now.to_owned()),
            })
        };
        let mut conditions: Vec<Value> = self
            .conditions
            .iter()
            .map(|c| condition(c.kind, c.state == State::True, c.reason(), &c.message()))
            .collect();
        conditions.push(condition("Ready", status == "Ready", status, &message));
        let mut object = self.fields.clone();
        object.insert("status".to_owned(), json!(status));
        object.insert("message".to_owned(), json!(message));
        object.insert("conditions".to_owned(), Value::Array(conditions));
        Value::Object(object)
    }
}
