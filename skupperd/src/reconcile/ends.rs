//! The ends of services: the credentials that listeners and connectors speak TLS with.

mod policy;

pub(super) use policy::{notes, probe, proxy_protocol};

use super::{hosts::host_names, settings};
use crate::{
    link::ends::{BackTls, Failures, FrontTls},
    model::{Connector, Key, Kind, Listener, MultiKeyListener, Name, Secret, Settings},
    pki,
    plan::Picture,
    store::NamespaceDir,
    telemetry::chain,
};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use policy::{BackPolicy, FrontPolicy, field};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

enum Side {
    Front(FrontPolicy, Arc<FrontTls>),
    Back(BackPolicy, Arc<BackTls>),
}

struct Open {
    side: Side,
    /// What was last made use of.
    secret: Secret,
    /// When it is to be made anew.
    changes: Option<Timestamp>,
}

/// The ends of one namespace that speak TLS.
pub(super) struct Ends {
    namespace: NamespaceDir,
    open: BTreeMap<Key, Open>,
}

/// What there is to choose credentials from.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) wanted: &'a Picture,
    pub(super) secrets: &'a BTreeMap<Name, Secret>,
}

impl Ends {
    pub(super) fn new(namespace: NamespaceDir) -> Self {
        Self {
            namespace,
            open: BTreeMap::new(),
        }
    }

    /// How a Listener speaks TLS, if it does.
    pub(super) fn listener(
        &mut self,
        from: Sources<'_>,
        name: &Name,
        listener: &Listener,
    ) -> Result<Option<Arc<FrontTls>>, String> {
        let key = Key::new(Kind::Listener, name.clone());
        let policy = FrontPolicy::of(listener.tls_credentials.as_ref(), &listener.settings, false)?;
        self.front(from, key, policy)
    }

    /// How a MultiKeyListener speaks TLS, if it does.
    pub(super) fn multikey(
        &mut self,
        from: Sources<'_>,
        name: &Name,
        listener: &MultiKeyListener,
    ) -> Result<Option<Arc<FrontTls>>, String> {
        let key = Key::new(Kind::MultiKeyListener, name.clone());
        let (credentials, settings) = (listener.tls_credentials.as_ref(), &listener.settings);
        let policy = FrontPolicy::of(credentials, settings, listener.require_client_cert)?;
        self.front(from, key, policy)
    }

    fn front(
        &mut self,
        from: Sources<'_>,
        key: Key,
        policy: Option<FrontPolicy>,
    ) -> Result<Option<Arc<FrontTls>>, String> {
        let Some(policy) = policy else {
            self.open.remove(&key);
            return Ok(None);
        };
        let (secret, changes) = self.shown(from, &policy.credentials)?;
        let config = policy.config(&secret)?;
        let before = self.open.remove(&key);
        let tls = match before.map(|open| open.side) {
            // Connections go on, and new ones have the new credentials.
            Some(Side::Front(known, tls)) if known == policy => {
                tls.config.store(Arc::new(config));
                tls
            }
            _ => Arc::new(FrontTls {
                config: ArcSwap::from_pointee(config),
                failures: Failures::default(),
            }),
        };
        let side = Side::Front(policy, tls.clone());
        self.open.insert(
            key,
            Open {
                side,
                secret,
                changes,
            },
        );
        Ok(Some(tls))
    }

    /// How a Connector speaks TLS, if it does.
    pub(super) fn connector(
        &mut self,
        from: Sources<'_>,
        key: Key,
        connector: &Connector,
    ) -> Result<Option<Arc<BackTls>>, String> {
        let Some(policy) = BackPolicy::of(connector)? else {
            self.open.remove(&key);
            return Ok(None);
        };
        let secret = self.trusted(from, &policy)?;
        let config = policy.config(&secret)?;
        let before = self.open.remove(&key);
        let tls = match before.map(|open| open.side) {
            Some(Side::Back(known, tls)) if known == policy => {
                tls.config.store(Arc::new(config));
                tls
            }
            _ => Arc::new(BackTls {
                config: ArcSwap::from_pointee(config),
            }),
        };
        let side = Side::Back(policy, tls.clone());
        self.open.insert(
            key,
            Open {
                side,
                secret,
                changes: None,
            },
        );
        Ok(Some(tls))
    }

    pub(super) fn remove(&mut self, kind: Kind, name: &Name) {
        self.open.remove(&Key::new(kind, name.clone()));
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
    }

