//! Waits for the effect of a change: reads the resource again at each signal of the daemon.

use super::{DaemonClient, Error, NAME, PATH, path::path};
use crate::{
    model::{ConditionType, Key, Namespace, Phase},
    operate::merge,
};
use serde_json::Value;
use std::{pin::Pin, task::Poll, time::Duration};
use tokio::time::{Instant, timeout_at};
use zbus::{
    Connection, MatchRule, MessageStream, export::futures_core::Stream, fdo, message::Type,
};

#[derive(Clone, Copy, Debug)]
pub enum WaitGoal<'a> {
    /// The resource is deleted.
    Gone,
    /// The daemon has applied these fields, and with `ready` the resource is Ready.
    Applied {
        /// The fields as they were written.
        change: &'a Value,
        /// Wait for the condition Ready in place of Configured.
        ready: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitOutcome {
    Reached,
    /// The time is over; with what is missing.
    TimedOut(String),
    /// The daemon cannot set the resource up; with the reason.
    Refused(String),
}

/// Time for which an error must last: the daemon retries a failed resource every second.
const FAULT_GRACE: Duration = Duration::from_secs(3);

enum GoalState {
    Reached,
    Missing(String),
    Fault(String),
}

impl DaemonClient {
    /// Waits until a resource reaches a goal.
    pub fn wait(
        &self,
        namespace: &Namespace,
        key: &Key,
        goal: WaitGoal<'_>,
        timeout: Duration,
    ) -> Result<WaitOutcome, Error> {
        self.runtime.block_on(async {
            let deadline = Instant::now() + timeout;
            let path = path(namespace, key);
            // Subscribe first: no change after the read is missed.
            let mut objects = signals(&self.connection, &path).await?;
            let mut fault: Option<(Instant, String)> = None;
            loop {
                let seen = document(&self.connection, &path).await?;
                let missing = match evaluate(goal, seen.as_ref()) {
                    GoalState::Reached => return Ok(WaitOutcome::Reached),
                    GoalState::Missing(text) => {
                        fault = None;
                        text
                    }
                    GoalState::Fault(text) => {
                        let since = fault.take().map_or_else(Instant::now, |(since, _)| since);
                        fault = Some((since, text.clone()));
                        text
                    }
                };
                let until = match &fault {
                    Some((since, _)) => deadline.min(*since + FAULT_GRACE),
                    None => deadline,
                };
                if timeout_at(until, objects.next()).await.is_err() {
                    return Ok(match fault {
                        Some((_, text)) => WaitOutcome::Refused(text),
                        None => WaitOutcome::TimedOut(missing),
                    });
                }
            }
        })
    }
}

/// Signals of a resource, of the object manager, and of the owner of the bus name.
struct Signals([MessageStream; 3]);

impl Signals {
    /// Waits for a signal. Cancel-safe: signals stay queued.
    async fn next(&mut self) {
        std::future::poll_fn(|context| {
            let mut any = false;
            for stream in &mut self.0 {
                // All queued signals are one reason to read again. None is the end of the connection,
                // which the read reports.
                while let Poll::Ready(signal) = Pin::new(&mut *stream).poll_next(context) {
                    any = true;
                    if signal.is_none() {
                        break;
                    }
                }
            }
            if any { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

async fn signals(connection: &Connection, path: &str) -> Result<Signals, Error> {
    let signal = || MatchRule::builder().msg_type(Type::Signal);
    let properties = signal()
        .sender(NAME)
        .path(path)
        .interface("org.freedesktop.DBus.Properties")
        .build()?;
    let objects = signal()
        .sender(NAME)
        .path(PATH)
        .interface("org.freedesktop.DBus.ObjectManager")
        .build()?;
    let owner = signal()
        .sender("org.freedesktop.DBus")
        .member("NameOwnerChanged")
        .arg(0, NAME)
        .build()?;
    let stream = async |rule| MessageStream::for_match_rule(rule, connection, None).await;
    Ok(Signals([
        stream(properties).await?,
        stream(objects).await?,
        stream(owner).await?,
    ]))
}

/// The resource with its status from the daemon; none if it does not exist.
async fn document(connection: &Connection, path: &str) -> Result<Option<Value>, Error> {
    let reply = connection
        .call_method(
            Some(NAME),
            path,
            Some("org.freedesktop.DBus.Properties"),
            "Get",
            &("io.skupper.Skupper1.Resource", "Document"),
        )
        .await;
    let reply = match reply {
        Ok(reply) => reply,
        Err(zbus::Error::FDO(error)) => match *error {
            fdo::Error::UnknownObject(_)
            | fdo::Error::UnknownInterface(_)
            | fdo::Error::UnknownProperty(_)
            | fdo::Error::UnknownMethod(_) => return Ok(None),
            fdo::Error::ServiceUnknown(_) | fdo::Error::NameHasNoOwner(_) => {
                let text = "skupperd stopped meanwhile; the change takes effect when it runs";
                return Err(Error::Failed(text.to_owned()));
            }
            other => return Err(zbus::Error::from(other).into()),
        },
        Err(error) => return Err(error.into()),
    };
    let body = reply.body();
    let value: zbus::OwnedVariant = body.deserialize()?;
    let text = String::try_from(value)?;
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|e| Error::Failed(format!("skupperd returned invalid JSON: {e}")))
}

fn evaluate(goal: WaitGoal<'_>, seen: Option<&Value>) -> GoalState {
    let unseen = || GoalState::Missing("skupperd has not applied it yet".to_owned());
    let (change, ready) = match goal {
        WaitGoal::Gone if seen.is_none() => return GoalState::Reached,
        WaitGoal::Gone => return GoalState::Missing("it still exists".to_owned()),
        WaitGoal::Applied { change, ready } => (change, ready),
    };
    let Some(seen) = seen else {
        return unseen();
    };
    let mut with = seen.clone();
    merge(&mut with, change);
    if with != *seen {
        // The version before the change, or a change that the daemon refused.
        return refused(seen).unwrap_or_else(unseen);
    }
    let wanted = if ready {
        ConditionType::Ready
    } else {
        ConditionType::Configured
    };
    let found = condition(seen, wanted);
    if found.is_some_and(|c| c["status"] == "True") {
        return GoalState::Reached;
    }
    refused(seen).unwrap_or_else(|| {
        let text = found.map_or(&seen["status"]["message"], |c| &c["message"]);
        GoalState::Missing(text.as_str().unwrap_or("it has no status yet").to_owned())
    })
}

/// The error if the daemon cannot set the resource up.
fn refused(seen: &Value) -> Option<GoalState> {
    let configured = condition(seen, ConditionType::Configured)?;
    let wrong = configured["reason"] == Phase::Error.as_str();
    let text = configured["message"].as_str().unwrap_or_default();
    wrong.then(|| GoalState::Fault(text.to_owned()))
}

fn condition(seen: &Value, kind: ConditionType) -> Option<&Value> {
    let all = seen.pointer("/status/conditions")?.as_array()?;
    all.iter().find(|c| c["type"] == kind.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn listener_document(port: u16, configured: (&str, &str, &str), ready: (&str, &str)) -> Value {
        let (status, reason, message) = configured;
        json!({
            "spec": {"port": port, "host": "h"},
            "status": {"message": ready.1, "conditions": [
                {"type": "Configured", "status": status, "reason": reason, "message": message},
                {"type": "Ready", "status": ready.0, "reason": "Pending", "message": ready.1},
            ]},
        })
    }

    fn outcome(ready: bool, seen: Option<&Value>) -> String {
        let change = json!({"spec": {"port": 80}});
        let goal = WaitGoal::Applied {
            change: &change,
            ready,
        };
        match evaluate(goal, seen) {
            GoalState::Reached => "reached".to_owned(),
            GoalState::Missing(text) => format!("missing: {text}"),
            GoalState::Fault(text) => format!("fault: {text}"),
        }
    }

    #[test]
    fn waiting_ends_when_the_written_fields_are_applied() {
        let not_yet = "missing: skupperd has not applied it yet";
        assert_eq!(outcome(false, None), not_yet);
        let good = ("True", "Ready", "OK");
        let pending = listener_document(80, good, ("False", "No matching connectors"));
        assert_eq!(outcome(false, Some(&pending)), "reached");
        assert_eq!(
            outcome(true, Some(&pending)),
            "missing: No matching connectors"
        );
        // Ready, but still with the old port.
        assert_eq!(
            outcome(true, Some(&listener_document(79, good, ("True", "OK")))),
            not_yet
        );
        assert_eq!(
            outcome(true, Some(&listener_document(80, good, ("True", "OK")))),
            "reached"
        );
        let fault = listener_document(80, ("False", "Error", "in use"), ("False", "in use"));
        assert_eq!(outcome(true, Some(&fault)), "fault: in use");
        assert!(matches!(evaluate(WaitGoal::Gone, None), GoalState::Reached));
        assert!(matches!(
            evaluate(WaitGoal::Gone, Some(&fault)),
            GoalState::Missing(_)
        ));
    }
}
