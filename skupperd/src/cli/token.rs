//! `skupper token`

use super::{
    CommandResult, Failure,
    examples::examples,
    invalid, output, show,
    target::{CommandTarget, IssuedToken},
    wait::{duration, timeout},
};
use crate::{
    control::WaitOutcome,
    model::{Kind, MAX_LINK_COST},
    operate::GrantOptions,
    store::{PRIVATE, read_named, write_own},
};
use anyhow::{Context, anyhow};
use clap::Subcommand;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Write a token with which another site links to this one
    #[command(after_help = examples(&[
        "# At this site, which accepts links; then copy token.yaml to the other site",
        "skupper token issue token.yaml",
        "# A token for ten sites, for a day",
        "skupper token issue token.yaml --redemptions-allowed 10 --expiration-window 24h",
    ]))]
    Issue {
        /// File to write the token to
        file: PathBuf,
        /// Replace the file, if it exists
        #[arg(long)]
        force: bool,
        /// Number of times that the token can be redeemed
        #[arg(
            long,
            value_name = "NUMBER",
            default_value_t = 1,
            allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..)
        )]
        redemptions_allowed: u32,
        /// Time for which the token can be redeemed
        #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = duration)]
        expiration_window: Duration,
        /// Cost of the link: traffic takes the path with the lowest sum
        #[arg(
            long,
            value_name = "NUMBER",
            default_value_t = 1,
            allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LINK_COST))
        )]
        cost: u32,
        /// Name of the grant, the token and the link [default: SITE-RANDOM]
        #[arg(long)]
        name: Option<String>,
        /// Longest time to wait until skupperd serves the token
        #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = timeout)]
        timeout: Duration,
    },
    /// Link this site to the site that issued a token
    #[command(after_help = examples(&["skupper token redeem token.yaml"]))]
    Redeem {
        /// File with the token
        file: PathBuf,
        /// Longest time to wait until the link is up
        #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = timeout)]
        timeout: Duration,
    },
}

pub(super) fn run(target: &CommandTarget, verb: Verb) -> CommandResult {
    match verb {
        Verb::Issue {
            file,
            force,
            redemptions_allowed,
            expiration_window,
            cost,
            name,
            timeout,
        } => {
            check_token_file(&file, force)?;
            let options = GrantOptions {
                name,
                redemptions_allowed,
                expiration_window,
            };
            issue(target, &file, options, cost, timeout)
        }
        Verb::Redeem { file, timeout } => redeem_file(target, &file, timeout),
    }
}

/// Refuses a file that cannot be written, before a grant is made. The token in an existing file may not
/// have been used yet.
fn check_token_file(file: &Path, force: bool) -> CommandResult {
    let shown = file.display();
    if file.is_dir() {
        return Err(invalid(format!(
            "token file name is not valid: {shown} is a directory"
        )));
    }
    if !force && file.symlink_metadata().is_ok() {
        return Err(Failure::Failed(anyhow!(
            "{shown} exists already\nChoose another file; to replace this one, use --force"
        )));
    }
    Ok(())
}

fn issue(
    target: &CommandTarget,
    file: &Path,
    options: GrantOptions,
    cost: u32,
    timeout: Duration,
) -> CommandResult {
    let times = match options.redemptions_allowed {
        1 => "once".to_owned(),
        allowed => format!("{allowed} times"),
    };
    let issued = target.issue_token(options, cost, timeout)?;
    let IssuedToken {
        name,
        token: text,
        expires,
    } = issued;
    output::print(&format!("Grant {name:?} is ready"))?;
    write_own(file, text.as_bytes(), PRIVATE)
        .with_context(|| format!("writing {}", file.display()))?;
    output::print(&format!("Token file {} created", file.display()))?;
    output::print(
        "\nTransfer this file to a remote site. At the remote site, create a link to this site:\n\n    \
         skupper token redeem FILE\n",
    )?;
    output::print(&format!(
        "The token can be redeemed {times}, until {expires}."
    ))
}

fn redeem_file(target: &CommandTarget, file: &Path, timeout: Duration) -> CommandResult {
    if file.as_os_str().is_empty() {
        return Err(invalid("file name must not be empty"));
    }
    let text = read_named(file)
        .map_err(|e| invalid(format!("cannot open token file: {}: {e}", file.display())))?;
    let text = zeroize::Zeroizing::new(text);
    let name = target.redeem_token(file, &text)?;
    output::print(&format!("Token {name:?} has been redeemed."))?;
    match target.wait_for_link(&name, timeout)? {
        WaitOutcome::Reached => {
            let links = target.documents(Kind::Link)?;
            let link = links.iter().find(|v| v["metadata"]["name"] == *name);
            let remote = link.map(|v| show::text(v, "/status/remoteSiteName"));
            let remote = remote.unwrap_or_default();
            match remote.is_empty() {
                // An edge site uses one of its links; the others stand by.
                true => output::print(&format!("Link {name:?} is up")),
                false => output::print(&format!("Link {name:?} is up: {remote}")),
            }
        }
        WaitOutcome::TimedOut(reason) | WaitOutcome::Refused(reason) => {
            let seconds = timeout.as_secs_f64();
            Err(Failure::Failed(anyhow!(
                "link {name:?} is not up after {seconds} s: {reason}"
            )))
        }
    }
}
