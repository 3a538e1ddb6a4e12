//! The CAs of a site: replacing and showing them.

use super::{OperateResult, invalid, no_site, resources};
use crate::{
    manifest::{
        LocatedResource,
        settings::{ISSUER_OVERLAP, ROTATE_ISSUERS_BEFORE},
    },
    model::{Kind, Name, Spec, parse_duration},
    pki,
    store::{NamespaceDir, StoreError},
    telemetry::chain,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, io, path::Path};

/// Asks the daemon to replace the site's CAs. `overlap`: how long the old ones stay trusted; without it,
/// as before.
pub fn rotate(namespace: &NamespaceDir, overlap: Option<&str>) -> OperateResult<()> {
    if let Some(text) = overlap
        && parse_duration(text).is_none()
    {
        let text = format!("overlap is not valid: {text:?} is not a duration such as 720h");
        return Err(invalid(text));
    }
    let mut editor = namespace.edit()?;
    let sites = resources::desired(namespace, Kind::Site)?;
    let site = sites.first().ok_or_else(no_site)?;
    let mut document = (*site.document).clone();
    let settings = &mut document["spec"]["settings"];
    settings[ROTATE_ISSUERS_BEFORE] = Timestamp::now().to_string().into();
    if let Some(overlap) = overlap {
        settings[ISSUER_OVERLAP] = overlap.into();
    }
    resources::write(&mut editor, &document)?;
    Ok(())
}

/// The CAs that the site uses, by name, with where each comes from, and until when replaced ones are
/// trusted. Contains no secrets.
pub fn issuers(namespace: &NamespaceDir) -> OperateResult<Vec<Value>> {
    let loaded = namespace.load()?.resources;
    let mut names = own_issuers(namespace)?;
    names.extend(named_issuers(namespace, &loaded)?);
    let mut found = Vec::new();
    for name in names {
        let secret = resources::user_secret(&loaded, &name);
        match pki::supplied_issuer(namespace, &name, secret) {
            Ok(Some(issuer)) => found.push(describe(&name, &issuer)),
            Ok(None) if has_key(namespace, &name) => {
                let issuer = pki::ensure_issuer(&namespace.runtime_issuer(&name), &name)?;
                found.push(describe(&name, &issuer));
            }
            // It is made when it is needed.
            Ok(None) => {}
            // The other CAs are shown all the same.
            Err(error) => found.push(json!({
                "name": name.as_str(),
                "source": "supplied",
                "error": chain(&error),
            })),
        }
    }
    Ok(found)
}

fn describe(name: &Name, issuer: &pki::Issuer) -> Value {
    let now = Timestamp::now();
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
        "source": if issuer.is_supplied() { "supplied" } else { "own" },
        "serial": pki::identify_pem(issuer.certificate()).map(|i| i.serial),
        "expirationTime": issuer.expires().map(|e| e.to_string()),
        "retired": retired.collect::<Vec<Value>>(),
    })
}

/// Without a key it is the CA of another site.
fn has_key(namespace: &NamespaceDir, name: &Name) -> bool {
    namespace.runtime_issuer(name).join("tls.key").exists()
}

/// Names of the CAs that the site has made.
fn own_issuers(namespace: &NamespaceDir) -> OperateResult<BTreeSet<Name>> {
    let mut names = directory_names(&namespace.runtime_issuers())?;
    names.retain(|name| has_key(namespace, name));
    Ok(names)
}

/// Names that resources, defaults and supplied files use for CAs.
fn named_issuers(
    namespace: &NamespaceDir,
    loaded: &[LocatedResource],
) -> OperateResult<BTreeSet<Name>> {
    let mut names = directory_names(&namespace.input().join("issuers"))?;
    for name in [pki::SITE_CA, pki::SERVICE_CA] {
        names.insert(Name::new(name)?);
    }
    names.extend(loaded.iter().filter_map(|l| match &l.resource.spec {
        Spec::Site(site) => site.default_issuer.clone(),
        Spec::RouterAccess(access) => access.issuer.clone(),
        Spec::AccessGrant(grant) => grant.issuer.clone(),
        Spec::Certificate(certificate) if certificate.signing => Some(l.resource.name().clone()),
        Spec::Certificate(certificate) => Some(certificate.ca.clone()),
        _ => None,
    }));
    Ok(names)
}

/// Names of resources among the entries of a directory; none where there is no directory.
fn directory_names(dir: &Path) -> OperateResult<BTreeSet<Name>> {
    let fail = |e| StoreError::io("reading directory", dir)(e);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(e) => return Err(fail(e).into()),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let name = entry.map_err(fail)?.file_name().into_string().ok();
        names.extend(name.and_then(|n| Name::new(n).ok()));
    }
    Ok(names)
}
