//! AccessGrant: tokens that other sites redeem here.
//!
//! [`Grants`] owns the grants of a namespace, the [`GrantServer`] while one runs, and the lease of the
//! sockets that the service manager opened for it. The namespace calls [`Grants::sync`] with all its
//! AccessGrants in every sync.
//!
//! Its states:
//! - *unused*: the namespace never had a grant. There is no store, and no file is created.
//! - *closed*: there is a store and no server, because there is no grant, no site, or the site is an
//!   edge site, which accepts no links.
//! - *open*: the server runs. Other settings of the site start another one; the old sockets are
//!   closed first, because the new server may need their port.
//! - *failed*: the last sync did not succeed. The reason is in the status of every grant, and the
//!   next sync tries again.
//!
//! Grants are saved beside the sync, which waits for no disk; a grant without a code yet is pending.
//!
//! It never decides about a redemption, which is the store's part, and never creates a link.

mod saver;

use super::super::{
    desired::{DesiredState, name_of},
    error::ReconcileError,
    hosts::{ROUTER_GROUP, host_names, open_port, reachable},
    observed::StatusContext,
    runtime::{AppliedAccess, SiteRuntime},
};
use crate::{
    access::{
        GrantServer, GrantSocketLease, GrantSockets, GrantStore, GrantTls, LinkOffer,
        SharedGrantStore, serve,
    },
    model::{
        AccessGrant, AccessRole, ConditionState, ConditionType, Endpoint, GRANT_PORT, GrantDetails,
        GrantServerSettings, Host, Kind, Name, RouterAccess, StatusDraft,
    },
    pki,
    store::NamespaceDir,
};
use saver::GrantSaver;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
};
use tokio::sync::Notify;

const CREDENTIALS: &str = "skupper-grant-server";
/// Key of the server port in [`Memory`].
const REMEMBERED_AS: &str = "grant-server";
const NOT_ON_EDGE: &str = "Edge sites cannot accept incoming links from remote sites";

struct RunningServer {
    /// Other settings start another server.
    settings: GrantServerSettings,
    hosts: GrantHosts,
    port: u16,
    ca: String,
    /// Dropped before the lease: it accepts clients until then.
    server: GrantServer,
    _lease: Option<GrantSocketLease>,
}

impl RunningServer {
    /// Where the grant with this ID is redeemed.
    fn url(&self, id: &str) -> String {
        let (host, port) = (&self.hosts.dialled, self.port);
        match host.contains(':') {
            true => format!("https://[{host}]:{port}/{id}"),
            false => format!("https://{host}:{port}/{id}"),
        }
    }
}

/// The grants of one namespace.
pub(in crate::reconcile) struct Grants {
    namespace: NamespaceDir,
    redeemed: Arc<Notify>,
    sockets: GrantSockets,
    store: Option<SharedGrantStore>,
    running: Option<RunningServer>,
    saver: GrantSaver,
    /// Port of this run, or of an earlier one.
    port: Option<u16>,
    /// Why no grant can be redeemed.
    error: Option<ReconcileError>,
    /// Why some of them cannot.
    errors: BTreeMap<Name, ReconcileError>,
}

impl Grants {
    pub(in crate::reconcile) fn new(
        namespace: NamespaceDir,
        redeemed: Arc<Notify>,
        sockets: GrantSockets,
    ) -> Self {
        Self {
            namespace,
            redeemed,
            sockets,
            store: None,
            running: None,
            saver: GrantSaver::default(),
            port: None,
            error: None,
            errors: BTreeMap::new(),
        }
    }

    pub(in crate::reconcile) fn has_failures(&self) -> bool {
        self.error.is_some() || self.saver.has_failed()
    }

    /// Serves these grants and no others.
    pub(in crate::reconcile) async fn sync(
        &mut self,
        grants: BTreeMap<Name, AccessGrant>,
        desired: &DesiredState,
        runtime: &mut SiteRuntime,
    ) {
        // Nothing was ever granted here: no file is made.
        if grants.is_empty() && self.store.is_none() && !self.file().exists() {
            return;
        }
        self.port = self.port.or(runtime.memory.known_port(REMEMBERED_AS));
        let applied = self.apply(grants, desired, runtime).await;
        let kept = match self.port {
            Some(port) => runtime.memory.keep_port(REMEMBERED_AS, port),
            None => Ok(()),
        };
        let error = applied.and(kept).err();
        if let Some(error) = error.as_ref().filter(|e| self.error.as_ref() != Some(e)) {
            let (namespace, error) = (self.namespace.name(), error.text());
            tracing::error!(%namespace, error, "cannot serve access grants");
        }
        self.error = error;
    }

    fn file(&self) -> PathBuf {
        self.namespace.internal().join("grants.json")
    }

