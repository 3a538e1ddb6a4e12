//! `skupper attached-connector-binding`

use super::{
    flags,
    resource::{CliKind, SpecArgs, VerbExamples},
    service::{bool_text, optional_details},
    show,
};
use crate::model::Kind;
use clap::Args;
use serde_json::{Value, json};

#[derive(Debug)]
pub(super) struct Bindings;

#[derive(Debug, Args)]
#[command(mut_arg("settings", |arg| flags::setting_arg(arg, Kind::AttachedConnectorBinding)))]
pub(super) struct BindingArgs {
    /// Namespace of the attached connector, which has the same name as the binding
    #[arg(long, value_name = "NAMESPACE")]
    connector_namespace: Option<String>,
    /// Routing key to offer the servers under [default: NAME]
    #[arg(short, long, value_name = "KEY")]
    routing_key: Option<String>,
    #[command(flatten)]
    settings: flags::SettingArgs,
}

impl SpecArgs for BindingArgs {
    fn apply(&self, spec: &mut Value, errors: &mut Vec<String>) {
        let of = self.connector_namespace.as_deref();
        flags::set_namespace(of, "connectorNamespace", spec, errors);
        let key = self.routing_key.as_deref();
        flags::set_name(key, "routingKey", "routing key", spec, errors);
        self.settings.apply(spec, errors);
    }

    fn missing_argument(&self) -> Option<&'static str> {
        let none = self.connector_namespace.is_none();
        none.then_some("--connector-namespace is required")
    }
}

impl CliKind for Bindings {
    const KIND: Kind = Kind::AttachedConnectorBinding;
    const NOUN: &'static str = "attached-connector-binding";
    const SINGULAR: &'static str = "a binding of an attached connector";
    const PLURAL: &'static str = "bindings of attached connectors";
    const EFFECTS: (&'static str, &'static str) = ("", "; its connections end");
    const EXAMPLES: VerbExamples = VerbExamples {
        create: &[
            "# Accept the attached connector web of namespace mine in the site of namespace shared",
            "skupper attached-connector-binding create web --connector-namespace mine -n shared",
        ],
        update: &["skupper attached-connector-binding update web --routing-key api -n shared"],
        delete: &["skupper attached-connector-binding delete web -n shared"],
        status: &[
            "skupper attached-connector-binding status -n shared",
            "skupper attached-connector-binding status web -n shared",
        ],
        generate: &[
            "skupper attached-connector-binding generate web --connector-namespace mine > binding.yaml",
        ],
    };
    const EMPTY: &'static str = "No attached-connector-bindings found";
    const HEADER: &'static [&'static str] = &[
        "NAME",
        "ROUTING-KEY",
        "CONNECTOR-NAMESPACE",
        "STATUS",
        "HAS MATCHING LISTENER",
        "MESSAGE",
    ];
    type CreateArgs = BindingArgs;
    type UpdateArgs = BindingArgs;

    fn spec(name: &str) -> Value {
        json!({ "routingKey": name })
    }

    fn row(value: &Value) -> Vec<String> {
        let (name, status, message) = show::status(value);
        let spec = |field: &str| show::text(value, &format!("/spec/{field}"));
        let matched = bool_text(value, "hasMatchingListener");
        let (key, of) = (spec("routingKey"), spec("connectorNamespace"));
        vec![name, key, of, status, matched, message]
    }

    fn fields(value: &Value) -> Vec<(&'static str, String)> {
        let of = show::text(value, "/spec/connectorNamespace");
        vec![
            ("Routing key", show::text(value, "/spec/routingKey")),
            ("Connector Namespace", of),
            (
                "Has Matching Listener",
                bool_text(value, "hasMatchingListener"),
            ),
        ]
    }

    fn notes(value: &Value) -> Vec<(&'static str, String)> {
        optional_details(value)
    }
}
