//! Waiting for the effect of what was asked for.

use super::{Failure, Outcome, output, place::Place};
use crate::{
    control::{Goal, Waited},
    model::{Key, Kind, Name, parse_duration},
};
use anyhow::anyhow;
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::time::Duration;

/// Said instead of waiting.
pub(super) const NO_SITE: &str =
    "There is no site in the namespace yet; it takes effect when there is one.";

/// How far to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Level {
    /// Not at all
    #[value(alias = "false")]
    None,
    /// Until it is set up
    #[value(alias = "true")]
    Configured,
    /// Until it works
    Ready,
}

/// Flags of verbs that change something.
#[derive(Debug, Args)]
pub(super) struct Wait {
    /// What to wait for, where skupperd runs [default: of what makes links ready, of what needs
    /// another's consent none, of others configured]
    #[arg(
        long,
        value_enum,
        num_args = 0..=1,
        default_missing_value = "ready",
        require_equals = false
    )]
    wait: Option<Level>,
    /// Longest time to wait [default: 60s; for a new site 3m]
    #[arg(long, value_parser = duration)]
    timeout: Option<Duration>,
}

/// A length of time that is one.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let found = parse_duration(text).filter(|d| !d.is_zero());
    found.ok_or_else(|| "expected a duration such as 60s or 15m".to_owned())
}

/// What a verb waits for when it is not told.
fn level(kind: Kind) -> Level {
    match kind {
        // Of these nothing is set up before they work.
        Kind::Site | Kind::Link | Kind::RouterAccess | Kind::AccessGrant => Level::Ready,
        // These want another's consent, who may take their time.
        Kind::AttachedConnector | Kind::AttachedConnectorBinding => Level::None,
        _ => Level::Configured,
    }
}

impl Wait {
    fn level(&self, kind: Kind) -> Level {
        self.wait.unwrap_or_else(|| level(kind))
    }

    fn most(&self, or: u64) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(or))
    }

    /// After a resource was written: `change` is what was.
    pub(super) fn written(
        &self,
        place: &Place,
        kind: Kind,
        name: &str,
        change: &Value,
        new: bool,
    ) -> Outcome {
        let level = self.level(kind);
        if level == Level::None {
            return Ok(());
        }
        let ready = level == Level::Ready;
        let most = self.most(match (kind, new) {
            (Kind::Site, true) => 180,
            _ => 60,
        });
        let goal = Goal::Applied { change, ready };
        let state = if ready { "ready" } else { "configured" };
        match place.wait(&key(kind, name)?, goal, most)? {
            None => Ok(()),
            Some(Waited::Reached) => output::print(&format!("{kind} {name:?} is {state}")),
            Some(Waited::Late(text)) => Err(late(kind, name, state, most, &text)),
            Some(Waited::Refused(text)) => Err(Failure::Failed(anyhow!(
                "{} {name:?} is not {state}: {text}",
                noun(kind)
            ))),
        }
    }

    /// After a resource was deleted.
    pub(super) fn deleted(&self, place: &Place, kind: Kind, name: &str) -> Outcome {
        if self.level(kind) == Level::None {
            return Ok(());
        }
        let most = self.most(60);
        match place.wait(&key(kind, name)?, Goal::Gone, most)? {
            None | Some(Waited::Reached) => Ok(()),
            Some(Waited::Late(text) | Waited::Refused(text)) => {
                Err(late(kind, name, "deleted", most, &text))
            }
        }
    }
}

fn key(kind: Kind, name: &str) -> Result<Key, Failure> {
    let name = Name::new(name).map_err(|e| anyhow!("{e}"))?;
    Ok(Key::new(kind, name))
}

fn noun(kind: Kind) -> String {
    kind.as_str().to_lowercase()
}

/// What is missing at the end.
fn late(kind: Kind, name: &str, state: &str, most: Duration, text: &str) -> Failure {
    let (noun, seconds) = (noun(kind), most.as_secs_f64());
    Failure::Failed(anyhow!(
        "{noun} {name:?} is not {state} after {seconds} s: {text}"
    ))
}
