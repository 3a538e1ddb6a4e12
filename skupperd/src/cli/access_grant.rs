//! `skupper access-grant`

use super::{
    flags,
    resource::{CliKind, SpecArgs, VerbExamples},
    show,
    wait::duration,
};
use crate::model::Kind;
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct AccessGrants;

#[derive(Debug, Args)]
#[command(mut_arg("settings", |arg| flags::setting_arg(arg, Kind::AccessGrant)))]
pub(super) struct AccessGrantArgs {
    /// Number of times that the token can be redeemed [default: 1]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    redemptions_allowed: Option<u32>,
    /// Time for which it can be redeemed, such as 15m or 24h [default: 15m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expiration_window: Option<Duration>,
    /// CA that signs the credentials of the links [default: that of the site]
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    #[command(flatten)]
    settings: flags::SettingArgs,
}

impl SpecArgs for AccessGrantArgs {
    fn apply(&self, spec: &mut Value, errors: &mut Vec<String>) {
        if let Some(allowed) = self.redemptions_allowed {
            spec["redemptionsAllowed"] = json!(allowed);
        }
        if let Some(window) = self.expiration_window {
            spec["expirationWindow"] = json!(format!("{}s", window.as_secs_f64()));
        }
        flags::set_name(self.issuer.as_deref(), "issuer", "issuer", spec, errors);
        self.settings.apply(spec, errors);
    }
}

impl CliKind for AccessGrants {
    const KIND: Kind = Kind::AccessGrant;
    const NOUN: &'static str = "access-grant";
    const SINGULAR: &'static str =
        "an access grant, from which tokens for links to this site are issued";
    const PLURAL: &'static str = "access grants, without their codes";
    const EFFECTS: (&'static str, &'static str) = ("", "; its tokens can no longer be redeemed");
    const EXAMPLES: VerbExamples = VerbExamples {
        create: &[
            "skupper access-grant create for-west",
            "# For ten sites, for a day",
            "skupper access-grant create branches --redemptions-allowed 10 --expiration-window 24h",
        ],
        update: &["skupper access-grant update branches --redemptions-allowed 20"],
        delete: &["skupper access-grant delete for-west"],
        status: &[
            "skupper access-grant status",
            "skupper access-grant status for-west",
        ],
        generate: &["skupper access-grant generate for-west > grant.yaml"],
    };
    const EMPTY: &'static str = "No access-grants found";
    const HEADER: &'static [&'static str] = &[
        "NAME",
        "REDEMPTIONS-ALLOWED",
        "REDEMPTIONS-MADE",
        "EXPIRATION",
        "STATUS",
        "MESSAGE",
    ];
    type CreateArgs = AccessGrantArgs;
    type UpdateArgs = AccessGrantArgs;

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

    fn fields(value: &Value) -> Vec<(&'static str, String)> {
        let text = |path: &str| show::text(value, path);
        vec![
            ("Redemptions allowed", text("/spec/redemptionsAllowed")),
            ("Redemptions made", text("/status/redemptions")),
            ("Expiration", text("/status/expirationTime")),
            ("URL", text("/status/url")),
        ]
    }
}
