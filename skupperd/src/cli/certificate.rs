//! `skupper certificate`

use super::{
    flags,
    resource::{CliKind, SpecArgs, VerbExamples},
    show,
};
use crate::{model::Kind, pki};
use clap::Args;
use serde_json::{Value, json};

#[derive(Debug)]
pub(super) struct Certificates;

#[derive(Debug, Args)]
pub(super) struct CertificateArgs {
    /// CA of this site that signs it [default: skupper-service-ca]
    #[arg(long, value_name = "NAME")]
    ca: Option<String>,
    /// Common name in the certificate [default: NAME]
    #[arg(long)]
    subject: Option<String>,
    /// Host name or address in the certificate; repeat for several
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Make it valid for TLS clients
    #[arg(long, num_args = 0..=1, value_name = "BOOL", hide_possible_values = true, default_missing_value = "true", require_equals = true)]
    client: Option<bool>,
    /// Make it valid for TLS servers
    #[arg(long, num_args = 0..=1, value_name = "BOOL", hide_possible_values = true, default_missing_value = "true", require_equals = true)]
    server: Option<bool>,
    /// Make it a CA, which can sign others
    #[arg(long, num_args = 0..=1, value_name = "BOOL", hide_possible_values = true, default_missing_value = "true", require_equals = true)]
    signing: Option<bool>,
}

impl SpecArgs for CertificateArgs {
    fn apply(&self, spec: &mut Value, errors: &mut Vec<String>) {
        flags::set_name(self.ca.as_deref(), "ca", "issuer", spec, errors);
        if let Some(subject) = &self.subject {
            spec["subject"] = json!(subject);
        }
        flags::set_hosts(&self.host, "hosts", spec, errors);
        let given = [
            ("client", self.client),
            ("server", self.server),
            ("signing", self.signing),
        ];
        flags::set_bools(given, spec);
    }

    fn missing_argument(&self) -> Option<&'static str> {
        let given = [self.client, self.server, self.signing];
        let none = !given.contains(&Some(true));
        none.then_some("at least one of --client, --server and --signing is required")
    }
}

impl CliKind for Certificates {
    const KIND: Kind = Kind::Certificate;
    const NOUN: &'static str = "certificate";
    const SINGULAR: &'static str = "a certificate that a CA of this site signs";
    const PLURAL: &'static str = "certificates that the CAs of this site sign";
    const EXAMPLES: VerbExamples = VerbExamples {
        create: &[
            "# TLS for a listener: skupper listener update web --tls-credentials web",
            "skupper certificate create web --server --host web.example.com",
            "skupper certificate create laptop --client --subject alice",
        ],
        update: &["skupper certificate update web --host web.example.com --host 192.0.2.1"],
        delete: &["skupper certificate delete web"],
        status: &[
            "skupper certificate status",
            "skupper certificate status web",
        ],
        generate: &["skupper certificate generate web --server --host web.example.com > web.yaml"],
    };
    const EMPTY: &'static str = "No certificates found";
    const HEADER: &'static [&'static str] = &[
        "NAME",
        "CA",
        "SERVER",
        "CLIENT",
        "SIGNING",
        "STATUS",
        "EXPIRATION",
        "MESSAGE",
    ];
    type CreateArgs = CertificateArgs;
    type UpdateArgs = CertificateArgs;

    fn spec(name: &str) -> Value {
        json!({ "ca": pki::SERVICE_CA, "subject": name })
    }

    fn row(value: &Value) -> Vec<String> {
        let (name, status, message) = show::status(value);
        let text = |path: &str| show::text(value, path);
        vec![
            name,
            text("/spec/ca"),
            text("/spec/server"),
            text("/spec/client"),
            text("/spec/signing"),
            status,
            text("/status/expiration"),
            message,
        ]
    }

    fn fields(value: &Value) -> Vec<(&'static str, String)> {
        let text = |path: &str| show::text(value, path);
        let hosts = value["spec"]["hosts"].as_array().into_iter().flatten();
        let hosts: Vec<&str> = hosts.filter_map(Value::as_str).collect();
        vec![
            ("CA", text("/spec/ca")),
            ("Subject", text("/spec/subject")),
            ("Hosts", hosts.join(",")),
            ("Expiration", text("/status/expiration")),
        ]
    }
}
