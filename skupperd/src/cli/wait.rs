//! Waiting until skupperd has done what a command asked for.

use super::{CommandResult, Failure, output, target::CommandTarget};
use crate::{
    control::{WaitGoal, WaitOutcome},
    model::{Key, Kind, Name, parse_duration},
};
use anyhow::anyhow;
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::time::Duration;

/// The state to wait for. Their help is in [`help`], where it does not take a line each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum WaitLevel {
    #[value(alias = "false")]
    None,
    #[value(alias = "true")]
    Configured,
    Ready,
}

/// Options of verbs that change a resource.
#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    /// State to wait for: none, configured or ready
    #[arg(
        long,
        value_name = "STATE",
        value_enum,
        hide_possible_values = true,
        num_args = 0..=1,
        default_missing_value = "ready",
        require_equals = false
    )]
    wait: Option<WaitLevel>,
    /// Longest time to wait, such as 30s or 2m [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = timeout)]
    timeout: Option<Duration>,
}

/// The help of `--wait` after a change of a resource of this kind.
pub(super) fn help(kind: Kind) -> &'static str {
    match default_level(kind) {
        WaitLevel::None => {
            "State to wait for, if skupperd runs: none, configured (it is set up) or ready (it \
             works) [default: none]"
        }
        WaitLevel::Configured => {
            "State to wait for, if skupperd runs: none, configured (it is set up) or ready (it \
             works) [default: configured]"
        }
        WaitLevel::Ready => {
            "State to wait for, if skupperd runs: none, configured (it is set up) or ready (it \
             works) [default: ready]"
        }
    }
}

/// The help of `--wait` after a deletion.
pub(super) fn delete_help(kind: Kind) -> &'static str {
    match default_level(kind) {
        WaitLevel::None => "Wait until skupperd has removed it; none does not wait [default: none]",
        _ => "Wait until skupperd has removed it; none does not wait [default: ready]",
    }
}

/// Parses a duration above zero.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let found = parse_duration(text).filter(|d| !d.is_zero());
    found.ok_or_else(|| "expected a duration with a unit, such as 60s or 15m".to_owned())
}

/// Parses the longest time to wait, whose number may be one of seconds.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => duration(text),
    }
}

/// What a verb waits for without `--wait`.
fn default_level(kind: Kind) -> WaitLevel {
    match kind {
        // Their Configured condition is no earlier than Ready.
        Kind::Site | Kind::Link | Kind::RouterAccess | Kind::AccessGrant => WaitLevel::Ready,
        // They need a resource in another namespace, which its owner may create much later.
        Kind::AttachedConnector | Kind::AttachedConnectorBinding => WaitLevel::None,
        _ => WaitLevel::Configured,
    }
}

impl WaitArgs {
    fn level(&self, kind: Kind) -> WaitLevel {
        self.wait.unwrap_or_else(|| default_level(kind))
    }

    fn timeout_or(&self, seconds: u64) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(seconds))
    }

    /// Waits after a resource was written. `change`: the fields that were written.
    pub(super) fn written(
        &self,
        target: &CommandTarget,
        kind: Kind,
        name: &str,
        change: &Value,
        new: bool,
    ) -> CommandResult {
        let level = self.level(kind);
        if level == WaitLevel::None {
            return Ok(());
        }
        let ready = level == WaitLevel::Ready;
        let timeout = self.timeout_or(match (kind, new) {
            (Kind::Site, true) => 180,
            _ => 60,
        });
        let goal = WaitGoal::Applied { change, ready };
        let state = if ready { "ready" } else { "configured" };
        match target.wait(&resource_key(kind, name)?, goal, timeout)? {
            None => Ok(()),
            Some(WaitOutcome::Reached) => output::print(&format!("{kind} {name:?} is {state}")),
            Some(WaitOutcome::TimedOut(text)) => Err(timed_out(kind, name, state, timeout, &text)),
            Some(WaitOutcome::Refused(text)) => Err(Failure::Failed(anyhow!(
                "{} {name:?} is not {state}: {text}",
                noun(kind)
            ))),
        }
    }

    /// Waits after a resource was deleted.
    pub(super) fn deleted(&self, target: &CommandTarget, kind: Kind, name: &str) -> CommandResult {
        if self.level(kind) == WaitLevel::None {
            return Ok(());
        }
        let timeout = self.timeout_or(60);
        match target.wait(&resource_key(kind, name)?, WaitGoal::Gone, timeout)? {
            None | Some(WaitOutcome::Reached) => Ok(()),
            Some(WaitOutcome::TimedOut(text) | WaitOutcome::Refused(text)) => {
                Err(timed_out(kind, name, "deleted", timeout, &text))
            }
        }
    }
}

fn resource_key(kind: Kind, name: &str) -> Result<Key, Failure> {
    let name = Name::new(name).map_err(|e| anyhow!("{e}"))?;
    Ok(Key::new(kind, name))
}

fn noun(kind: Kind) -> String {
    kind.as_str().to_lowercase()
}

/// The error when the time is over, with what is missing.
fn timed_out(kind: Kind, name: &str, state: &str, timeout: Duration, text: &str) -> Failure {
    let (noun, seconds) = (noun(kind), timeout.as_secs_f64());
    Failure::Failed(anyhow!(
        "{noun} {name:?} is not {state} after {seconds} s: {text}"
    ))
}
