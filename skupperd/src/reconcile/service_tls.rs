//! TLS of services: the credentials of listeners and connectors, replaced under open connections when
//! they change.

mod policy;

pub(super) use policy::{ConnectorTlsPolicy, ListenerTlsPolicy, probe};

use super::{
    desired::{DesiredState, name_of},
    error::ReconcileError,
    hosts::host_names,
};
use crate::{
    model::{Host, Key, Name, Secret, SiteSettings},
    pki::{self, Rotation},
    service::tls::{ConnectorTls, ListenerTls},
    store::NamespaceDir,
    telemetry::Failures,
};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

enum ServiceTls {
    Listener(ListenerTlsPolicy, Arc<ListenerTls>),
    Connector(ConnectorTlsPolicy, Arc<ConnectorTls>),
}

struct CredentialUse {
    tls: ServiceTls,
    /// What `tls` was last made of.
    secret: Secret,
    /// When the secret is due for renewal; `None`: the user supplies it.
    changes: Option<Timestamp>,
}

/// The listeners and connectors of one namespace that use TLS.
pub(super) struct ServiceTlsRegistry {
    namespace: NamespaceDir,
    entries: BTreeMap<Key, CredentialUse>,
}

/// Where credentials come from, beside files.
#[derive(Clone, Copy)]
pub(super) struct CredentialSources<'a> {
    pub(super) desired: &'a DesiredState,
    pub(super) secrets: &'a BTreeMap<Name, Secret>,
}

impl ServiceTlsRegistry {
    pub(super) fn new(namespace: NamespaceDir) -> Self {
        Self {
            namespace,
            entries: BTreeMap::new(),
        }
    }

    /// `None` for a listener without TLS.
    pub(super) fn set_listener(
        &mut self,
        sources: CredentialSources<'_>,
        key: Key,
        policy: Option<ListenerTlsPolicy>,
    ) -> Result<Option<Arc<ListenerTls>>, ReconcileError> {
        let Some(policy) = policy else {
            self.entries.remove(&key);
            return Ok(None);
        };
        let (secret, changes) = self.listener_secret(sources, &policy.credentials)?;
        let config = policy.config(&secret)?;
        let before = self.entries.remove(&key);
        let tls = match before.map(|entry| entry.tls) {
            // Open connections stay, and new ones get the new credentials.
            Some(ServiceTls::Listener(known, tls)) if known == policy => {
                tls.config.store(Arc::new(config));
                tls
            }
            _ => Arc::new(ListenerTls {
                config: ArcSwap::from_pointee(config),
                failures: Failures::default(),
            }),
        };
        let entry = CredentialUse {
            tls: ServiceTls::Listener(policy, tls.clone()),
            secret,
            changes,
        };
        self.entries.insert(key, entry);
        Ok(Some(tls))
    }

    /// `None` for a connector without TLS.
    pub(super) fn set_connector(
        &mut self,
        sources: CredentialSources<'_>,
        key: Key,
        policy: Option<ConnectorTlsPolicy>,
    ) -> Result<Option<Arc<ConnectorTls>>, ReconcileError> {
        let Some(policy) = policy else {
            self.entries.remove(&key);
            return Ok(None);
        };
        let secret = self.connector_secret(sources, &policy)?;
        let config = policy.config(&secret)?;
        let before = self.entries.remove(&key);
        let tls = match before.map(|entry| entry.tls) {
            Some(ServiceTls::Connector(known, tls)) if known == policy => {
                tls.config.store(Arc::new(config));
                tls
            }
            _ => Arc::new(ConnectorTls {
                config: ArcSwap::from_pointee(config),
            }),
        };
        let entry = CredentialUse {
            tls: ServiceTls::Connector(policy, tls.clone()),
            secret,
            changes: None,
        };
        self.entries.insert(key, entry);
        Ok(Some(tls))
    }

