//! Certificate: credentials that the daemon makes, and renews before they expire.

use super::super::error::ReconcileError;
use crate::{
    model::{
        Certificate, CertificateDetails, ConditionState, ConditionType, Kind, Name, Secret,
        SiteSettings, StatusDraft,
    },
    pki::{self, CertificateRequest, Rotation},
    store::NamespaceDir,
};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// The certificates of one namespace.
pub(in crate::reconcile) struct Certificates {
    namespace: NamespaceDir,
    issued: BTreeMap<Name, Result<Secret, ReconcileError>>,
}

impl Certificates {
    pub(in crate::reconcile) fn new(namespace: NamespaceDir) -> Self {
        Self {
            namespace,
            issued: BTreeMap::new(),
        }
    }

    pub(in crate::reconcile) fn has_failures(&self) -> bool {
        self.issued.values().any(Result::is_err)
    }

    /// When the first of them is due for renewal.
    pub(in crate::reconcile) fn renewal(&self) -> Option<Timestamp> {
        let issued = self.issued.values().filter_map(|m| m.as_ref().ok());
        issued.filter_map(|s| pki::renewal(&s.certificate)).min()
    }

    /// Issues what is missing or due for renewal. Returns the credentials, for resources that name
    /// them.
    pub(in crate::reconcile) fn sync(
        &mut self,
        certificates: &BTreeMap<Name, &Certificate>,
        settings: &SiteSettings,
        secrets: &BTreeMap<Name, Secret>,
    ) -> BTreeMap<Name, Secret> {
        let mut credentials = BTreeMap::new();
        let mut issued = BTreeMap::new();
        for (name, certificate) in certificates {
            let result = issue(&self.namespace, name, certificate, settings, secrets);
            match &result {
                // The key of a CA is for signing, not for use by other resources.
                Ok(secret) if !certificate.signing => {
                    credentials.insert(name.clone(), secret.clone());
                }
                Ok(_) => {}
                Err(error) if self.issued.get(name) != Some(&result) => {
                    let (namespace, error) = (self.namespace.name(), error.text());
                    tracing::error!(%namespace, certificate = %name, error, "cannot issue certificate");
                }
                Err(_) => {}
            }
            issued.insert(name.clone(), result);
        }
        self.issued = issued;
        credentials
    }

    pub(in crate::reconcile) fn status(&self, name: &Name) -> StatusDraft {
        let issued = self.issued.get(name);
        let state = match issued {
            Some(Ok(_)) => ConditionState::True,
            Some(Err(error)) => ConditionState::Error(error.text()),
            None => ConditionState::Pending(None),
        };
        let secret = issued.and_then(|issued| issued.as_ref().ok());
        let identity = secret.and_then(|s| pki::identify_pem(&s.certificate));
        StatusDraft::new(Kind::Certificate, false)
            .with(ConditionType::Configured, state)
            .details(CertificateDetails {
                expiration: identity.map(|i| i.expires.to_string()).unwrap_or_default(),
            })
    }
}

fn issue(
    namespace: &NamespaceDir,
    name: &Name,
    certificate: &Certificate,
    settings: &SiteSettings,
    secrets: &BTreeMap<Name, Secret>,
) -> Result<Secret, ReconcileError> {
    let rotation = Rotation::of(settings);
    let issuer = |name: &Name| pki::issuer_for(namespace, name, secrets.get(name), Some(&rotation));
    if certificate.signing {
        return Ok(issuer(name)?.public());
    }
    let hosts: Vec<String> = certificate.hosts.iter().map(ToString::to_string).collect();
    let request = CertificateRequest {
        subject: &certificate.subject,
        hosts: &hosts,
        client: certificate.client,
        server: certificate.server,
        validity: settings.server_certificate_validity,
    };
    let dir = namespace.runtime_certs(name);
    let issuer = issuer(&certificate.ca)?;
    Ok(pki::ensure_certificate(&issuer, &dir, &request)?)
}
