//! `skupper router-access`

use super::{
    flags,
    resource::{CliKind, SpecArgs, VerbExamples},
    show,
};
use crate::model::{Kind, Role, check_host};
use clap::Args;
use serde_json::{Value, json};

#[derive(Debug)]
pub(super) struct RouterAccesses;

#[derive(Debug, Args)]
#[command(mut_arg("settings", |arg| flags::setting_arg(arg, Kind::RouterAccess)))]
pub(super) struct RouterAccessArgs {
    /// Roles of the links to accept: inter-router and edge, each with its port
    /// [default: inter-router=55671,edge=45671]
    #[arg(long = "role", value_name = "ROLE[=PORT],..", value_delimiter = ',')]
    roles: Vec<String>,
    /// Address to listen on [default: every address of this host]
    #[arg(long, value_name = "ADDRESS")]
    bind_host: Option<String>,
    /// Name or address to add to the certificate, so that links can dial it; repeat for several
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// CA that signs the certificate [default: that of the site]
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    #[command(flatten)]
    credentials: flags::CredentialArgs,
    #[command(flatten)]
    settings: flags::SettingArgs,
}

impl SpecArgs for RouterAccessArgs {
    fn apply(&self, spec: &mut Value, errors: &mut Vec<String>) {
        let mut roles = Vec::new();
        for text in &self.roles {
            let (name, given) = match text.split_once('=') {
                Some((name, port)) => (name, Some(port)),
                None => (text.as_str(), None),
            };
            let mut role = json!({ "name": name });
            if Role::parse(name).is_none() {
                errors.push(format!(
                    "role is not valid: value {name} not allowed. \
                     It should be one of this options: [edge inter-router]"
                ));
            } else if let Some(port) = given {
                flags::set_port(port, false, name, &mut role, errors);
            }
            roles.push(role);
        }
        if !roles.is_empty() {
            spec["roles"] = roles.into();
        }
        if let Some(host) = &self.bind_host {
            match check_host(host) {
                Ok(()) => spec["bindHost"] = json!(host),
                Err(e) => errors.push(format!("bind host is not valid: {e}")),
            }
        }
        flags::set_hosts(&self.host, "subjectAlternativeNames", spec, errors);
        flags::set_name(self.issuer.as_deref(), "issuer", "issuer", spec, errors);
        self.credentials.apply(spec, errors);
        self.settings.apply(spec, errors);
    }
}

impl CliKind for RouterAccesses {
    const KIND: Kind = Kind::RouterAccess;
    const NOUN: &'static str = "router-access";
    const SINGULAR: &'static str = "a router access, which accepts links from other sites";
    const PLURAL: &'static str = "router accesses and their endpoints";
    const EFFECTS: (&'static str, &'static str) = ("", "; its links end");
    const EXAMPLES: VerbExamples = VerbExamples {
        create: &[
            "# Accept links on one address only, under a name of the host",
            "skupper router-access create public --bind-host 192.0.2.1 --host east.example.com",
            "# Only links between interior sites, on port 443",
            "skupper router-access create public --role inter-router=443",
        ],
        update: &["skupper router-access update public --host east.example.com --host 192.0.2.1"],
        delete: &["skupper router-access delete public"],
        status: &[
            "skupper router-access status",
            "skupper router-access status public",
        ],
        generate: &["skupper router-access generate public --bind-host 192.0.2.1 > access.yaml"],
    };
    const EMPTY: &'static str = "No router-accesses found";
    const HEADER: &'static [&'static str] = &["NAME", "STATUS", "ENDPOINTS", "MESSAGE"];
    type CreateArgs = RouterAccessArgs;
    type UpdateArgs = RouterAccessArgs;

    fn spec(_: &str) -> Value {
        let roles = [Role::InterRouter, Role::Edge];
        json!({ "roles": roles.map(|role| json!({ "name": role.as_str() })) })
    }

    fn row(value: &Value) -> Vec<String> {
        let (name, status, message) = show::status(value);
        vec![name, status, endpoints(value), message]
    }

    fn fields(value: &Value) -> Vec<(&'static str, String)> {
        vec![
            ("Endpoints", endpoints(value)),
            ("Bind host", show::text(value, "/spec/bindHost")),
            ("Issuer", show::text(value, "/spec/issuer")),
            ("TLS credentials", show::text(value, "/spec/tlsCredentials")),
            (
                "Certificate ends",
                show::text(value, "/status/certificateExpirationTime"),
            ),
        ]
    }
}

/// Addresses that links can dial.
fn endpoints(value: &Value) -> String {
    let endpoints = value["status"]["endpoints"].as_array();
    let endpoints = endpoints.into_iter().flatten().map(|endpoint| {
        let text = |path: &str| show::text(endpoint, path);
        format!("{}={}:{}", text("/name"), text("/host"), text("/port"))
    });
    endpoints.collect::<Vec<_>>().join(",")
}
