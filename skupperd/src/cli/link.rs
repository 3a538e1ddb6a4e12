//! `skupper link`

use super::{
    CommandResult, completion,
    examples::examples,
    invalid, output, show,
    target::CommandTarget,
    view::ViewArgs,
    wait::{self, WaitArgs},
};
use crate::{
    model::{Kind, MAX_LINK_COST},
    operate::LinkOptions,
};
use clap::Subcommand;
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Print a Link and its Secret, which another site applies to link to this one
    #[command(after_help = examples(&[
        "# At this site, which accepts links",
        "skupper link generate --host east.example.com > link.yaml",
        "# At the other site",
        "skupper system apply -f link.yaml",
    ]))]
    Generate {
        /// Host name or address at which the other site reaches this one [default: the first of this site]
        #[arg(long)]
        host: Option<String>,
        /// Cost of the link: traffic takes the path with the lowest sum
        #[arg(long, default_value_t = 1, value_name = "NUMBER", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LINK_COST)))]
        cost: u32,
        /// Name of the link [default: link-SITE]
        #[arg(long)]
        name: Option<String>,
    },
    /// Show the links that this site dials
    #[command(after_help = examples(&[
        "skupper link status",
        "# One link in detail, again at each change",
        "skupper link status link-east --watch",
    ]))]
    Status {
        /// Name of the link to show in detail [default: a table of all]
        #[arg(add = completion::resource_names(Kind::Link))]
        name: Option<String>,
        #[command(flatten)]
        view: ViewArgs,
    },
    /// Change a link; open connections stay, and new ones use the changed link
    #[command(
        after_help = examples(&["skupper link update link-east --cost 5"]),
        mut_arg("wait", |arg| arg.help(wait::help(Kind::Link)))
    )]
    Update {
        /// Name of the link
        #[arg(add = completion::resource_names(Kind::Link))]
        name: String,
        /// Cost of the link: traffic takes the path with the lowest sum
        #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LINK_COST)))]
        cost: Option<u32>,
        /// Name of the Secret with the credentials
        #[arg(long, value_name = "NAME")]
        tls_credentials: Option<String>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Revoke the access of a remote site: its links end, and its certificates are refused
    #[command(after_help = examples(&[
        "skupper link revoke west",
        "# One certificate, by its serial number",
        "skupper link revoke 5a:0c:91:3e:77:21:4b:08",
    ]))]
    Revoke {
        /// Name or ID of the site, or subject or serial number of a certificate
        name: String,
    },
    /// Delete a link, and its credentials if nothing else uses them
    #[command(
        after_help = examples(&["skupper link delete link-east"]),
        mut_arg("wait", |arg| arg.help(wait::delete_help(Kind::Link)))
    )]
    Delete {
        /// Name of the link
        #[arg(add = completion::resource_names(Kind::Link))]
        name: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

pub(super) fn run(target: &CommandTarget, verb: Verb) -> CommandResult {
    match verb {
        Verb::Generate { host, cost, name } => {
            let cost = Some(cost);
            let options = LinkOptions { host, cost, name };
            output::print(&target.generate_link(options)?)
        }
        Verb::Update {
            name,
            cost,
            tls_credentials,
            wait,
        } => update(target, &name, cost, tls_credentials, &wait),
        Verb::Delete { name, wait } => {
            let deleted = target.delete(Kind::Link, &name)?;
            if deleted.is_empty() {
                return Err(show::not_found(target, "link", &name));
            }
            wait.deleted(target, Kind::Link, &name)?;
            for key in deleted {
                output::print(&format!("{} {:?} is deleted", key.kind, key.name))?;
            }
            Ok(())
        }
        Verb::Revoke { name } => {
            for revoked in target.revoke_link(&name)? {
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
            let status = show::StatusView {
                kind: Kind::Link,
                noun: "link",
                empty: "There are no link resources in the namespace",
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
                        ("Key Exchange", show::text(v, "/status/keyExchange")),
                        ("Last Failure", show::text(v, "/status/lastFailure")),
                        (
                            "Certificate Expires",
                            show::text(v, "/status/certificateExpirationTime"),
                        ),
                        ("Note", show::notes(v)),
                    ]
                },
            };
            show::print(target, name.as_deref(), &view, &status)
        }
    }
}

fn cost(value: &Value) -> String {
    let cost = value.pointer("/spec/cost").and_then(Value::as_i64);
    cost.unwrap_or(1).max(1).to_string()
}

fn update(
    target: &CommandTarget,
    name: &str,
    cost: Option<u32>,
    credentials: Option<String>,
    wait: &WaitArgs,
) -> CommandResult {
    if cost.is_none() && credentials.is_none() {
        return Err(invalid(
            "nothing to change: give --cost or --tls-credentials",
        ));
    }
    let mut change = json!({ "spec": {} });
    if let Some(cost) = cost {
        change["spec"]["cost"] = cost.into();
    }
    if let Some(credentials) = credentials {
        change["spec"]["tlsCredentials"] = credentials.into();
    }
    let path = target.update(Kind::Link, name, &change)?;
    let path = path.ok_or_else(|| show::not_found(target, "link", name))?;
    output::print(&format!("File written to {path}"))?;
    wait.written(target, Kind::Link, name, &change, false)
}