    pub(super) fn remove(&mut self, key: &Key) {
        self.entries.remove(key);
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Replaces credentials that have changed, for connections from now on. A resource whose credentials
    /// cannot be had any more keeps what it had.
    pub(super) fn refresh(
        &mut self,
        sources: CredentialSources<'_>,
    ) -> BTreeMap<Key, Result<(), ReconcileError>> {
        let keys: Vec<Key> = self.entries.keys().cloned().collect();
        let refreshed = keys.into_iter().map(|key| {
            let result = self.refresh_one(sources, &key);
            let result = result.map_err(|e| ReconcileError::Unchanged(e.text()));
            (key, result)
        });
        refreshed.collect()
    }

    fn refresh_one(
        &mut self,
        sources: CredentialSources<'_>,
        key: &Key,
    ) -> Result<(), ReconcileError> {
        let Some(entry) = self.entries.get(key) else {
            return Ok(());
        };
        let (secret, changes) = match &entry.tls {
            ServiceTls::Listener(policy, _) => {
                let credentials = &policy.credentials;
                let (secret, changes) = self.listener_secret(sources, credentials)?;
                // Clients trust the user's CA: the listener does not change its identity by itself.
                if entry.changes.is_none() && changes.is_some() {
                    let text = format!("nobody supplies {credentials} any more");
                    return Err(invalid_credentials(text));
                }
                (secret, changes)
            }
            ServiceTls::Connector(policy, _) => (self.connector_secret(sources, policy)?, None),
        };
        if secret != entry.secret {
            match &entry.tls {
                ServiceTls::Listener(policy, tls) => {
                    tls.config.store(Arc::new(policy.config(&secret)?));
                }
                ServiceTls::Connector(policy, tls) => {
                    tls.config.store(Arc::new(policy.config(&secret)?));
                }
            }
            let namespace = self.namespace.name();
            tracing::info!(%namespace, resource = %key, "credentials replaced");
        }
        if let Some(entry) = self.entries.get_mut(key) {
            (entry.secret, entry.changes) = (secret, changes);
        }
        Ok(())
    }

    /// When the first of our credentials is due for renewal.
    pub(super) fn renewal(&self) -> Option<Timestamp> {
        let entries = self.entries.values();
        entries.filter_map(|entry| entry.changes).min()
    }

    /// End of the validity of the certificate that a listener presents; empty without one.
    pub(super) fn expires(&self, key: &Key) -> String {
        let entry = self.entries.get(key);
        let identity = entry.and_then(|entry| pki::identify_pem(&entry.secret.certificate));
        identity.map(|i| i.expires.to_string()).unwrap_or_default()
    }

    /// Credentials that a listener presents: the user's, or ours, issued for the hosts of all listeners
    /// that present them. With the time at which ours are due for renewal.
    fn listener_secret(
        &self,
        sources: CredentialSources<'_>,
        credentials: &Name,
    ) -> Result<(Secret, Option<Timestamp>), ReconcileError> {
        let needed = ["tls.crt", "tls.key"];
        let secret = sources.secrets.get(credentials);
        let supplied = pki::service_credentials(&self.namespace, credentials, secret, &needed);
        if let Some(supplied) = supplied.map_err(invalid_credentials)? {
            return Ok((supplied, None));
        }
        let mut accesses = sources.desired.router_accesses();
        if let Some((access, _)) = accesses.find(|(_, a)| a.tls_credentials == *credentials) {
            let text = format!("credentials {credentials} are those of RouterAccess {access}");
            return Err(invalid_credentials(text));
        }
        let defaults = SiteSettings::default();
        let site = sources.desired.site.as_ref();
        let settings = site.map_or(&defaults, |(_, site)| &*site.settings);
        let ca = name_of(pki::SERVICE_CA)?;
        let rotation = Rotation::of(settings);
        let secret = sources.secrets.get(&ca);
        let issuer = pki::issuer_for(&self.namespace, &ca, secret, Some(&rotation))?;
        let hosts = certificate_hosts(sources.desired, credentials);
        let dir = self.namespace.runtime_certs(credentials);
        let validity = settings.server_certificate_validity;
        let mut issued = pki::ensure_server(&issuer, &dir, credentials, &hosts, validity)?;
        let changes = [pki::renewal(&issued.certificate), issuer.next_change()];
        // Clients with certificates of a CA that is being replaced are accepted too.
        issued.ca = issuer.trusted();
        Ok((issued, changes.into_iter().flatten().min()))
    }

    /// What a connector trusts and shows: always the user's.
    fn connector_secret(
        &self,
        sources: CredentialSources<'_>,
        policy: &ConnectorTlsPolicy,
    ) -> Result<Secret, ReconcileError> {
        let needed: &[&str] = if policy.use_client_cert {
            &["ca.crt", "tls.crt", "tls.key"]
        } else {
            &["ca.crt"]
        };
        let credentials = &policy.credentials;
        let secret = sources.secrets.get(credentials);
        let supplied = pki::service_credentials(&self.namespace, credentials, secret, needed);
        let supplied = supplied.map_err(invalid_credentials)?;
        let missing = || {
            format!(
                "TLS credentials secret {:?} not found",
                credentials.as_str()
            )
        };
        supplied.ok_or_else(|| invalid_credentials(missing()))
    }
}

fn invalid_credentials(
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> ReconcileError {
    ReconcileError::field("tlsCredentials", error)
}

/// Hosts of the listeners that show these credentials.
fn certificate_hosts(desired: &DesiredState, credentials: &Name) -> Vec<String> {
    let mut hosts = BTreeSet::new();
    let listeners = desired.listeners();
    let listeners = listeners.map(|(_, l)| (&l.tls_credentials, &l.host));
    let multi_key = desired.multi_key_listeners();
    let multi_key = multi_key.map(|l| (&l.tls_credentials, &l.host));
    for (shown, host) in listeners.chain(multi_key) {
        if shown.as_ref() == Some(credentials) {
            add_names(host, &mut hosts);
        }
    }
    hosts.into_iter().collect()
}

/// Adds the names that clients of a listener may know it by.
fn add_names(host: &Host, names: &mut BTreeSet<String>) {
    let ip = host.ip();
    // A listener on all addresses is known by everything that the host is known by.
    if ip.is_some_and(|ip| ip.is_unspecified()) {
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        names.extend(host_names());
    } else {
        names.insert(host.to_string());
    }
    if ip.is_some_and(|ip| ip.is_loopback()) {
        names.insert("localhost".to_owned());
    }
}
