//! `skupper router-access`, where links come in, and `skupper access-grant`, who may have one.

use super::{
    edit::{Fields, Words},
    flags, show,
    wait::duration,
};
use crate::model::{Kind, Role, check_host};
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct RouterAccesses;

#[derive(Debug, Args)]
pub(super) struct RouterAccessFields {
    /// Roles that come in there, with a port where it is not the usual one: inter-router, edge
    #[arg(long = "role", value_name = "ROLE[=PORT],..", value_delimiter = ',')]
    roles: Vec<String>,
    /// Address to listen on [default: all of the host's]
    #[arg(long, value_name = "ADDRESS")]
    bind_host: Option<String>,
    /// Further name or address in the certificate, which links can be made to; several by repeating it
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Issuer of the certificate [default: the site's]
    #[arg(long)]
    issuer: Option<String>,
    #[command(flatten)]
    credentials: flags::Credentials,
    #[command(flatten)]
    settings: flags::Settings,
}

impl Fields for RouterAccessFields {
    fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>) {
        let mut roles = Vec::new();
        for text in &self.roles {
            let (name, given) = match text.split_once('=') {
                Some((name, port)) => (name, Some(port)),
                None => (text.as_str(), None),
            };
            let mut role = json!({ "name": name });
            if Role::parse(name).is_none() {
                wrong.push(format!(
                    "role is not valid: value {name} not allowed. \
                     It should be one of this options: [edge inter-router]"
                ));
            } else if let Some(port) = given {
                flags::port(port, false, name, &mut role, wrong);
            }
            roles.push(role);
        }
        if !roles.is_empty() {
            spec["roles"] = roles.into();
        }
        if let Some(host) = &self.bind_host {
            match check_host(host) {
                Ok(()) => spec["bindHost"] = json!(host),
                Err(e) => wrong.push(format!("bind host is not valid: {e}")),
            }
        }
        flags::hosts(&self.host, "subjectAlternativeNames", spec, wrong);
        flags::named(self.issuer.as_deref(), "issuer", "issuer", spec, wrong);
        self.credentials.apply(spec, wrong);
        self.settings.apply(spec, wrong);
    }
}

impl Words for RouterAccesses {
    const KIND: Kind = Kind::RouterAccess;
    const NOUN: &'static str = "router-access";
    const ONE: &'static str = "a place where links come in";
    const MANY: &'static str = "places where links come in";
    const AND: (&'static str, &'static str) = ("", "; links that came in there end");
    const NONE: &'static str = "No router-accesses found";
    const HEADER: &'static [&'static str] = &["NAME", "STATUS", "ENDPOINTS", "MESSAGE"];
    type New = RouterAccessFields;
    type Change = RouterAccessFields;

    fn spec(_: &str) -> Value {
        let roles = [Role::InterRouter, Role::Edge];
        json!({ "roles": roles.map(|role| json!({ "name": role.as_str() })) })
    }

    fn row(value: &Value) -> Vec<String> {
        let (name, status, message) = show::status(value);
        vec![name, status, endpoints(value), message]
    }

    fn details(value: &Value) -> Vec<(&'static str, String)> {
        let (name, status, message) = show::status(value);
        vec![
            ("Name", name),
            ("Status", status),
            ("Endpoints", endpoints(value)),
            ("Bind host", show::text(value, "/spec/bindHost")),
            ("Issuer", show::text(value, "/spec/issuer")),
            ("TLS credentials", show::text(value, "/spec/tlsCredentials")),
            (
                "Certificate ends",
                show::text(value, "/status/certificateExpirationTime"),
            ),
            ("Message", message),
            ("Note", show::notes(value)),
        ]
    }
}

/// Where links can be made to.
fn endpoints(value: &Value) -> String {
    let endpoints = value["status"]["endpoints"].as_array();
    let endpoints = endpoints.into_iter().flatten().map(|endpoint| {
        let text = |path: &str| show::text(endpoint, path);
        format!("{}={}:{}", text("/name"), text("/host"), text("/port"))
    });
    endpoints.collect::<Vec<_>>().join(",")
}

#[derive(Debug)]
pub(super) struct AccessGrants;

#[derive(Debug, Args)]
pub(super) struct AccessGrantFields {
    /// Number of sites that may redeem it [default: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    redemptions_allowed: Option<u32>,
    /// Time it is good for, from when it is taken up [default: 15m]
    #[arg(long, value_parser = duration)]
    expiration_window: Option<Duration>,
    /// Issuer of the credentials that it gives [default: the site's]
    #[arg(long)]
    issuer: Option<String>,
    #[command(flatten)]
    settings: flags::Settings,
}

impl Fields for AccessGrantFields {
    fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>) {
        if let Some(allowed) = self.redemptions_allowed {
            spec["redemptionsAllowed"] = json!(allowed);
        }
        if let Some(window) = self.expiration_window {
            spec["expirationWindow"] = json!(format!("{}s", window.as_secs_f64()));
        }
        flags::named(self.issuer.as_deref(), "issuer", "issuer", spec, wrong);
        self.settings.apply(spec, wrong);
    }
}

impl Words for AccessGrants {
    const KIND: Kind = Kind::AccessGrant;
    const NOUN: &'static str = "access-grant";
    const ONE: &'static str = "a grant, which other sites redeem for links to this one";
    const MANY: &'static str = "grants, without their codes";
    const AND: (&'static str, &'static str) = ("", "; tokens of it are worth nothing any more");
    const NONE: &'static str = "No access-grants found";
    const HEADER: &'static [&'static str] = &[
        "NAME",
        "REDEMPTIONS-ALLOWED",
        "REDEMPTIONS-MADE",
        "EXPIRATION",
        "STATUS",
        "MESSAGE",
    ];
    type New = AccessGrantFields;
    type Change = AccessGrantFields;

    fn spec(_: &str) -> Value {
        json!({ "redemptionsAllowed": 1, "expirationWindow": "15m" })
    }

    fn row(value: &Value) -> Vec<String> {
        let (name, status, message) = show::status(value);
        let text = |path: &str| show::text(value, path);
        vec![
            name,
            text("/spec/redemptionsAllowed"),
            text("/status/redemptions"),
            text("/status/expirationTime"),
            status,
            message,
        ]
    }

    fn details(value: &Value) -> Vec<(&'static str, String)> {
        let (name, status, message) = show::status(value);
        let text = |path: &str| show::text(value, path);
        vec![
            ("Name", name),
            ("Status", status),
            ("Redemptions allowed", text("/spec/redemptionsAllowed")),
            ("Redemptions made", text("/status/redemptions")),
            ("Expiration", text("/status/expirationTime")),
            ("URL", text("/status/url")),
            ("Message", message),
            ("Note", show::notes(value)),
        ]
    }
}
