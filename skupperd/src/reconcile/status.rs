//! Statuses: what was applied and what the network does, as conditions.

mod network;

pub(super) use network::advert;

use super::{
    attached::{Standings, attached_name},
    ends,
    execute::{OpenAccess, multikey_name},
    namespace::{NamespaceState, access_of_site},
};
use crate::{
    link::core::CoreSender,
    manifest::Located,
    model::{
        AccessDetails, AccessRole, AttachedConnector, AttachedConnectorBinding,
        AttachedConnectorDetails, BindingDetails, ConditionType, Connector, ConnectorDetails,
        Draft, EndpointStatus, HealthRecord, Key, Kind, LinkDetails, ListenerDetails,
        MultiKeyListener, MultiKeyListenerDetails, Name, PriorityReachable, Site, SiteDetails,
        Spec, State, Strategy, StrategyReachable, WeightedReachable,
    },
    pki::identify_pem,
    store::{StatusDir, StoreError},
};
use network::{Known, Observed, incoming, network};
use serde_json::json;
use std::collections::BTreeSet;

/// What the status of a site says that wants two routers.
const NO_HA: &str = "spec.ha has no effect: a site of a Linux host is one daemon, which its service manager \
                     restarts; a second host with a site of the same routing keys takes over from it";
impl NamespaceState {
    /// Writes the statuses of all resources.
    pub(super) async fn report(
        &mut self,
        core: &CoreSender,
        standings: &Standings,
    ) -> Result<(), StoreError> {
        let observed = match self.site() {
            None => Observed::default(),
            Some(id) => {
                let seen = core.call(move |c| {
                    c.site(id, |s, _| Observed {
                        links: s.link_states(),
                        listeners: s.listener_states(),
                        connectors: s.connector_states(),
                        network: s.network(),
                        incoming: s.incoming_links(),
                    })
                });
                seen.await.flatten().unwrap_or_default()
            }
        };
        let now = jiff::Timestamp::now();
        let mut keep = BTreeSet::new();
        for located in &self.resources {
            let (key, draft) = (located.key(), self.draft(located, &observed, standings));
            let draft = draft.notes(ends::notes(&located.resource.spec));
            let mut document = (*located.document).clone();
            if key.kind == Kind::Site && !self.executor.site_id.is_empty() {
                document["metadata"]["uid"] = json!(self.executor.site_id);
            }
            self.statuses.write(&key, document, draft, now)?;
            keep.insert(key);
        }
        for error in &self.errors {
            // A refused resource says so, unless a good one has its place.
            if let Some(key) = error.key().filter(|key| keep.insert(key.clone())) {
                let draft = Draft::error(key.kind, error.to_string());
                let document = StatusDir::bare(&key, self.namespace.name());
                self.statuses.write(&key, document, draft, now)?;
            }
        }
        for (name, access) in &self.executor.accesses {
            // Link access of a site is a RouterAccess that nobody wrote.
            let key = Key {
                kind: Kind::RouterAccess,
                name: name.clone(),
            };
            if keep.insert(key.clone()) {
                let mut document = StatusDir::bare(&key, self.namespace.name());
                let role = |r: &AccessRole| json!({"name": r.role.as_str(), "port": r.port});
                document["spec"] = json!({
                    "roles": access.ports.iter().map(role).collect::<Vec<_>>(),
                    "tlsCredentials": name,
                    "subjectAlternativeNames": access.hosts,
                });
                let draft = access_status(name, Some(access), State::True);
                self.statuses.write(&key, document, draft, now)?;
            }
        }
        self.statuses.retain(&keep)
    }

