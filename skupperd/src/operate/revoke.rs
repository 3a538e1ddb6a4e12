//! Revoking the certificates of a remote site.

use super::{OperateResult, invalid, no_site, resources};
use crate::{
    manifest::settings::REVOKED_CERTIFICATES,
    model::{Kind, Name, SerialNumber, Site, SiteDetails, Spec, Status},
    pki::{self, CertificateIdentity},
    store::NamespaceDir,
};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedCertificate {
    pub serial: String,
    /// Common name.
    pub subject: String,
    /// It had been revoked before.
    pub before: bool,
}

/// Adds the certificates of `name` to the site's list of revoked ones.
pub fn revoke(namespace: &NamespaceDir, name: &str) -> OperateResult<Vec<RevokedCertificate>> {
    let mut editor = namespace.edit()?;
    let loaded = editor.load()?.resources;
    let site = loaded.iter().find_map(|l| match &l.resource.spec {
        Spec::Site(site) => Some((l, site)),
        _ => None,
    });
    let (located, site) = site.ok_or_else(no_site)?;
    let found = certificates(namespace, name, site, &loaded)?;
    if found.is_empty() {
        let text = format!(
            "no certificate of {name:?} found: no incoming link and no certificate issued here has this \
             site name, site ID, subject or serial number"
        );
        return Err(invalid(text));
    }
    let revoked = site.settings.revoked_certificates.iter();
    let before: BTreeSet<String> = revoked.map(ToString::to_string).collect();
    let mut all = before.clone();
    all.extend(found.keys().cloned());
    // The document as it was written, with one more field.
    let mut document = (*located.document).clone();
    let list: Vec<String> = all.iter().cloned().collect();
    document["spec"]["settings"][REVOKED_CERTIFICATES] = list.join(",").into();
    resources::write(&mut editor, &document)?;
    let revoked = |(serial, subject)| RevokedCertificate {
        before: before.contains(&serial),
        serial,
        subject,
    };
    Ok(found.into_iter().map(revoked).collect())
}

/// Serial numbers and subjects of the certificates that a name refers to.
fn certificates(
    namespace: &NamespaceDir,
    name: &str,
    site: &Site,
    loaded: &[crate::manifest::LocatedResource],
) -> OperateResult<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let serial = SerialNumber::parse(name).map(String::from);
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
        for CertificateIdentity {
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
