//! `skupper issuer`

use super::{Outcome, output, place::Place, show, view::View};
use clap::Subcommand;
use serde_json::Value;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Replace this site's CAs; what the old ones have signed stays good for a while
    Rotate {
        /// How long: 720h, 90m; 0 cuts off at once whoever has no new credentials [default: as
        /// before, or 720h]
        #[arg(long, value_name = "DURATION")]
        overlap: Option<String>,
    },
    /// Show this site's own CAs, and until when retired ones are trusted
    Status {
        #[command(flatten)]
        view: View,
    },
}

pub(super) fn run(place: &Place, verb: Verb) -> Outcome {
    match verb {
        Verb::Rotate { overlap } => rotate(place, overlap.as_deref()),
        Verb::Status { view } => status(place, &view),
    }
}

fn rotate(place: &Place, overlap: Option<&str>) -> Outcome {
    place.rotate(overlap)?;
    output::print(
        "The site's CAs are replaced by the running skupperd. Give linked sites new tokens or links \
         before the old ones stop being trusted: skupper issuer status",
    )
}

fn status(place: &Place, view: &View) -> Outcome {
    view.show(|| place.issuers().map(Value::Array), screen)
}

fn screen(all: &Value) -> String {
    let all = all.as_array().map_or(&[][..], Vec::as_slice);
    if all.is_empty() {
        return "There are no issuers of this site's own".to_owned();
    }
    let row = |v: &Value| {
        let retired = v["retired"].as_array().into_iter().flatten();
        let until = retired
            .filter(|r| r["trusted"] == true)
            .map(|r| show::text(r, "/trustedUntil"));
        vec![
            show::text(v, "/name"),
            show::text(v, "/serial"),
            show::text(v, "/expirationTime"),
            until.collect::<Vec<_>>().join(", "),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let header = ["NAME", "SERIAL", "EXPIRES", "OLD-ONES-TRUSTED-UNTIL"];
    output::columns(&header, &rows)
}
