//! `skupper attached-connector`

use super::{
    flags,
    resource::{CliKind, SpecArgs, VerbExamples},
    service::optional_details,
    show,
};
use crate::model::Kind;
use clap::Args;
use serde_json::{Value, json};

#[derive(Debug)]
pub(super) struct AttachedConnectors;

#[derive(Debug, Args)]
#[command(mut_arg("settings", |arg| flags::setting_arg(arg, Kind::AttachedConnector)))]
pub(super) struct AttachedConnectorArgs {
    /// Namespace whose site may offer the servers
    #[arg(long, value_name = "NAMESPACE")]
    site_namespace: Option<String>,
    #[command(flatten)]
    servers: flags::ServerArgs,
    #[command(flatten)]
    credentials: flags::CredentialArgs,
    /// Present the client certificate of the TLS credentials to the server
    #[arg(long, num_args = 0..=1, value_name = "BOOL", hide_possible_values = true, default_missing_value = "true", require_equals = true)]
    use_client_cert: Option<bool>,
    /// Offer servers while their unit is not active
    #[arg(long, num_args = 0..=1, value_name = "BOOL", hide_possible_values = true, default_missing_value = "true", require_equals = true)]
    include_not_ready: Option<bool>,
    /// Protocol of the service; only tcp is supported
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    #[command(flatten)]
    settings: flags::SettingArgs,
}

impl AttachedConnectorArgs {
    fn apply(&self, spec: &mut Value, errors: &mut Vec<String>) {
        let of = self.site_namespace.as_deref();
        flags::set_namespace(of, "siteNamespace", spec, errors);
        self.servers.apply(spec, errors);
        self.credentials.apply(spec, errors);
        let given = [
            ("useClientCert", self.use_client_cert),
            ("includeNotReadyPods", self.include_not_ready),
        ];
        flags::set_bools(given, spec);
        flags::set_transport(self.kind.as_deref(), AttachedConnectors::NOUN, spec, errors);
        self.settings.apply(spec, errors);
    }
}

#[derive(Debug, Args)]
pub(super) struct CreateAttachedArgs {
    /// Port of the servers; 0 for every port that they listen on
    #[arg(allow_negative_numbers = true)]
    port: String,
    #[command(flatten)]
    fields: AttachedConnectorArgs,
}

impl SpecArgs for CreateAttachedArgs {
    fn apply(&self, spec: &mut Value, errors: &mut Vec<String>) {
        flags::set_port(&self.port, true, AttachedConnectors::NOUN, spec, errors);
        self.fields.apply(spec, errors);
    }

    fn missing_argument(&self) -> Option<&'static str> {
        if self.fields.site_namespace.is_none() {
            return Some("--site-namespace is required");
        }
        let none = !self.fields.servers.is_set();
        none.then_some("either --selector or --workload is required")
    }
}

#[derive(Debug, Args)]
pub(super) struct UpdateAttachedArgs {
    /// Port of the servers; 0 for every port that they listen on
    #[arg(long, allow_negative_numbers = true)]
    port: Option<String>,
    #[command(flatten)]
    fields: AttachedConnectorArgs,
}

impl SpecArgs for UpdateAttachedArgs {
    fn apply(&self, spec: &mut Value, errors: &mut Vec<String>) {
        if let Some(port) = &self.port {
            flags::set_port(port, true, AttachedConnectors::NOUN, spec, errors);
        }
        self.fields.apply(spec, errors);
    }
}

impl CliKind for AttachedConnectors {
    const KIND: Kind = Kind::AttachedConnector;
    const NOUN: &'static str = "attached-connector";
    const SINGULAR: &'static str = "an attached connector";
    const PLURAL: &'static str = "attached connectors";
    const EFFECTS: (&'static str, &'static str) = ("", "; its connections end");
    const EXAMPLES: VerbExamples = VerbExamples {
        create: &[
            "# Offer your nginx to the site of namespace shared, which needs a binding for it",
            "skupper attached-connector create web 80 --site-namespace shared --selector unit=nginx.service -n mine",
        ],
        update: &["skupper attached-connector update web --port 8080 -n mine"],
        delete: &["skupper attached-connector delete web -n mine"],
        status: &[
            "skupper attached-connector status -n mine",
            "skupper attached-connector status web -n mine",
        ],
        generate: &[
            "skupper attached-connector generate web 80 --site-namespace shared --workload unit/nginx.service",
        ],
    };
    const EMPTY: &'static str = "No attached-connectors found";
    const HEADER: &'static [&'static str] = &[
        "NAME",
        "PORT",
        "SELECTOR",
        "SITE-NAMESPACE",
        "STATUS",
        "MESSAGE",
    ];
    type CreateArgs = CreateAttachedArgs;
    type UpdateArgs = UpdateAttachedArgs;

    fn spec(_: &str) -> Value {
        json!({})
    }

    fn row(value: &Value) -> Vec<String> {
        let (name, status, message) = show::status(value);
        let spec = |field: &str| show::text(value, &format!("/spec/{field}"));
        let (port, selector) = (spec("port"), spec("selector"));
        vec![name, port, selector, spec("siteNamespace"), status, message]
    }

    fn fields(value: &Value) -> Vec<(&'static str, String)> {
        vec![
            ("Port", show::text(value, "/spec/port")),
            ("Selector", show::text(value, "/spec/selector")),
            ("Site Namespace", show::text(value, "/spec/siteNamespace")),
        ]
    }

    fn notes(value: &Value) -> Vec<(&'static str, String)> {
        optional_details(value)
    }
}
