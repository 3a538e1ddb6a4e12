//! Tokens: issuing and redeeming them, which waits for its effect on files too.

use super::{Place, Way, of_file};
use crate::{
    cli::Failure,
    control::{Goal, Waited},
    model::{Key, Kind, Name, Phase},
    operate::{self, GrantWish},
};
use anyhow::anyhow;
use serde_json::Value;
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// Interval of looks at a status file.
const LOOK: Duration = Duration::from_millis(50);

/// What came of a grant.
pub(in crate::cli) struct Issued {
    pub(in crate::cli) name: String,
    pub(in crate::cli) token: String,
    pub(in crate::cli) expires: String,
}

impl Place {
    /// Writes a grant, waits until it is served, and gives its token.
    pub(in crate::cli) fn issue(
        &self,
        wish: GrantWish,
        cost: u32,
        most: Duration,
    ) -> Result<Issued, Failure> {
        match self.way()? {
            Way::Files(_) => self.issue_on_files(wish, cost, most),
            Way::Bus(client) => {
                let token = client.issue_token(self.name(), &wish, cost, most)?;
                let name = token_name(&token)?;
                let grants = client.list(self.name(), Kind::AccessGrant)?;
                let grant = grants.iter().find(|v| v["metadata"]["name"] == *name);
                let expires = grant.and_then(|v| v["status"]["expirationTime"].as_str());
                Ok(Issued {
                    expires: expires.unwrap_or_default().to_owned(),
                    name,
                    token,
                })
            }
        }
    }

    fn issue_on_files(
        &self,
        wish: GrantWish,
        cost: u32,
        most: Duration,
    ) -> Result<Issued, Failure> {
        let name = operate::grant(&self.dir, wish)?;
        let begin = Instant::now();
        let served = loop {
            let statuses = self.dir.statuses(Kind::AccessGrant)?;
            match operate::granted(&name, statuses.get(&name)) {
                Ok(Ok(details)) => break Ok(details),
                Ok(Err(last)) if begin.elapsed() >= most => {
                    let seconds = most.as_secs_f64();
                    break Err(Failure::Failed(anyhow!(
                        "grant {name:?} is not ready after {seconds} s: {last}"
                    )));
                }
                Ok(Err(_)) => std::thread::sleep(LOOK),
                Err(error) => break Err(error.into()),
            }
        };
        let details = match served {
            Ok(details) => details,
            Err(error) => {
                // Nobody has its code: a grant without a token is for nothing.
                operate::remove(&mut self.dir.edit()?, Kind::AccessGrant, &name)?;
                return Err(error);
            }
        };
        Ok(Issued {
            name: name.to_string(),
            expires: details.expiration_time.clone(),
            token: operate::token(&self.dir, name, details, cost)?,
        })
    }

    /// Redeems the token in a text. Gives the name of the link.
    pub(in crate::cli) fn redeem(&self, path: &Path, text: &str) -> Result<Name, Failure> {
        match self.way()? {
            Way::Files(_) => {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                Ok(runtime.block_on(operate::redeem(&self.dir, path, text))?)
            }
            Way::Bus(client) => {
                let name = client.redeem_token(self.name(), text);
                let name = name.map_err(|e| of_file(e, path))?;
                Ok(Name::new(name).map_err(|e| anyhow!("skupperd names no link: {e}"))?)
            }
        }
    }

    /// Waits until a link is up, whichever way: whoever redeems a token wants one.
    pub(in crate::cli) fn linked(&self, name: &Name, most: Duration) -> Result<Waited, Failure> {
        if let Way::Bus(client) = self.way()? {
            let goal = Goal::Applied {
                change: &Value::Object(serde_json::Map::new()),
                ready: true,
            };
            let key = Key::new(Kind::Link, name.clone());
            return Ok(client.wait(self.name(), &key, goal, most)?);
        }
        let begin = Instant::now();
        loop {
            let statuses = self.dir.statuses(Kind::Link)?;
            let status = statuses.get(name).map(|v| &v["status"]);
            if status.is_some_and(|s| s["status"] == Phase::Ready.as_str()) {
                return Ok(Waited::Reached);
            }
            if begin.elapsed() >= most {
                let text = status.map(|s| s["message"].as_str().unwrap_or_default());
                let text = text.unwrap_or("skupperd has not seen it; is it running?");
                return Ok(Waited::Late(text.to_owned()));
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn token_name(token: &str) -> Result<String, Failure> {
    let document: Value = serde_yaml::from_str(token).map_err(anyhow::Error::from)?;
    let name = document["metadata"]["name"].as_str();
    Ok(name.unwrap_or_default().to_owned())
}
