//! Issuing and redeeming tokens. Both wait for the daemon, also where it is reached through files.

use super::{Backend, CommandTarget, with_file_name};
use crate::{
    cli::Failure,
    control::{WaitGoal, WaitOutcome},
    model::{Key, Kind, Name, Phase},
    operate::{self, GrantOptions},
    store::DaemonState,
};
use anyhow::anyhow;
use serde_json::Value;
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// Interval between two reads of a status file.
pub(in crate::cli) const POLL_INTERVAL: Duration = Duration::from_millis(50);

pub(in crate::cli) struct IssuedToken {
    pub(in crate::cli) name: String,
    pub(in crate::cli) token: String,
    pub(in crate::cli) expires: String,
}

impl CommandTarget {
    /// Writes a grant, waits until the daemon serves it, and returns its token.
    pub(in crate::cli) fn issue_token(
        &self,
        options: GrantOptions,
        cost: u32,
        timeout: Duration,
    ) -> Result<IssuedToken, Failure> {
        match self.backend()? {
            Backend::Files(_) => self.issue_token_on_files(options, cost, timeout),
            Backend::Daemon(client) => {
                let token = client.issue_token(self.name(), &options, cost, timeout)?;
                let name = token_name(&token)?;
                let grants = client.list(self.name(), Kind::AccessGrant)?;
                let grant = grants.iter().find(|v| v["metadata"]["name"] == *name);
                let expires = grant.and_then(|v| v["status"]["expirationTime"].as_str());
                Ok(IssuedToken {
                    expires: expires.unwrap_or_default().to_owned(),
                    name,
                    token,
                })
            }
        }
    }

    fn issue_token_on_files(
        &self,
        options: GrantOptions,
        cost: u32,
        timeout: Duration,
    ) -> Result<IssuedToken, Failure> {
        let name = operate::grant(&self.dir, options)?;
        let begin = Instant::now();
        let served = loop {
            let statuses = self.dir.statuses(Kind::AccessGrant)?;
            match operate::grant_state(&name, statuses.get(&name)) {
                Ok(Ok(details)) => break Ok(details),
                Ok(Err(last)) if begin.elapsed() >= timeout => {
                    let seconds = timeout.as_secs_f64();
                    break Err(Failure::Failed(anyhow!(
                        "grant {name:?} is not ready after {seconds} s: {last}"
                    )));
                }
                Ok(Err(_)) => std::thread::sleep(POLL_INTERVAL),
                Err(error) => break Err(error.into()),
            }
        };
        let details = match served {
            Ok(details) => details,
            Err(error) => {
                // The code was not handed out, so the grant cannot be redeemed.
                operate::remove(&mut self.dir.edit()?, Kind::AccessGrant, &name)?;
                return Err(error);
            }
        };
        Ok(IssuedToken {
            name: name.to_string(),
            expires: details.expiration_time.clone(),
            token: operate::token(&self.dir, name, details, cost)?,
        })
    }

    /// Redeems the token in a text. Returns the name of the link.
    pub(in crate::cli) fn redeem_token(&self, path: &Path, text: &str) -> Result<Name, Failure> {
        match self.backend()? {
            Backend::Files(_) => {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                Ok(runtime.block_on(operate::redeem(&self.dir, path, text))?)
            }
            Backend::Daemon(client) => {
                let name = client.redeem_token(self.name(), text);
                let name = name.map_err(|e| with_file_name(e, path))?;
                Ok(Name::new(name)
                    .map_err(|e| anyhow!("skupperd returned an invalid name of a link: {e}"))?)
            }
        }
    }

    /// Waits until a link is up: over D-Bus, or by its status file.
    pub(in crate::cli) fn wait_for_link(
        &self,
        name: &Name,
        timeout: Duration,
    ) -> Result<WaitOutcome, Failure> {
        if let Backend::Daemon(client) = self.backend()? {
            let goal = WaitGoal::Applied {
                change: &Value::Object(serde_json::Map::new()),
                ready: true,
            };
            let key = Key::new(Kind::Link, name.clone());
            return Ok(client.wait(self.name(), &key, goal, timeout)?);
        }
        let begin = Instant::now();
        loop {
            let statuses = self.dir.statuses(Kind::Link)?;
            let status = statuses.get(name).map(|v| &v["status"]);
            let running = self.daemon_state()? == DaemonState::Running;
            if running && status.is_some_and(|s| s["status"] == Phase::Ready.as_str()) {
                return Ok(WaitOutcome::Reached);
            }
            if begin.elapsed() >= timeout {
                let text = status.map(|s| s["message"].as_str().unwrap_or_default());
                let text = match running {
                    true => text.unwrap_or("skupperd has not read it yet"),
                    false => operate::NOT_RUNNING,
                };
                return Ok(WaitOutcome::TimedOut(text.to_owned()));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

fn token_name(token: &str) -> Result<String, Failure> {
    let document: Value = serde_yaml::from_str(token).map_err(anyhow::Error::from)?;
    let name = document["metadata"]["name"].as_str();
    Ok(name.unwrap_or_default().to_owned())
}
