//! `skupper token`

use super::{Failure, Outcome, edit, invalid, output};
use crate::{
    access::redeem,
    manifest::{document_of, parse, to_yaml},
    model::{
        AccessToken, Code, GrantDetails, Key, Kind, Meta, Name, Phase, Resource, Settings, Spec,
        Status, check_name, parse_duration,
    },
    pki,
    reconcile::{store_redeemed, token_mark},
    store::{NamespaceDir, PRIVATE, read_text, write_file},
};
use anyhow::{Context, anyhow};
use clap::Subcommand;
use serde_json::json;
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
            let spec = json!({
                "redemptionsAllowed": redemptions_allowed,
                "expirationWindow": format!("{}s", expiration_window.as_secs_f64()),
            });
            issue(namespace, &file, name, &spec, cost, timeout)
        }
        Verb::Redeem { file, timeout } => redeem_file(namespace, &file, timeout),
    }
}

/// The site of the namespace, and whether links can come in.
fn site(namespace: &NamespaceDir) -> Result<Option<(Name, bool)>, Failure> {
    let loaded = namespace.load()?.resources;
    let explicit = loaded
        .iter()
        .any(|l| l.resource.kind() == Kind::RouterAccess);
    Ok(loaded.iter().find_map(|l| match &l.resource.spec {
        Spec::Site(site) => {
            let open = !site.edge && (explicit || site.link_access.is_enabled());
            Some((l.resource.name().clone(), open))
        }
        _ => None,
    }))
}

fn issue(
    namespace: &NamespaceDir,
    file: &Path,
    name: Option<String>,
    spec: &serde_json::Value,
    cost: u32,
    timeout: Duration,
) -> Outcome {
    let site = site(namespace)?;
    let (site, open) = site.ok_or_else(|| invalid("there is no active site in this namespace"))?;
    if !open {
        return Err(invalid(
            "link access is not enabled for this site: skupper site update --enable-link-access",
        ));
    }
    if file.is_dir() {
        return Err(invalid(format!(
            "token file name is not valid: {} is a directory",
            file.display()
        )));
    }
    let name = match name {
        Some(name) => name,
        None => {
            let random = pki::new_code().map_err(anyhow::Error::from)?;
            let tail: String = random.reveal().chars().take(8).collect();
            format!("{site}-{}", tail.to_lowercase())
        }
    };
    check_name(&name).map_err(|e| invalid(format!("token name is not valid: {e}")))?;
    let name = Name::new(name).map_err(anyhow::Error::from)?;
    if edit::find(namespace, Kind::AccessGrant, &name)?.is_some() {
        return Err(invalid(format!(
            "There is already a grant with the name {name:?}"
        )));
    }
    let grant = json!({
        "apiVersion": Kind::AccessGrant.api_version(),
        "kind": Kind::AccessGrant.as_str(),
        "metadata": { "name": name },
        "spec": spec,
    });
    edit::write(&mut namespace.edit()?, &grant)?;
    let details = match granted(namespace, &name, timeout) {
        Ok(details) => details,
        Err(error) => {
            // Nobody has its code: a grant without a token is for nothing.
            let key = Key::new(Kind::AccessGrant, name.clone());
            namespace.edit()?.remove_resource(&key)?;
            return Err(error);
        }
    };
    output::print(&format!("Grant {name:?} is ready"))?;
    let token = Resource {
        meta: Meta::new(name, namespace.name().clone()),
        spec: Spec::AccessToken(AccessToken {
            url: details.url,
            code: Code::new(details.code),
            ca: details.ca,
            link_cost: cost,
            settings: Settings::new(),
        }),
    };
    let text = to_yaml(&document_of(&token)).map_err(anyhow::Error::from)?;
    write_file(file, text.as_bytes(), PRIVATE)
        .with_context(|| format!("writing {}", file.display()))?;
    output::print(&format!("Token file {} created", file.display()))?;
    output::print(
        "\nTransfer this file to a remote site. At the remote site, create a link to this site:\n\n    \
         skupper token redeem FILE\n",
    )?;
    output::print(&format!(
        "The token can be redeemed {} time(s), until {}.",
        spec["redemptionsAllowed"], details.expiration_time
    ))
}

