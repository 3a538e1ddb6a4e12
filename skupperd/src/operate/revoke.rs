//! Taking back what a remote site was given.

use super::{Outcome, edit, invalid};
use crate::{
    model::{Kind, Name, Site, SiteDetails, Spec, Status},
    pki::{self, Identity},
    reconcile::{REVOKED, revoked},
    store::NamespaceDir,
};
use std::collections::{BTreeMap, BTreeSet};

/// A certificate that is not taken any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Serial number.
    pub serial: String,
    /// Common name.
    pub subject: String,
    /// It was so before.
    pub before: bool,
}

/// Adds the certificates of `name` to those that the site does not take any more.
pub fn revoke(namespace: &NamespaceDir, name: &str) -> Outcome<Vec<Revoked>> {
    let mut editor = namespace.edit()?;
    let loaded = editor.load()?.resources;
    let site = loaded.iter().find_map(|l| match &l.resource.spec {
        Spec::Site(site) => Some((l, site)),
        _ => None,
    });
    let (located, site) =
        site.ok_or_else(|| invalid("there is no active site in this namespace"))?;
    let found = certificates(namespace, name, site, &loaded)?;
    if found.is_empty() {
        let text = format!(
            "There is no certificate of {name:?}: neither a link that is up nor anything that was \
             issued here has that name, identity, subject or serial number"
        );
        return Err(invalid(text));
    }
    let mut all = revoked(&site.settings).map_err(invalid)?;
    let before = all.clone();
    all.extend(found.keys().cloned());
    // As it was written, with one field more.
    let mut document = (*located.document).clone();
    let list: Vec<String> = all.iter().cloned().collect();
    document["spec"]["settings"][REVOKED] = list.join(",").into();
    edit::write(&mut editor, &document)?;
    let revoked = |(serial, subject)| Revoked {
        before: before.contains(&serial),
        serial,
        subject,
    };
    Ok(found.into_iter().map(revoked).collect())
}

/// Serial numbers and subjects of certificates that go by a name.
fn certificates(
    namespace: &NamespaceDir,
    name: &str,
    site: &Site,
    loaded: &[crate::manifest::Located],
) -> Outcome<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let serial = pki::canonical(name);
    for value in namespace.statuses(Kind::Site)?.values() {
        let Some(status) = value.get("status") else {
            continue;
        };
        let status: Status<SiteDetails> = serde_json::from_value(status.clone())?;
        for link in status.details.incoming_links {
            let known_as = [
                &link.remote_site_name,
                &link.remote_site_id,
                &link.certificate.subject,
            ];
            let by_serial = serial.as_ref() == Some(&link.certificate.serial);
            if by_serial || known_as.into_iter().any(|known| known == name) {
                found.insert(link.certificate.serial, link.certificate.subject);
            }
        }
    }
    let issuer = site
        .default_issuer
        .clone()
        .map_or_else(|| Name::new(pki::SITE_CA), Ok);
    let mut issuers = BTreeSet::from([issuer?]);
    issuers.extend(loaded.iter().filter_map(|l| match &l.resource.spec {
        Spec::RouterAccess(access) => access.issuer.clone(),
        _ => None,
    }));
    for issuer in issuers {
        let issued = pki::issued(&namespace.runtime_issuer(&issuer))?;
        for Identity {
            serial: its,
            subject,
            ..
        } in issued
        {
            if subject == name || serial.as_ref() == Some(&its) {
                found.insert(its, subject);
            }
        }
    }
    Ok(found)
}