    fn site_draft(
        &self,
        name: &Name,
        site: &Site,
        configured: State,
        observed: &Observed,
    ) -> Draft {
        let open = site.link_access.is_enabled();
        let mut draft = Draft::new(Kind::Site, open)
            .with(ConditionType::Configured, configured)
            .with(ConditionType::Running, pending(self.site().is_some(), None));
        if open {
            let key = Key {
                kind: Kind::RouterAccess,
                name: access_of_site(name),
            };
            let state = match self.failures.get(&key) {
                Some(error) => State::Error(error.clone()),
                None => pending(self.executor.accesses.contains_key(&key.name), None),
            };
            draft = draft.with(ConditionType::Resolved, state);
        }
        let issuer = site
            .default_issuer
            .as_deref()
            .unwrap_or(crate::pki::SITE_CA);
        let accesses = self.executor.accesses.iter();
        let network = network(observed);
        draft.details(SiteDetails {
            default_issuer: issuer.to_owned(),
            endpoints: accesses
                .flat_map(|(name, access)| endpoints(name, access))
                .collect(),
            sites_in_network: network.len(),
            network,
            incoming_links: observed
                .incoming
                .iter()
                .map(|l| incoming(l, observed, &self.executor))
                .collect(),
        })
    }

    /// End of the validity of the certificate in a Secret; empty when there is none.
    fn expiry(&self, credentials: &Name) -> String {
        let secret = self.resources.iter().find_map(|l| match &l.resource.spec {
            Spec::Secret(secret) if l.resource.name() == credentials => Some(secret),
            _ => None,
        });
        let identity = secret.and_then(|s| identify_pem(&s.certificate));
        identity.map(|i| i.expires.to_string()).unwrap_or_default()
    }

    fn is_edge(&self) -> bool {
        let edge = |l: &Located| matches!(&l.resource.spec, Spec::Site(site) if site.edge);
        self.resources.iter().any(edge)
    }

    fn connector_draft(
        &self,
        name: &Name,
        connector: &Connector,
        observed: &Observed,
        failure: Option<&String>,
    ) -> Draft {
        let state = observed.connectors.get(name.as_str());
        let standing = self.executor.workloads.standing(name);
        let health = state.and_then(|s| s.health.as_ref());
        let unwell = health.and_then(|h| h.as_ref().err());
        let missing = standing.as_ref().and_then(|s| s.missing.clone());
        let configured = match (failure, unwell) {
            (Some(error), _) => State::Error(error.clone()),
            // Without a site nobody has looked.
            (None, _) if missing.is_some() && self.site().is_some() => State::Pending(missing),
            (None, Some(why)) if !connector.include_not_ready => {
                State::Pending(Some(format!("Not ready: {why}")))
            }
            _ => State::True,
        };
        let matched = observed.has_listener(&connector.routing_key);
        Draft::new(Kind::Connector, false)
            .with(ConditionType::Configured, configured)
            .with(ConditionType::Matched, self.matched(matched))
            .details(ConnectorDetails {
                has_matching_listener: matched,
                selected_pods: standing.map(|s| s.servers).unwrap_or_default(),
                health: health.map(|health| HealthRecord {
                    ready: health.is_ok(),
                    message: health.as_ref().err().cloned().unwrap_or_default(),
                }),
                last_failure: state.map(|s| s.trouble.clone()).unwrap_or_default(),
            })
    }

    fn offer_draft(
        &self,
        name: &Name,
        offer: &AttachedConnector,
        failure: Option<&String>,
        standings: &Standings,
    ) -> Draft {
        let bound = standings.get(&(offer.site_namespace.clone(), name.clone()));
        let namespace = self.namespace.name();
        let configured = match failure {
            Some(error) => State::Error(error.clone()),
            None => self.attachments.of_offer(namespace, name, offer, bound),
        };
        // What a site has of somebody else is not for this one to see.
        let agreed = configured == State::True;
        let standing = bound.and_then(|bound| bound.standing.as_ref());
        let standing = standing.filter(|_| agreed);
        Draft::new(Kind::AttachedConnector, false)
            .with(ConditionType::Configured, configured)
            .details(AttachedConnectorDetails {
                selected_pods: standing.map(|s| s.servers.clone()).unwrap_or_default(),
            })
    }

