//! `skupper token`

use super::{
    Failure, Outcome, invalid, output,
    place::{Issued, Place},
    show,
    wait::duration,
};
use crate::{
    control::Waited,
    model::Kind,
    operate::GrantWish,
    store::{PRIVATE, read_text, write_file},
};
use anyhow::{Context, anyhow};
use clap::Subcommand;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

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

pub(super) fn run(place: &Place, verb: Verb) -> Outcome {
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
            issue(place, &file, wish, cost, timeout)
        }
        Verb::Redeem { file, timeout } => redeem_file(place, &file, timeout),
    }
}

fn issue(place: &Place, file: &Path, wish: GrantWish, cost: u32, timeout: Duration) -> Outcome {
    if file.is_dir() {
        return Err(invalid(format!(
            "token file name is not valid: {} is a directory",
            file.display()
        )));
    }
    let allowed = wish.redemptions_allowed;
    let issued = place.issue(wish, cost, timeout)?;
    let Issued {
        name,
        token: text,
        expires,
    } = issued;
    output::print(&format!("Grant {name:?} is ready"))?;
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

fn redeem_file(place: &Place, file: &Path, timeout: Duration) -> Outcome {
    if file.as_os_str().is_empty() {
        return Err(invalid("file name must not be empty"));
    }
    let text = read_text(file)
        .map_err(|e| invalid(format!("cannot open token file: {}: {e}", file.display())))?;
    let text = zeroize::Zeroizing::new(text);
    let name = place.redeem(file, &text)?;
    output::print(&format!("Token {name:?} has been redeemed."))?;
    if place.documents(Kind::Site)?.is_empty() {
        return output::print(
            "There is no site in the namespace yet; the link comes up when there is one.",
        );
    }
    match place.linked(&name, timeout)? {
        Waited::Reached => {
            let links = place.documents(Kind::Link)?;
            let link = links.iter().find(|v| v["metadata"]["name"] == *name);
            let remote = link.map(|v| show::text(v, "/status/remoteSiteName"));
            let remote = remote.unwrap_or_default();
            output::print(&format!("Link {name:?} is up: {remote}"))
        }
        Waited::Late(told) | Waited::Refused(told) => {
            let seconds = timeout.as_secs_f64();
            Err(Failure::Failed(anyhow!(
                "link {name:?} is not up after {seconds} s: {told}"
            )))
        }
    }
}