    async fn apply(
        &mut self,
        grants: BTreeMap<Name, AccessGrant>,
        desired: &DesiredState,
        runtime: &SiteRuntime,
    ) -> Result<(), ReconcileError> {
        let store = match &self.store {
            Some(store) => store.clone(),
            None => {
                let store = GrantStore::open(self.file())
                    .map_err(|e| ReconcileError::failed("read", "access grants", e))?;
                self.store.insert(store.shared()).clone()
            }
        };
        let site = desired.site.as_ref().map(|(_, site)| site);
        let serving = site.filter(|site| !site.edge && !grants.is_empty());
        store.set_offer(self.offer(&grants, desired, runtime)?);
        store.set_grants(grants);
        let input = self.namespace.input_resources();
        let saved = self.saver.save(&store, input, &self.redeemed).await;
        saved.map_err(|e| ReconcileError::failed("write", "access grants", e))?;
        let Some(site) = serving else {
            self.running = None;
            return Ok(());
        };
        let settings = &site.settings.grant_server;
        let host = settings.bind_host.as_ref().and_then(Host::ip);
        let allowed = runtime
            .rights
            .ensure_open(host, settings.port.unwrap_or(GRANT_PORT));
        if let Err(reason) = allowed {
            self.running = None;
            return Err(ReconcileError::setting("grant-server-port", reason));
        }
        let hosts = grant_hosts(settings, &runtime.accesses)?;
        let credentials = self.credentials(&hosts)?;
        match &mut self.running {
            Some(running) if running.settings == *settings => {
                if running.hosts != hosts {
                    // The port of tokens that were given out stays open.
                    running.server.set_tls(credentials.0);
                    (running.hosts, running.ca) = (hosts, credentials.1);
                }
            }
            running => {
                // The old socket goes first: the new one may want its port.
                *running = None;
                let running = self.start(settings.clone(), store, hosts, credentials);
                self.running = Some(running.await?);
            }
        }
        Ok(())
    }

    /// Certificate and CA of the server.
    fn credentials(&self, hosts: &GrantHosts) -> Result<(GrantTls, String), ReconcileError> {
        let dir = self.namespace.runtime_issuer(&name_of(pki::GRANT_CA)?);
        let issuer = pki::ensure_issuer(&dir, pki::GRANT_CA)?;
        let dir = self.namespace.runtime_certs(&name_of(CREDENTIALS)?);
        let secret = pki::ensure_server(&issuer, &dir, CREDENTIALS, &hosts.all, None)?;
        let tls = pki::grant_config(CREDENTIALS, &secret)?;
        Ok((tls, issuer.certificate().to_owned()))
    }

    /// What redeemers get. A grant whose issuer no access of this site trusts gets an error.
    fn offer(
        &mut self,
        grants: &BTreeMap<Name, AccessGrant>,
        desired: &DesiredState,
        runtime: &SiteRuntime,
    ) -> Result<LinkOffer, ReconcileError> {
        let site_issuer = desired.default_issuer()?;
        let of_access = |(_, access): (&Name, &RouterAccess)| {
            access.issuer.clone().unwrap_or_else(|| site_issuer.clone())
        };
        let trusted: BTreeSet<Name> = desired.router_accesses().map(of_access).collect();
        let mut issuers = BTreeMap::new();
        self.errors.clear();
        for (name, grant) in grants {
            let issuer = grant.issuer.as_ref().unwrap_or(&site_issuer);
            if grant.issuer.is_some() && !trusted.contains(issuer) {
                let text = format!("no link access of this site trusts {issuer}");
                let error = ReconcileError::field("issuer", text);
                self.errors.insert(name.clone(), error);
            } else if !issuers.contains_key(&grant.issuer) {
                let secret = runtime.secrets.get(issuer);
                let made = pki::issuer_for(&self.namespace, issuer, secret, None)?;
                issuers.insert(grant.issuer.clone(), made);
            }
        }
        let accesses = runtime.accesses.values();
        let mut hosts: BTreeSet<String> = host_names().into_iter().collect();
        hosts.insert("localhost".to_owned());
        hosts.extend(accesses.clone().flat_map(|access| access.hosts.clone()));
        let site = desired.site.as_ref().map(|(_, site)| &site.settings);
        hosts.extend(
            site.and_then(|site| site.grant_server.host.as_ref())
                .map(ToString::to_string),
        );
        let authorities = accesses
            .clone()
            .filter_map(AppliedAccess::supplied_authority);
        let mut authorities: Vec<&str> = authorities.collect();
        authorities.dedup();
        Ok(LinkOffer {
            authority: (!authorities.is_empty()).then(|| authorities.join("\n")),
            endpoints: accesses.flat_map(endpoints).collect(),
            hosts: hosts.into_iter().map(|h| h.to_lowercase()).collect(),
            issuers,
        })
    }

