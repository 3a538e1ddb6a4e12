//! `skupper issuer`

use super::{
    Failure, Outcome, edit, invalid,
    output::{self, Format},
};
use crate::{
    model::{Kind, Name, Spec, parse_duration},
    pki,
    reconcile::{OVERLAP, ROTATE},
    store::NamespaceDir,
};
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{fs, io};

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
        format: Format,
    },
}

pub(super) fn run(namespace: &NamespaceDir, verb: Verb) -> Outcome {
    match verb {
        Verb::Rotate { overlap } => rotate(namespace, overlap),
        Verb::Status { format } => status(namespace, &format),
    }
}

fn rotate(namespace: &NamespaceDir, overlap: Option<String>) -> Outcome {
    if let Some(text) = &overlap
        && parse_duration(text).is_none()
    {
        return Err(invalid(format!(
            "overlap is not valid: {text:?} is not a duration"
        )));
    }
    let mut editor = namespace.edit()?;
    let sites = edit::wanted(namespace, Kind::Site)?;
    let site = sites
        .iter()
        .find(|l| matches!(l.resource.spec, Spec::Site(_)))
        .ok_or_else(|| invalid("there is no active site in this namespace"))?;
    let mut document = (*site.document).clone();
    let settings = &mut document["spec"]["settings"];
    settings[ROTATE] = Timestamp::now().to_string().into();
    if let Some(overlap) = overlap {
        settings[OVERLAP] = overlap.into();
    }
    edit::write(&mut editor, &document)?;
    output::print(
        "The site's CAs are replaced by the running skupperd. Give linked sites new tokens or links \
         before the old ones stop being trusted: skupper issuer status",
    )
}

/// The CAs of our own that there are, by name.
fn issuers(namespace: &NamespaceDir) -> Result<Vec<(Name, pki::Issuer)>, Failure> {
    let dir = namespace.runtime_issuers();
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => {
            let text = format!("reading {}", dir.display());
            return Err(anyhow::Error::new(e).context(text).into());
        }
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().and_then(|n| Name::new(n).ok()) else {
            continue;
        };
        if entry.path().join("tls.key").exists() {
            let issuer = pki::ensure_issuer(&entry.path(), &name).map_err(anyhow::Error::from)?;
            found.push((name, issuer));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

fn status(namespace: &NamespaceDir, format: &Format) -> Outcome {
    let encoding = format.encoding()?;
    let now = Timestamp::now();
    let describe = |(name, issuer): &(Name, pki::Issuer)| {
        let retired = issuer.retired().iter().map(|r| {
            let identity = pki::identify_pem(&r.certificate);
            json!({
                "serial": identity.map(|i| i.serial),
                "trustedUntil": r.until.to_string(),
                "trusted": r.until > now,
            })
        });
        json!({
            "name": name.as_str(),
            "serial": pki::identify_pem(issuer.certificate()).map(|i| i.serial),
            "expirationTime": issuer.expires().map(|e| e.to_string()),
            "retired": retired.collect::<Vec<Value>>(),
        })
    };
    let all: Vec<Value> = issuers(namespace)?.iter().map(describe).collect();
    if let Some(encoding) = encoding {
        return output::document(&Value::Array(all), encoding);
    }
    if all.is_empty() {
        return output::print("There are no issuers of this site's own");
    }
    let row = |v: &Value| {
        let retired = v["retired"].as_array().into_iter().flatten();
        let until = retired
            .filter(|r| r["trusted"] == true)
            .map(|r| edit::text(r, "/trustedUntil"));
        vec![
            edit::text(v, "/name"),
            edit::text(v, "/serial"),
            edit::text(v, "/expirationTime"),
            until.collect::<Vec<_>>().join(", "),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    output::table(
        &["NAME", "SERIAL", "EXPIRES", "OLD-ONES-TRUSTED-UNTIL"],
        &rows,
    )
}
