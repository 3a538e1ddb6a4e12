//! `skupper link`

use super::{Failure, Outcome, invalid, names, output, place::Place, show, view::View, wait::Wait};
use crate::{model::Kind, operate::LinkWish};
use clap::Subcommand;
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Print a Link and its Secret, to be applied at a remote site
    Generate {
        /// Host by which the remote site reaches this one [default: this host's own address]
        #[arg(long)]
        host: Option<String>,
        /// Cost of the link
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        cost: u32,
        /// Name of the link [default: link-<site>]
        #[arg(long)]
        name: Option<String>,
    },
    /// Show links that this site dials
    Status {
        /// Name [default: all]
        #[arg(add = names::of(Kind::Link))]
        name: Option<String>,
        #[command(flatten)]
        view: View,
    },
    /// Change a link: connections that are open stay, new ones follow
    Update {
        /// Name
        #[arg(add = names::of(Kind::Link))]
        name: String,
        /// Cost of the link
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        cost: Option<u32>,
        /// Secret with the credentials
        #[arg(long)]
        tls_credentials: Option<String>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Take back the access of a remote site: its links end, and its certificates are refused
    Revoke {
        /// Name or identity of the site, or subject or serial number of a certificate
        name: String,
    },
    /// Delete a link, and its credentials when nothing else uses them
    Delete {
        /// Name
        #[arg(add = names::of(Kind::Link))]
        name: String,
        #[command(flatten)]
        wait: Wait,
    },
}

pub(super) fn run(place: &Place, verb: Verb) -> Outcome {
    match verb {
        Verb::Generate { host, cost, name } => {
            let cost = Some(cost);
            let wish = LinkWish { host, cost, name };
            output::print(&place.generate_link(wish)?)
        }
        Verb::Update {
            name,
            cost,
            tls_credentials,
            wait,
        } => update(place, &name, cost, tls_credentials, &wait),
        Verb::Delete { name, wait } => {
            let deleted = place.delete(Kind::Link, &name)?;
            if deleted.is_empty() {
                return Err(missing(&name));
            }
            wait.deleted(place, Kind::Link, &name)?;
            for key in deleted {
                output::print(&format!("{} {:?} is deleted", key.kind, key.name))?;
            }
            Ok(())
        }
        Verb::Revoke { name } => {
            for revoked in place.revoke(&name)? {
                let done = if revoked.before {
                    "was revoked before"
                } else {
                    "is revoked"
                };
                let (serial, subject) = (revoked.serial, revoked.subject);
                output::print(&format!("Certificate {serial} of {subject:?} {done}"))?;
            }
            Ok(())
        }
        Verb::Status { name, view } => {
            let none = "There are no link resources in the namespace";
            let missing = format!(
                "There is no link resource in the namespace with the name {:?}",
                name.as_deref().unwrap_or_default()
            );
            let show = show::Show {
                kind: Kind::Link,
                none,
                missing,
                header: &["NAME", "STATUS", "COST", "MESSAGE", "REMOTE-SITE"],
                row: |v| {
                    let (name, status, message) = show::status(v);
                    vec![
                        name,
                        status,
                        cost(v),
                        message,
                        show::text(v, "/status/remoteSiteName"),
                    ]
                },
                details: |v| {
                    let (name, status, message) = show::status(v);
                    vec![
                        ("Name", name),
                        ("Status", status),
                        ("Cost", cost(v)),
                        ("Message", message),
                        ("Remote Site", show::text(v, "/status/remoteSiteName")),
                        ("Endpoint", show::text(v, "/status/endpoint")),
                        ("Up Since", show::text(v, "/status/upSince")),
                        ("Last Failure", show::text(v, "/status/lastFailure")),
                        (
                            "Certificate Expires",
                            show::text(v, "/status/certificateExpirationTime"),
                        ),
                    ]
                },
            };
            show::show(place, name.as_deref(), &view, &show)
        }
    }
}

fn cost(value: &Value) -> String {
    let cost = show::text(value, "/spec/cost");
    if cost.is_empty() {
        "1".to_owned()
    } else {
        cost
    }
}

fn missing(name: &str) -> Failure {
    invalid(format!(
        "There is no link resource in the namespace with the name {name:?}"
    ))
}

fn update(
    place: &Place,
    name: &str,
    cost: Option<u32>,
    credentials: Option<String>,
    wait: &Wait,
) -> Outcome {
    if cost.is_none() && credentials.is_none() {
        return Err(invalid(
            "nothing to change: name --cost or --tls-credentials",
        ));
    }
    let mut change = json!({ "spec": {} });
    if let Some(cost) = cost {
        change["spec"]["cost"] = cost.into();
    }
    if let Some(credentials) = credentials {
        change["spec"]["tlsCredentials"] = credentials.into();
    }
    let path = place.update(Kind::Link, name, &change)?;
    let path = path.ok_or_else(|| missing(name))?;
    output::print(&format!("File written to {path}"))?;
    wait.written(place, Kind::Link, name, &change, false)
}