    /// Replaces credentials that have changed, for connections from now on. Gives the ends whose
    /// credentials can not be had any more, and why; they keep what they had.
    pub(super) fn refresh(&mut self, from: Sources<'_>) -> BTreeMap<Key, String> {
        let mut failed = BTreeMap::new();
        let keys: Vec<Key> = self.open.keys().cloned().collect();
        for key in keys {
            let Some(open) = self.open.get(&key) else {
                continue;
            };
            let fresh = match &open.side {
                Side::Front(policy, _) => self.shown(from, &policy.credentials),
                Side::Back(policy, _) => self.trusted(from, policy).map(|secret| (secret, None)),
            };
            let fresh = fresh.and_then(|(secret, changes)| {
                let changed = secret != open.secret;
                if changed {
                    match &open.side {
                        Side::Front(policy, tls) => {
                            tls.config.store(Arc::new(policy.config(&secret)?));
                        }
                        Side::Back(policy, tls) => {
                            tls.config.store(Arc::new(policy.config(&secret)?));
                        }
                    }
                }
                Ok((secret, changes, changed))
            });
            match fresh {
                Ok((secret, changes, changed)) => {
                    if changed {
                        let namespace = self.namespace.name();
                        tracing::info!(%namespace, resource = %key, "credentials are replaced");
                    }
                    if let Some(open) = self.open.get_mut(&key) {
                        (open.secret, open.changes) = (secret, changes);
                    }
                }
                Err(error) => {
                    let text = format!("{error}; what it had stays in use");
                    failed.insert(key, text);
                }
            }
        }
        failed
    }

    /// When the first of our credentials is to be renewed.
    pub(super) fn renewal(&self) -> Option<Timestamp> {
        self.open.values().filter_map(|open| open.changes).min()
    }

    /// End of the validity of the certificate that a listener shows; empty for none.
    pub(super) fn expires(&self, key: &Key) -> String {
        let shown = self.open.get(key);
        let identity = shown.and_then(|open| pki::identify_pem(&open.secret.certificate));
        identity.map(|i| i.expires.to_string()).unwrap_or_default()
    }

    /// What listeners show: the user's, or ours, issued for the hosts they listen on.
    fn shown(
        &self,
        from: Sources<'_>,
        credentials: &Name,
    ) -> Result<(Secret, Option<Timestamp>), String> {
        let needed = ["tls.crt", "tls.key"];
        let secret = from.secrets.get(credentials);
        let given = pki::given_end(&self.namespace, credentials, secret, &needed);
        if let Some(given) = given.map_err(|e| field("tlsCredentials", &chain(&e)))? {
            return Ok((given, None));
        }
        let accesses = &from.wanted.accesses;
        if let Some((access, _)) = accesses
            .iter()
            .find(|(_, a)| a.tls_credentials == *credentials)
        {
            let text = format!("credentials {credentials} are those of RouterAccess {access}");
            return Err(field("tlsCredentials", &text));
        }
        let site = from.wanted.site.as_ref().map(|(_, site)| &site.settings);
        let nothing = Settings::new();
        let site = site.unwrap_or(&nothing);
        let ca = Name::new(pki::SERVICE_CA).map_err(|e| e.to_string())?;
        let rotation = settings::rotation(site)?;
        let validity = settings::validity(site)?;
        let secret = from.secrets.get(&ca);
        let issuer = pki::issuer_for(&self.namespace, &ca, secret, Some(&rotation));
        let issuer = issuer.map_err(|e| chain(&e))?;
        let hosts = hosts(from.wanted, credentials);
        let dir = self.namespace.runtime_certs(credentials);
        let issued = pki::ensure_server(&issuer, &dir, credentials, &hosts, validity);
        let mut issued = issued.map_err(|e| chain(&e))?;
        let changes = [pki::renewal(&issued.certificate), issuer.changes()];
        // Clients are let in by a CA that is being replaced too.
        issued.ca = issuer.trusted();
        Ok((issued, changes.into_iter().flatten().min()))
    }

    /// What a connector trusts and shows: the user's, always.
    fn trusted(&self, from: Sources<'_>, policy: &BackPolicy) -> Result<Secret, String> {
        let needed: &[&str] = if policy.use_client_cert {
            &["ca.crt", "tls.crt", "tls.key"]
        } else {
            &["ca.crt"]
        };
        let credentials = &policy.credentials;
        let secret = from.secrets.get(credentials);
        let given = pki::given_end(&self.namespace, credentials, secret, needed);
        let given = given.map_err(|e| field("tlsCredentials", &chain(&e)))?;
        let missing = || {
            format!(
                "TLS credentials secret {:?} not found",
                credentials.as_str()
            )
        };
        given.ok_or_else(|| field("tlsCredentials", &missing()))
    }
}

/// Hosts of the listeners that show these credentials.
fn hosts(wanted: &Picture, credentials: &Name) -> Vec<String> {
    let listeners = wanted.listeners.values();
    let listeners = listeners.map(|l| (&l.tls_credentials, &l.host));
    let multikeys = wanted.multikeys.values();
    let multikeys = multikeys.map(|l| (&l.tls_credentials, &l.host));
    let mut hosts = BTreeSet::new();
    for (of, host) in listeners.chain(multikeys) {
        if of.as_ref() != Some(credentials) {
            continue;
        }
        let ip = host.ip();
        // Where all addresses are listened on, everything this host is known by.
        if ip.is_some_and(|ip| ip.is_unspecified()) {
            hosts.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
            hosts.extend(host_names());
        } else {
            hosts.insert(host.to_string());
        }
        if ip.is_some_and(|ip| ip.is_loopback()) {
            hosts.insert("localhost".to_owned());
        }
    }
    hosts.into_iter().collect()
}
