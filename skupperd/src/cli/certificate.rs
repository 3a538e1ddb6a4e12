//! `skupper certificate`

use super::{
    edit::{Fields, Words},
    flags, show,
};
use crate::{model::Kind, pki};
use clap::Args;
use serde_json::{Value, json};

#[derive(Debug)]
pub(super) struct Certificates;

#[derive(Debug, Args)]
pub(super) struct CertificateFields {
    /// Issuer that signs it [default: skupper-service-ca]
    #[arg(long)]
    ca: Option<String>,
    /// Common name [default: the name]
    #[arg(long)]
    subject: Option<String>,
    /// Name or address it is good for; several by repeating it
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Good for clients
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    client: Option<bool>,
    /// Good for servers
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    server: Option<bool>,
    /// An issuer, which signs others
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    signing: Option<bool>,
}

impl Fields for CertificateFields {
    fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>) {
        flags::named(self.ca.as_deref(), "ca", "issuer", spec, wrong);
        if let Some(subject) = &self.subject {
            spec["subject"] = json!(subject);
        }
        flags::hosts(&self.host, "hosts", spec, wrong);
        let given = [
            ("client", self.client),
            ("server", self.server),
            ("signing", self.signing),
        ];
        flags::told(given, spec);
    }

    fn missing(&self) -> Option<&'static str> {
        let given = [self.client, self.server, self.signing];
        let none = !given.contains(&Some(true));
        none.then_some("at least one of --client, --server and --signing is required")
    }
}

impl Words for Certificates {
    const KIND: Kind = Kind::Certificate;
    const NOUN: &'static str = "certificate";
    const ONE: &'static str = "credentials that an issuer of this site signs";
    const MANY: &'static str = "credentials that issuers of this site sign";
    const NONE: &'static str = "No certificates found";
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
    type New = CertificateFields;
    type Change = CertificateFields;

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

    fn details(value: &Value) -> Vec<(&'static str, String)> {
        let (name, status, message) = show::status(value);
        let text = |path: &str| show::text(value, path);
        let hosts = value["spec"]["hosts"].as_array().into_iter().flatten();
        let hosts: Vec<&str> = hosts.filter_map(Value::as_str).collect();
        vec![
            ("Name", name),
            ("Status", status),
            ("CA", text("/spec/ca")),
            ("Subject", text("/spec/subject")),
            ("Hosts", hosts.join(",")),
            ("Expiration", text("/status/expiration")),
            ("Message", message),
            ("Note", show::notes(value)),
        ]
    }
}