    fn binding_draft(
        &self,
        name: &Name,
        binding: &AttachedConnectorBinding,
        observed: &Observed,
        failure: Option<&String>,
    ) -> Draft {
        let known = attached_name(name);
        let standing = self.executor.workloads.standing(&known);
        let state = observed.connectors.get(&known);
        let unwell = state.and_then(|s| s.health.as_ref()?.as_ref().err());
        let agreed = || {
            let namespace = self.namespace.name();
            self.attachments
                .of_binding(namespace, name, standing.as_ref())
        };
        let configured = match (failure, unwell) {
            (Some(error), _) => State::Error(error.clone()),
            (None, Some(why)) => State::Pending(Some(format!("Not ready: {why}"))),
            (None, None) => agreed(),
        };
        let matched = observed.has_listener(&binding.routing_key);
        Draft::new(Kind::AttachedConnectorBinding, false)
            .with(ConditionType::Configured, configured)
            .with(ConditionType::Matched, self.matched(matched))
            .details(BindingDetails {
                has_matching_listener: matched,
                last_failure: state.map(|s| s.trouble.clone()).unwrap_or_default(),
            })
    }

    /// Whether a connector has listeners, as a condition.
    fn matched(&self, matched: bool) -> State {
        let missing = match self.site() {
            Some(_) => "No matching listeners".into(),
            None => no_site(),
        };
        pending(matched, Some(missing))
    }

    fn multikey_draft(
        &self,
        key: &Key,
        listener: &MultiKeyListener,
        observed: &Observed,
        failure: Option<&String>,
    ) -> Draft {
        let state = observed.listeners.get(&multikey_name(&key.name));
        let reachable = state.map(|s| &*s.reachable).unwrap_or_default();
        let error = failure.or(state.and_then(|s| s.error.as_ref()));
        let configured = error.map_or(State::True, |e| State::Error(e.clone()));
        let missing = match self.site() {
            Some(_) => "No matching connectors".to_owned(),
            None => no_site(),
        };
        let strategy = match &listener.strategy {
            Strategy::Priority(_) => StrategyReachable {
                priority: Some(PriorityReachable {
                    routing_keys_reachable: reachable.iter().map(ToString::to_string).collect(),
                }),
                weighted: None,
            },
            Strategy::Weighted(weights) => StrategyReachable {
                priority: None,
                weighted: Some(WeightedReachable {
                    routing_keys_reachable: weights
                        .iter()
                        .filter(|(key, _)| reachable.iter().any(|r| **r == ***key))
                        .map(|(key, weight)| (key.to_string(), *weight))
                        .collect(),
                }),
            },
        };
        Draft::new(key.kind, false)
            .with(ConditionType::Configured, configured)
            .with(
                ConditionType::Operational,
                pending(!reachable.is_empty(), Some(missing)),
            )
            .details(MultiKeyListenerDetails {
                has_destination: !reachable.is_empty(),
                strategy,
                certificate_expiration_time: self.executor.ends.expires(key),
                tls_handshake_failures: state.map_or(0, |s| s.tls_failures),
            })
    }

