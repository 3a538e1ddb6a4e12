//! `skupper token`

use super::{Failure, Outcome, invalid, output, show};
use crate::{
    model::{GrantDetails, Kind, Name, Phase, parse_duration},
    operate::{self, GrantWish},
    store::{NamespaceDir, PRIVATE, read_text, write_file},
};
use anyhow::{Context, anyhow};
use clap::Subcommand;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Interval of looks at a status file.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Write a token that lets a remote site link to this one
    Issue {
        /// File to write it to
        file: PathBuf,
        /// Number of sites that may redeem it
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        redemptions_allowed: u32,
        /// Time it is good for
        #[arg(long, default_value = "15m", value_parser = duration)]
        expiration_window: Duration,
        /// Cost of the link
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        cost: u32,
        /// Name of the grant, the token and the link [default: <site>-<random>]
        #[arg(long)]
        name: Option<String>,
        /// Longest time to wait for the grant
        #[arg(long, default_value = "60s", value_parser = duration)]
        timeout: Duration,
    },
    /// Link this site to the one that issued a token
    Redeem {
        /// File with the token
        file: PathBuf,
        /// Longest time to wait for the link
        #[arg(long, default_value = "60s", value_parser = duration)]
        timeout: Duration,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    let found = parse_duration(text).filter(|d| !d.is_zero());
    found.ok_or_else(|| "expected a duration such as 60s or 15m".to_owned())
}

pub(super) fn run(namespace: &NamespaceDir, verb: Verb) -> Outcome {
    match verb {
        Verb::Issue {
            file,
            redemptions_allowed,
            expiration_window,
            cost,
            name,
            timeout,
        } => {
            let wish = GrantWish {
                name,
                redemptions_allowed,
                expiration_window,
            };
            issue(namespace, &file, wish, cost, timeout)
        }
        Verb::Redeem { file, timeout } => redeem_file(namespace, &file, timeout),
    }
}

fn issue(
    namespace: &NamespaceDir,
    file: &Path,
    wish: GrantWish,
    cost: u32,
    timeout: Duration,
) -> Outcome {
    if file.is_dir() {
        return Err(invalid(format!(
            "token file name is not valid: {} is a directory",
            file.display()
        )));
    }
    let allowed = wish.redemptions_allowed;
    let name = operate::grant(namespace, wish)?;
    let details = match granted(namespace, &name, timeout) {
        Ok(details) => details,
        Err(error) => {
            // Nobody has its code: a grant without a token is for nothing.
            operate::remove(&mut namespace.edit()?, Kind::AccessGrant, &name)?;
            return Err(error);
        }
    };
    output::print(&format!("Grant {name:?} is ready"))?;
    let expires = details.expiration_time.clone();
    let text = operate::token(namespace, name, details, cost)?;
    write_file(file, text.as_bytes(), PRIVATE)
        .with_context(|| format!("writing {}", file.display()))?;
    output::print(&format!("Token file {} created", file.display()))?;
    output::print(
        "\nTransfer this file to a remote site. At the remote site, create a link to this site:\n\n    \
         skupper token redeem FILE\n",
    )?;
    output::print(&format!(
        "The token can be redeemed {allowed} time(s), until {expires}."
    ))
}

/// Waits until the daemon serves a grant.
fn granted(
    namespace: &NamespaceDir,
    name: &Name,
    timeout: Duration,
) -> Result<GrantDetails, Failure> {
    let begin = Instant::now();
    loop {
        let statuses = namespace.statuses(Kind::AccessGrant)?;
        let last = match operate::granted(name, statuses.get(name))? {
            Ok(details) => return Ok(details),
            Err(last) => last,
        };
        if begin.elapsed() >= timeout {
            let seconds = timeout.as_secs_f64();
            return Err(Failure::Failed(anyhow!(
                "grant {name:?} is not ready after {seconds} s: {last}"
            )));
        }
        std::thread::sleep(LOOK);
    }
}

fn redeem_file(namespace: &NamespaceDir, file: &Path, timeout: Duration) -> Outcome {
    if file.as_os_str().is_empty() {
        return Err(invalid("file name must not be empty"));
    }
    let text = read_text(file)
        .map_err(|e| invalid(format!("cannot open token file: {}: {e}", file.display())))?;
    let text = zeroize::Zeroizing::new(text);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let name = runtime.block_on(operate::redeem(namespace, file, &text))?;
    output::print(&format!("Token {name:?} has been redeemed."))?;
    if operate::site(namespace)?.is_none() {
        return output::print(
            "There is no site in the namespace yet; the link comes up when there is one.",
        );
    }
    let begin = Instant::now();
    loop {
        let statuses = namespace.statuses(Kind::Link)?;
        let status = statuses
            .get(&name)
            .map(|v| (show::status(v), show::text(v, "/status/remoteSiteName")));
        let told = match status {
            Some(((_, phase, _), remote)) if phase == Phase::Ready.as_str() => {
                return output::print(&format!("Link {name:?} is up: {remote}"));
            }
            Some(((_, _, message), _)) => message,
            None => "skupperd has not seen it; is it running?".to_owned(),
        };
        if begin.elapsed() >= timeout {
            let seconds = timeout.as_secs_f64();
            return Err(Failure::Failed(anyhow!(
                "link {name:?} is not up after {seconds} s: {told}"
            )));
        }
        std::thread::sleep(LOOK);
    }
}
