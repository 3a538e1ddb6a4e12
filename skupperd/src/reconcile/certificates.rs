//! Certificate resources: credentials by wish, renewed before they run out.

use super::settings;
use crate::{
    model::{
        Certificate, CertificateDetails, ConditionType, Draft, Kind, Name, Secret, Settings, State,
    },
    pki::{self, Wish},
    store::NamespaceDir,
    telemetry::chain,
};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Those of one namespace.
pub(super) struct Certificates {
    namespace: NamespaceDir,
    made: BTreeMap<Name, Result<Secret, String>>,
}

impl Certificates {
    pub(super) fn new(namespace: NamespaceDir) -> Self {
        Self {
            namespace,
            made: BTreeMap::new(),
        }
    }

    /// Something is to be tried again.
    pub(super) fn has_failures(&self) -> bool {
        self.made.values().any(Result::is_err)
    }

    /// When the first of them is to be renewed.
    pub(super) fn renewal(&self) -> Option<Timestamp> {
        let made = self.made.values().filter_map(|m| m.as_ref().ok());
        made.filter_map(|s| pki::renewal(&s.certificate)).min()
    }

    /// Makes what is wanted and is not there. Gives the credentials, for whoever names them.
    pub(super) fn sync(
        &mut self,
        wanted: &BTreeMap<Name, &Certificate>,
        settings: &Settings,
        secrets: &BTreeMap<Name, Secret>,
    ) -> BTreeMap<Name, Secret> {
        let mut credentials = BTreeMap::new();
        let mut made = BTreeMap::new();
        for (name, certificate) in wanted {
            let result = make(&self.namespace, name, certificate, settings, secrets);
            match &result {
                // A CA is for signing: nobody shows it.
                Ok(secret) if !certificate.signing => {
                    credentials.insert(name.clone(), secret.clone());
                }
                Ok(_) => {}
                Err(error) if self.made.get(name) != Some(&result) => {
                    tracing::error!(namespace = %self.namespace.name(), certificate = %name, "{error}");
                }
                Err(_) => {}
            }
            made.insert(name.clone(), result);
        }
        self.made = made;
        credentials
    }

    pub(super) fn draft(&self, name: &Name) -> Draft {
        let made = self.made.get(name);
        let state = match made {
            Some(Ok(_)) => State::True,
            Some(Err(error)) => State::Error(error.clone()),
            None => State::Pending(None),
        };
        let identity = made
            .and_then(|m| m.as_ref().ok())
            .and_then(|s| pki::identify_pem(&s.certificate));
        Draft::new(Kind::Certificate, false)
            .with(ConditionType::Configured, state)
            .details(CertificateDetails {
                expiration: identity.map(|i| i.expires.to_string()).unwrap_or_default(),
            })
    }
}

fn make(
    namespace: &NamespaceDir,
    name: &Name,
    certificate: &Certificate,
    settings: &Settings,
    secrets: &BTreeMap<Name, Secret>,
) -> Result<Secret, String> {
    let rotation = settings::rotation(settings)?;
    let issuer = |name: &Name| {
        pki::issuer_for(namespace, name, secrets.get(name), Some(&rotation)).map_err(|e| chain(&e))
    };
    if certificate.signing {
        return issuer(name).map(|issuer| issuer.public());
    }
    let hosts: Vec<String> = certificate.hosts.iter().map(ToString::to_string).collect();
    let wish = Wish {
        subject: &certificate.subject,
        hosts: &hosts,
        client: certificate.client,
        server: certificate.server,
        validity: settings::validity(settings)?,
    };
    let dir = namespace.runtime_certs(name);
    pki::ensure_certificate(&issuer(&certificate.ca)?, &dir, &wish).map_err(|e| chain(&e))
}