/// Waits until the daemon serves a grant.
fn granted(
    namespace: &NamespaceDir,
    name: &Name,
    timeout: Duration,
) -> Result<GrantDetails, Failure> {
    let mut last = "skupperd has not seen it; is it running?".to_owned();
    let begin = Instant::now();
    loop {
        let statuses = namespace.statuses(Kind::AccessGrant)?;
        if let Some(status) = statuses.get(name).and_then(|v| v.get("status")) {
            let status: Status<GrantDetails> =
                serde_json::from_value(status.clone()).map_err(anyhow::Error::from)?;
            match status.status {
                Phase::Ready => return Ok(status.details),
                Phase::Error => {
                    return Err(Failure::Failed(anyhow!(
                        "grant {name:?}: {}",
                        status.message
                    )));
                }
                Phase::Pending => last = status.message,
            }
        }
        if begin.elapsed() >= timeout {
            let seconds = timeout.as_secs_f64();
            return Err(Failure::Failed(anyhow!(
                "grant {name:?} is not ready after {seconds} s: {last}"
            )));
        }
        std::thread::sleep(LOOK);
    }
}

fn read(file: &Path) -> Result<(Name, AccessToken), Failure> {
    if file.as_os_str().is_empty() {
        return Err(invalid("file name must not be empty"));
    }
    let text = read_text(file)
        .map_err(|e| invalid(format!("cannot open token file: {}: {e}", file.display())))?;
    let text = zeroize::Zeroizing::new(text);
    let mut documents = parse(file, text.as_bytes(), None);
    let (first, more) = (documents.pop(), documents.len());
    let located = match (first, more) {
        (Some(Ok(located)), 0) => located,
        (Some(Err(error)), 0) => return Err(invalid(error.to_string())),
        (None, _) => {
            return Err(invalid(format!(
                "{}: there is no token in it",
                file.display()
            )));
        }
        _ => {
            return Err(invalid(format!(
                "{}: there is more than a token in it",
                file.display()
            )));
        }
    };
    match located.resource.spec {
        Spec::AccessToken(token) => Ok((located.resource.meta.name, token)),
        other => {
            let text = format!("{}: {} is not an AccessToken", file.display(), other.kind());
            Err(invalid(text))
        }
    }
}

fn redeem_file(namespace: &NamespaceDir, file: &Path, timeout: Duration) -> Outcome {
    let (name, token) = read(file)?;
    for kind in [Kind::Link, Kind::Secret] {
        if edit::find(namespace, kind, &name)?.is_some() {
            let text = format!("There is already a {kind} with the name {name:?} in the namespace");
            return Err(invalid(text));
        }
    }
    // Where there is no site, the namespace says who asks, as upstream's command does.
    let site = site(namespace)?.map(|(name, _)| name.to_string());
    let subject = site.clone().unwrap_or_else(|| namespace.name().to_string());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let documents = runtime.block_on(redeem(&token, &name, &subject, namespace.name()));
    let documents = documents.map_err(anyhow::Error::from)?;
    store_redeemed(namespace, &documents, &token_mark(&token))
        .map_err(|e| anyhow!("the token was redeemed, and its link could not be written: {e}"))?;
    output::print(&format!("Token {name:?} has been redeemed."))?;
    if site.is_none() {
        return output::print(
            "There is no site in the namespace yet; the link comes up when there is one.",
        );
    }
    let begin = Instant::now();
    loop {
        let statuses = namespace.statuses(Kind::Link)?;
        let status = statuses
            .get(&name)
            .map(|v| (edit::status(v), edit::text(v, "/status/remoteSiteName")));
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
