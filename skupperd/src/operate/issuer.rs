//! The CAs of a site's own.

use super::{Outcome, edit, invalid};
use crate::{
    model::{Kind, Name, parse_duration},
    pki,
    reconcile::{OVERLAP, ROTATE},
    store::{NamespaceDir, StoreError},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{fs, io};

/// Has the site's own CAs replaced by the daemon. `overlap`: how long the old ones are trusted; as
/// before without.
pub fn rotate(namespace: &NamespaceDir, overlap: Option<&str>) -> Outcome<()> {
    if let Some(text) = overlap
        && parse_duration(text).is_none()
    {
        let text = format!("overlap is not valid: {text:?} is not a duration");
        return Err(invalid(text));
    }
    let mut editor = namespace.edit()?;
    let sites = edit::wanted(namespace, Kind::Site)?;
    let site = sites
        .first()
        .ok_or_else(|| invalid("there is no active site in this namespace"))?;
    let mut document = (*site.document).clone();
    let settings = &mut document["spec"]["settings"];
    settings[ROTATE] = Timestamp::now().to_string().into();
    if let Some(overlap) = overlap {
        settings[OVERLAP] = overlap.into();
    }
    edit::write(&mut editor, &document)?;
    Ok(())
}

/// The CAs of the site's own that there are, by name, and until when retired ones are trusted. Nothing
/// secret is in it.
pub fn issuers(namespace: &NamespaceDir) -> Outcome<Vec<Value>> {
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
    Ok(own(namespace)?.iter().map(describe).collect())
}

fn own(namespace: &NamespaceDir) -> Outcome<Vec<(Name, pki::Issuer)>> {
    let dir = namespace.runtime_issuers();
    let fail = |e| StoreError::io("reading directory", &dir)(e);
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(fail(e).into()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().into_string().ok();
        let Some(name) = name.and_then(|n| Name::new(n).ok()) else {
            continue;
        };
        // One without a key has signed nothing.
        if entry.path().join("tls.key").exists() {
            let issuer = pki::ensure_issuer(&entry.path(), &name)?;
            found.push((name, issuer));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}
