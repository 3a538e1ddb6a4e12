//! `skupper issuer`

use super::{
    CommandResult, examples::examples, output, show, target::CommandTarget, view::ViewArgs,
};
use clap::Subcommand;
use serde_json::Value;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Replace the CAs of this site; certificates that the old CAs signed stay valid for an overlap
    #[command(after_help = examples(&[
        "skupper issuer rotate",
        "# Refuse all old certificates at once",
        "skupper issuer rotate --overlap 0",
    ]))]
    Rotate {
        /// Time for which the old CAs stay trusted, such as 90m or 720h; 0 ends their trust at once
        /// [default: that of the last rotation, or 720h]
        #[arg(long, value_name = "DURATION")]
        overlap: Option<String>,
    },
    /// Show the CAs that this site uses, own and supplied, and until when replaced ones are trusted
    #[command(after_help = examples(&["skupper issuer status", "skupper issuer status -o yaml"]))]
    Status {
        #[command(flatten)]
        view: ViewArgs,
    },
}

pub(super) fn run(target: &CommandTarget, verb: Verb) -> CommandResult {
    match verb {
        Verb::Rotate { overlap } => rotate(target, overlap.as_deref()),
        Verb::Status { view } => status(target, &view),
    }
}

fn rotate(target: &CommandTarget, overlap: Option<&str>) -> CommandResult {
    target.rotate_issuers(overlap)?;
    output::print(
        "skupperd replaces the CAs of the site. Give linked sites new tokens or links before the \
         old CAs end; their times: skupper issuer status",
    )
}

fn status(target: &CommandTarget, view: &ViewArgs) -> CommandResult {
    view.show(|| target.issuers().map(Value::Array), screen)
}

fn screen(all: &Value) -> String {
    let all = all.as_array().map_or(&[][..], Vec::as_slice);
    if all.is_empty() {
        return "No issuers found".to_owned();
    }
    let row = |v: &Value| {
        let retired = v["retired"].as_array().into_iter().flatten();
        let until = retired
            .filter(|r| r["trusted"] == true)
            .map(|r| show::text(r, "/trustedUntil"));
        vec![
            show::text(v, "/name"),
            show::text(v, "/source"),
            match v["error"].as_str() {
                Some(error) => error.to_owned(),
                None => show::text(v, "/serial"),
            },
            show::text(v, "/expirationTime"),
            until.collect::<Vec<_>>().join(", "),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let header = [
        "NAME",
        "SOURCE",
        "SERIAL",
        "EXPIRES",
        "OLD-ONES-TRUSTED-UNTIL",
    ];
    output::columns(&header, &rows)
}
