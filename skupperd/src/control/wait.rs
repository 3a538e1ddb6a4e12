//! Waiting for the effect of a change: signals of the daemon say when to look again.

use super::{Client, Error, NAME, PATH, path::path};
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

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub enum Goal<'a> {
    /// It is not there any more.
    Gone,
    /// These fields are what the daemon has set up; `ready`: and it works.
    Applied {
        /// The fields, as they were written.
        change: &'a Value,
        /// All its conditions hold.
        ready: bool,
    },
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waited {
    /// It is so.
    Reached,
    /// It is not so yet, and what is missing.
    Late(String),
    /// The daemon can not set it up, and why.
    Refused(String),
}

/// Time for a fault to pass: what the daemon can not set up it tries again each second.
const FAULT: Duration = Duration::from_secs(3);

enum State {
    Reached,
    Missing(String),
    Fault(String),
}

impl Client {
    /// Waits until a resource is as wanted.
    pub fn wait(
        &self,
        namespace: &Namespace,
        key: &Key,
        goal: Goal<'_>,
        most: Duration,
    ) -> Result<Waited, Error> {
        self.runtime.block_on(async {
            let deadline = Instant::now() + most;
            let path = path(namespace, key);
            // Signals first: what changes after the look is not missed.
            let mut objects = signals(&self.connection, &path).await?;
            let mut fault: Option<(Instant, String)> = None;
            loop {
                let seen = document(&self.connection, &path).await?;
                let missing = match judge(goal, seen.as_ref()) {
                    State::Reached => return Ok(Waited::Reached),
                    State::Missing(text) => {
                        fault = None;
                        text
                    }
                    State::Fault(text) => {
                        let since = fault.take().map_or_else(Instant::now, |(since, _)| since);
                        fault = Some((since, text.clone()));
                        text
                    }
                };
                let until = match &fault {
                    Some((since, _)) => deadline.min(*since + FAULT),
                    None => deadline,
                };
                if timeout_at(until, objects.next()).await.is_err() {
                    return Ok(match fault {
                        Some((_, text)) => Waited::Refused(text),
                        None => Waited::Late(missing),
                    });
                }
            }
        })
    }
}

/// Signals that tell of a resource, or of the daemon itself.
struct Signals([MessageStream; 3]);

impl Signals {
    /// Waits for one. Cancel-safe: what was not taken stays.
    async fn next(&mut self) {
        std::future::poll_fn(|context| {
            let mut any = false;
            for stream in &mut self.0 {
                // Several at once are one reason to look. After the last there is the end of the bus,
                // which the look finds.
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

/// The resource with its status, as the daemon shows it.
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
                let text =
                    "skupperd has ended meanwhile; what was written is effective when it runs";
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
        .map_err(|e| Error::Failed(format!("skupperd gives what is not JSON: {e}")))
}

fn judge(goal: Goal<'_>, seen: Option<&Value>) -> State {
    let unseen = || State::Missing("skupperd has not taken it up yet".to_owned());
    let (change, ready) = match goal {
        Goal::Gone if seen.is_none() => return State::Reached,
        Goal::Gone => return State::Missing("it is still there".to_owned()),
        Goal::Applied { change, ready } => (change, ready),
    };
    let Some(seen) = seen else {
        return unseen();
    };
    let mut with = seen.clone();
    merge(&mut with, change);
    if with != *seen {
        // As it was before, or a form of it that is refused.
        return refused(seen).unwrap_or_else(unseen);
    }
    let wanted = if ready {
        ConditionType::Ready
    } else {
        ConditionType::Configured
    };
    let found = condition(seen, wanted);
    if found.is_some_and(|c| c["status"] == "True") {
        return State::Reached;
    }
    refused(seen).unwrap_or_else(|| {
        let text = found.map_or(&seen["status"]["message"], |c| &c["message"]);
        State::Missing(text.as_str().unwrap_or("it has no status yet").to_owned())
    })
}

/// The daemon says that it can not set it up.
fn refused(seen: &Value) -> Option<State> {
    let configured = condition(seen, ConditionType::Configured)?;
    let wrong = configured["reason"] == Phase::Error.as_str();
    let text = configured["message"].as_str().unwrap_or_default();
    wrong.then(|| State::Fault(text.to_owned()))
}

fn condition(seen: &Value, kind: ConditionType) -> Option<&Value> {
    let all = seen.pointer("/status/conditions")?.as_array()?;
    all.iter().find(|c| c["type"] == kind.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn seen(port: u16, configured: (&str, &str, &str), ready: (&str, &str)) -> Value {
        let (status, reason, message) = configured;
        json!({
            "spec": {"port": port, "host": "h"},
            "status": {"message": ready.1, "conditions": [
                {"type": "Configured", "status": status, "reason": reason, "message": message},
                {"type": "Ready", "status": ready.0, "reason": "Pending", "message": ready.1},
            ]},
        })
    }

    fn told(ready: bool, seen: Option<&Value>) -> String {
        let change = json!({"spec": {"port": 80}});
        let goal = Goal::Applied {
            change: &change,
            ready,
        };
        match judge(goal, seen) {
            State::Reached => "reached".to_owned(),
            State::Missing(text) => format!("missing: {text}"),
            State::Fault(text) => format!("fault: {text}"),
        }
    }

    #[test]
    fn what_is_waited_for_is_what_was_written() {
        let not_yet = "missing: skupperd has not taken it up yet";
        assert_eq!(told(false, None), not_yet);
        let good = ("True", "Ready", "OK");
        let pending = seen(80, good, ("False", "No matching connectors"));
        assert_eq!(told(false, Some(&pending)), "reached");
        assert_eq!(
            told(true, Some(&pending)),
            "missing: No matching connectors"
        );
        // All is well, with the port that it had before.
        assert_eq!(told(true, Some(&seen(79, good, ("True", "OK")))), not_yet);
        assert_eq!(told(true, Some(&seen(80, good, ("True", "OK")))), "reached");
        let fault = seen(80, ("False", "Error", "in use"), ("False", "in use"));
        assert_eq!(told(true, Some(&fault)), "fault: in use");
        assert!(matches!(judge(Goal::Gone, None), State::Reached));
        assert!(matches!(judge(Goal::Gone, Some(&fault)), State::Missing(_)));
    }
}
