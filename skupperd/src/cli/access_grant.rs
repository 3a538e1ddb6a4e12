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
            redemptions_allowed(value),
            text("/status/redemptions"),
            text("/status/expirationTime"),
            status,
            message,
        ]
    }

    fn fields(value: &Value) -> Vec<(&'static str, String)> {
        let text = |path: &str| show::text(value, path);
        vec![
            ("Redemptions allowed", redemptions_allowed(value)),
            ("Redemptions made", text("/status/redemptions")),
            ("Expiration", text("/status/expirationTime")),
            ("URL", text("/status/url")),
        ]
    }
}

/// Absent and 0 stand for the default.
fn redemptions_allowed(value: &Value) -> String {
    let allowed = value.pointer("/spec/redemptionsAllowed");
    let allowed = allowed.and_then(Value::as_u64).filter(|n| *n > 0);
    allowed.unwrap_or(1).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_shows_the_default_number_of_redemptions() {
        for (spec, expected) in [
            (json!({}), "1"),
            (json!({"redemptionsAllowed": 0}), "1"),
            (json!({"redemptionsAllowed": 10}), "10"),
        ] {
            let grant = json!({"metadata": {"name": "g"}, "spec": spec});
            assert_eq!(AccessGrants::row(&grant)[1], expected);
            let fields = AccessGrants::fields(&grant);
            assert_eq!(fields[0], ("Redemptions allowed", expected.to_owned()));
        }
    }
}