    async fn start(
        &mut self,
        settings: GrantServerSettings,
        store: SharedGrantStore,
        hosts: GrantHosts,
        (tls, ca): (GrantTls, String),
    ) -> Result<RunningServer, ReconcileError> {
        let lease = self.sockets.lease(self.namespace.name());
        let (port, sockets) = open_sockets(&settings, self.port, lease.as_ref()).await?;
        let server = serve(sockets, tls, store, self.redeemed.clone());
        let server = server.map_err(|e| ReconcileError::failed("serve grants on port", port, e))?;
        self.port = Some(port);
        tracing::info!(namespace = %self.namespace.name(), port, "serving access grants");
        Ok(RunningServer {
            settings,
            hosts,
            port,
            ca,
            server,
            _lease: lease,
        })
    }

    pub(in crate::reconcile) fn status(&self, ctx: &StatusContext<'_>, name: &Name) -> StatusDraft {
        let store = self.store.as_ref();
        let info = store.and_then(|store| store.info(name));
        let is_edge = ctx.is_edge();
        let processed = match (&info, self.errors.get(name)) {
            _ if is_edge => ConditionState::Error(NOT_ON_EDGE.to_owned()),
            (_, Some(error)) => ConditionState::Error(error.text()),
            (Some(_), None) => ConditionState::True,
            (None, None) => ConditionState::Pending(None),
        };
        let resolved = match (&self.running, &self.error) {
            _ if is_edge => ConditionState::Error(NOT_ON_EDGE.to_owned()),
            (_, Some(error)) => ConditionState::Error(error.text()),
            (Some(_), None) => ConditionState::True,
            (None, None) => ConditionState::Pending(ctx.no_site()),
        };
        let mut details = GrantDetails::default();
        if let Some(info) = info {
            if let Some(running) = &self.running {
                details.url = running.url(&info.id);
                details.ca.clone_from(&running.ca);
            }
            info.code.reveal().clone_into(&mut details.code);
            details.redemptions = info.redemptions;
            details.expiration_time = info.expires.to_string();
        }
        StatusDraft::new(Kind::AccessGrant, false)
            .with(ConditionType::Processed, processed)
            .with(ConditionType::Resolved, resolved)
            .details(details)
    }
}

/// Names of the grant server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct GrantHosts {
    /// The one in the URLs of tokens.
    dialled: String,
    /// Those of its certificate.
    all: Vec<String>,
}

fn grant_hosts(
    settings: &GrantServerSettings,
    accesses: &BTreeMap<Name, AppliedAccess>,
) -> Result<GrantHosts, ReconcileError> {
    let advertised = accesses.values().flat_map(|a| a.advertised.clone());
    let advertised: Vec<String> = advertised.collect();
    let mut all: Vec<String> = accesses.values().flat_map(|a| a.hosts.clone()).collect();
    let dialled = settings.host.as_ref().map(ToString::to_string);
    // Names of the certificate that are not advertised any more are for links given out earlier.
    let dialled = dialled
        .or_else(|| reachable(&advertised))
        .or_else(|| advertised.first().cloned());
    let missing = || "the site has no link access: create one to accept links".to_owned();
    let dialled = dialled.ok_or_else(|| ReconcileError::Missing(missing()))?;
    all.push(dialled.clone());
    all.sort();
    all.dedup();
    Ok(GrantHosts { dialled, all })
}

/// Sockets of the service manager, which has them open while no daemon runs too, or new ones.
/// `last_port` is the port of an earlier server.
async fn open_sockets(
    settings: &GrantServerSettings,
    last_port: Option<u16>,
    lease: Option<&GrantSocketLease>,
) -> Result<(u16, Vec<TcpListener>), ReconcileError> {
    let Some(lease) = lease else {
        // A port that the user names is that port; the default may be the next free one.
        let first = settings.port.or(last_port).unwrap_or(GRANT_PORT);
        let search = settings.port.is_none();
        return open_port(settings.bind_host.as_ref(), first, search).await;
    };
    if let Some(port) = settings.port.filter(|port| *port != lease.port()) {
        let text = format!(
            "{port} differs from the port of the socket unit, {}",
            lease.port()
        );
        return Err(ReconcileError::setting("grant-server-port", text));
    }
    let sockets = lease.sockets();
    let failed = |e| ReconcileError::failed("use sockets of", "the grant server", e);
    Ok((lease.port(), sockets.map_err(failed)?))
}

/// Endpoints of an access for other sites to dial.
fn endpoints(access: &AppliedAccess) -> Vec<Endpoint> {
    let host = reachable(&access.advertised).or_else(|| access.advertised.first().cloned());
    let Some(host) = host.and_then(|host| Host::new(host).ok()) else {
        return Vec::new();
    };
    let endpoint = |role: &AccessRole| Endpoint {
        role: role.role,
        host: host.clone(),
        port: role.port,
        group: ROUTER_GROUP.to_owned(),
    };
    access.ports.iter().map(endpoint).collect()
}
