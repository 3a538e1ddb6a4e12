//! `skupper issuer`

use super::{
    CommandResult, Failure,
    examples::examples,
    output::{self, Progress},
    show,
    target::{CommandTarget, POLL_INTERVAL},
    view::ViewArgs,
};
use crate::{pki::SITE_CA, store::DaemonState};
use anyhow::anyhow;
use clap::Subcommand;
use serde_json::Value;
use std::{
    thread,
    time::{Duration, Instant},
};

/// Longest time for skupperd to replace the CAs. It does so when it reads the change, within a second.
const REPLACE_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Replace the CAs of this site; certificates that the old CAs signed stay valid for an overlap
    #[command(after_help = examples(&[
        "skupper issuer rotate",
        "# Refuse all old certificates at once",
        "skupper issuer rotate --overlap 0",
    ]))]
    Rotate {
        /// Time for which the old CAs stay trusted, such as 90m or 720h; 0 ends their trust at once
        /// [default: that of the last rotation, or 720h]
        #[arg(long, value_name = "DURATION")]
        overlap: Option<String>,
    },
    /// Show the CAs that this site uses, own and supplied, and until when replaced ones are trusted
    #[command(after_help = examples(&["skupper issuer status", "skupper issuer status -o yaml"]))]
    Status {
        #[command(flatten)]
        view: ViewArgs,
    },
}

pub(super) fn run(target: &CommandTarget, verb: Verb) -> CommandResult {
    match verb {
        Verb::Rotate { overlap } => rotate(target, overlap.as_deref()),
        Verb::Status { view } => status(target, &view),
    }
}

/// Returns once the new CA is there, so that a link generated next has credentials of it.
fn rotate(target: &CommandTarget, overlap: Option<&str>) -> CommandResult {
    let replaced = site_ca(target)?;
    target.rotate_issuers(overlap)?;
    if replaced.is_some() && target.daemon_state()? == DaemonState::Running {
        let _progress = Progress::new("Waiting for the new CAs");
        let begin = Instant::now();
        while site_ca(target)? == replaced {
            if begin.elapsed() >= REPLACE_TIMEOUT {
                return Err(Failure::Failed(anyhow!(
                    "skupperd has not replaced {SITE_CA} after {} s: see its log",
                    REPLACE_TIMEOUT.as_secs()
                )));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
    output::print(
        "skupperd replaces the CAs of the site. Give linked sites new tokens or links before the \
         old CAs end; their times: skupper issuer status",
    )
}

/// Serial number of the CA that the site made for its links; `None` before it is made, and where the
/// user supplied it.
fn site_ca(target: &CommandTarget) -> Result<Option<Value>, Failure> {
    let all = target.issuers()?;
    let own = all
        .iter()
        .find(|issuer| issuer["name"] == SITE_CA && issuer["source"] == "own");
    Ok(own.map(|issuer| issuer["serial"].clone()))
}

fn status(target: &CommandTarget, view: &ViewArgs) -> CommandResult {
    view.show(|| target.issuers().map(Value::Array), screen)
}

fn screen(all: &Value) -> String {
    let all = all.as_array().map_or(&[][..], Vec::as_slice);
    if all.is_empty() {
        return "No issuers found".to_owned();
    }
    let row = |v: &Value| {
        let retired = v["retired"].as_array().into_iter().flatten();
        let until = retired
            .filter(|r| r["trusted"] == true)
            .map(|r| show::text(r, "/trustedUntil"));
        vec![
            show::text(v, "/name"),
            show::text(v, "/source"),
            match v["error"].as_str() {
                Some(error) => error.to_owned(),
                None => show::text(v, "/serial"),
            },
            show::text(v, "/expirationTime"),
            until.collect::<Vec<_>>().join(", "),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let header = [
        "NAME",
        "SOURCE",
        "SERIAL",
        "EXPIRES",
        "OLD-ONES-TRUSTED-UNTIL",
    ];
    output::columns(&header, &rows)
}