    fn draft(&self, located: &Located, observed: &Observed, standings: &Standings) -> Draft {
        let key = located.key();
        let (kind, name) = (key.kind, &key.name);
        let refused = self
            .held
            .get(&key)
            .map(|e| format!("{e}; it stays as it last was"));
        let failure = self.failures.get(&key).or(refused.as_ref());
        let configured = |failure: Option<&String>| match failure {
            Some(error) => State::Error(error.clone()),
            None => State::True,
        };
        let running = self.site().is_some();
        match &located.resource.spec {
            Spec::Site(site) => {
                let configured = match configured(failure) {
                    State::True if site.ha => State::Noted(NO_HA.to_owned()),
                    state => state,
                };
                self.site_draft(name, site, configured, observed)
            }
            Spec::Link(link) => {
                let state = observed.links.get(name.as_str());
                let remote = state.and_then(|s| s.remote.as_deref());
                let known = remote
                    .and_then(|id| observed.network.iter().find(|r| r.id == id))
                    .map(|r| Known::of(r, &observed.network));
                let missing = match state.and_then(|s| s.failure.clone()) {
                    Some(why) => format!("Not operational: {why}"),
                    None if running => "Not operational".to_owned(),
                    None => no_site(),
                };
                Draft::new(kind, false)
                    .with(ConditionType::Configured, configured(failure))
                    .with(
                        ConditionType::Operational,
                        pending(remote.is_some(), Some(missing)),
                    )
                    .details(LinkDetails {
                        remote_site_id: known.as_ref().map(|k| k.id.clone()).unwrap_or_default(),
                        remote_site_name: known.map(|k| k.name).unwrap_or_default(),
                        certificate_expiration_time: self.expiry(&link.tls_credentials),
                        endpoint: text(state.and_then(|s| s.endpoint)),
                        up_since: text(state.and_then(|s| s.since)),
                        last_failure: state
                            .and_then(|s| s.last_failure.clone())
                            .unwrap_or_default(),
                    })
            }
            Spec::Listener(_) => {
                let state = observed.listeners.get(name.as_str());
                let matched = state.is_some_and(|s| s.matched);
                let error = failure.or(state.and_then(|s| s.error.as_ref()));
                let missing = if running {
                    "No matching connectors".into()
                } else {
                    no_site()
                };
                Draft::new(kind, false)
                    .with(ConditionType::Configured, configured(error))
                    .with(ConditionType::Matched, pending(matched, Some(missing)))
                    .details(ListenerDetails {
                        has_matching_connector: matched,
                        reached_by: match state {
                            Some(s) if s.open && s.steered => "steering".to_owned(),
                            Some(s) if s.open => "socket".to_owned(),
                            _ => String::new(),
                        },
                        acceleration: match state.and_then(|s| s.accelerated.as_ref()) {
                            Some(Ok(())) => "on".to_owned(),
                            Some(Err(why)) => format!("off: {why}"),
                            None => String::new(),
                        },
                        certificate_expiration_time: self.executor.ends.expires(&key),
                        tls_handshake_failures: state.map_or(0, |s| s.tls_failures),
                    })
            }
            Spec::MultiKeyListener(listener) => {
                self.multikey_draft(&key, listener, observed, failure)
            }
            Spec::Connector(connector) => self.connector_draft(name, connector, observed, failure),
            Spec::RouterAccess(_) => {
                access_status(name, self.executor.accesses.get(name), configured(failure))
            }
            Spec::AccessGrant(_) => {
                self.grants
                    .draft(name, self.is_edge(), (!running).then(no_site))
            }
            Spec::AccessToken(_) => self.tokens.draft(name, (!running).then(no_site)),
            Spec::Certificate(_) => self.certificates.draft(name),
            Spec::Secret(_) => {
                Draft::new(kind, false).with(ConditionType::Configured, configured(failure))
            }
            Spec::AttachedConnector(offer) => self.offer_draft(name, offer, failure, standings),
            Spec::AttachedConnectorBinding(binding) => {
                self.binding_draft(name, binding, observed, failure)
            }
            Spec::Unserved(kind) => Draft::unserved(*kind),
        }
    }
}

fn text(value: Option<impl std::fmt::Display>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}

fn no_site() -> String {
    "No active site in namespace".to_owned()
}

fn pending(holds: bool, text: Option<String>) -> State {
    if holds {
        State::True
    } else {
        State::Pending(text)
    }
}

fn access_status(name: &Name, open: Option<&OpenAccess>, configured: State) -> Draft {
    Draft::new(Kind::RouterAccess, false)
        .with(ConditionType::Configured, configured)
        .with(ConditionType::Resolved, pending(open.is_some(), None))
        .details(AccessDetails {
            endpoints: open
                .map(|access| endpoints(name, access))
                .unwrap_or_default(),
            certificate_expiration_time: open
                .and_then(|access| access.served.identity.as_ref())
                .map(|i| i.expires.to_string())
                .unwrap_or_default(),
        })
}

fn endpoints(name: &Name, access: &OpenAccess) -> Vec<EndpointStatus> {
    let loopback = |h: &&String| matches!(h.as_str(), "localhost" | "127.0.0.1" | "::1");
    let host = access
        .hosts
        .iter()
        .find(|h| !loopback(h))
        .or(access.hosts.first());
    let endpoint = |role: &AccessRole| EndpointStatus {
        name: format!("{name}-{}", role.role),
        host: host.cloned().unwrap_or_default(),
        port: role.port.to_string(),
        group: super::grants::GROUP.to_owned(),
    };
    access.ports.iter().map(endpoint).collect()
}
