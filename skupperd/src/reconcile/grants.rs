//! Grants of a namespace: their desk, and the server in front of it while there are any.

use super::{
    execute::{OpenAccess, bind, new_id},
    hosts::reachable,
};
use crate::{
    access::{Desk, Door, Doors, Offer, Server, serve},
    model::{
        AccessGrant, ConditionType, Draft, Endpoint, GRANT_PORT, GrantDetails, Host, Kind, Name,
        Secret, Settings, State,
    },
    pki,
    plan::Picture,
    store::NamespaceDir,
    telemetry::chain,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Notify;

/// Setting of a site: port where tokens are redeemed.
const PORT: &str = "grant-server-port";
/// Setting of a site: host by which redeemers reach it.
const HOST: &str = "grant-server-host";
/// Setting of a site: address to serve on; all of the host's without it.
const BIND: &str = "grant-server-bind-host";
/// Credentials of the server.
const CREDENTIALS: &str = "skupper-grant-server";
/// Group of a site's endpoints: it has one router.
pub(super) const GROUP: &str = "skupper-router";

/// What the server was opened with; other settings open another one.
#[derive(Clone, PartialEq, Eq)]
struct Place {
    port: Option<u16>,
    bind: Option<Host>,
    host: Option<Host>,
}

struct Running {
    place: Place,
    url: String,
    ca: String,
    /// Before the door: it takes clients as long as it is there.
    _server: Server,
    _door: Option<Door>,
}

/// The grants of one namespace.
pub(super) struct Grants {
    namespace: NamespaceDir,
    poke: Arc<Notify>,
    doors: Doors,
    desk: Option<Arc<Mutex<Desk>>>,
    running: Option<Running>,
    /// Port of an earlier run.
    pub(super) port: Option<u16>,
    /// Why none can be redeemed.
    error: Option<String>,
    /// Why one of them can not be.
    errors: BTreeMap<Name, String>,
}

impl Grants {
    pub(super) fn new(namespace: NamespaceDir, poke: Arc<Notify>, doors: Doors) -> Self {
        Self {
            namespace,
            poke,
            doors,
            desk: None,
            running: None,
            port: None,
            error: None,
            errors: BTreeMap::new(),
        }
    }

    /// Something is to be tried again.
    pub(super) fn has_failures(&self) -> bool {
        self.error.is_some()
    }

    /// Serves these grants and no others.
    pub(super) async fn sync(
        &mut self,
        wanted: BTreeMap<Name, AccessGrant>,
        picture: &Picture,
        accesses: &BTreeMap<Name, OpenAccess>,
        secrets: &BTreeMap<Name, Secret>,
    ) {
        // Nothing was ever granted here: no file is made.
        if wanted.is_empty() && self.desk.is_none() && !self.file().exists() {
            return;
        }
        let error = self.apply(wanted, picture, accesses, secrets).await.err();
        if let Some(error) = error.as_ref().filter(|e| self.error.as_ref() != Some(e)) {
            tracing::error!(namespace = %self.namespace.name(), "grants: {error}");
        }
        self.error = error;
    }

    fn file(&self) -> std::path::PathBuf {
        self.namespace.internal().join("grants.json")
    }

    async fn apply(
        &mut self,
        wanted: BTreeMap<Name, AccessGrant>,
        picture: &Picture,
        accesses: &BTreeMap<Name, OpenAccess>,
        secrets: &BTreeMap<Name, Secret>,
    ) -> Result<(), String> {
        let desk = match &self.desk {
            Some(desk) => desk.clone(),
            None => {
                let desk = Desk::open(self.file()).map_err(|e| chain(&e))?;
                self.desk.insert(Arc::new(Mutex::new(desk))).clone()
            }
        };
        let served = !wanted.is_empty() && picture.site.as_ref().is_some_and(|(_, s)| !s.edge);
        let offer = self.prepare(&wanted, picture, accesses, secrets)?;
        {
            let mut desk = desk.lock().unwrap_or_else(PoisonError::into_inner);
            desk.offer(offer);
            let now = jiff::Timestamp::now();
            desk.set(wanted, now, new_id).map_err(|e| chain(&e))?;
        }
        if !served {
            self.running = None;
            return Ok(());
        }
        let nothing = Settings::new();
        let settings = picture.site.as_ref().map_or(&nothing, |(_, s)| &s.settings);
        let place = place(settings)?;
        if self.running.as_ref().is_none_or(|r| r.place != place) {
            // The old socket goes first: the new one may want its port.
            self.running = None;
            self.running = Some(self.open(place, desk, accesses).await?);
        }
        Ok(())
    }

    /// What redeemers get; grants whose issuer signs nothing that this site would let in are told so.
    fn prepare(
        &mut self,
        wanted: &BTreeMap<Name, AccessGrant>,
        picture: &Picture,
        accesses: &BTreeMap<Name, OpenAccess>,
        secrets: &BTreeMap<Name, Secret>,
    ) -> Result<Offer, String> {
        let site_issuer = picture
            .site
            .as_ref()
            .and_then(|(_, s)| s.default_issuer.clone());
        let site_issuer = site_issuer.map_or_else(|| Name::new(pki::SITE_CA), Ok);
        let site_issuer = site_issuer.map_err(|e| e.to_string())?;
        let of_access = |access: &crate::model::RouterAccess| {
            access.issuer.clone().unwrap_or_else(|| site_issuer.clone())
        };
        let known: BTreeSet<Name> = picture.accesses.values().map(of_access).collect();
        let mut issuers = BTreeMap::new();
        self.errors.clear();
        for (name, grant) in wanted {
            let issuer = grant.issuer.as_ref().unwrap_or(&site_issuer);
            if grant.issuer.is_some() && !known.contains(issuer) {
                let text = format!("spec.issuer: no link access of this site trusts {issuer}");
                self.errors.insert(name.clone(), text);
            } else if !issuers.contains_key(&grant.issuer) {
                let secret = secrets.get(issuer);
                let made = pki::issuer_for(&self.namespace, issuer, secret, None);
                let made = made.map_err(|e| chain(&e))?;
                issuers.insert(grant.issuer.clone(), made);
            }
        }
        let mut authorities: Vec<&str> = accesses.values().filter_map(OpenAccess::given).collect();
        authorities.dedup();
        Ok(Offer {
            authority: (!authorities.is_empty()).then(|| authorities.join("\n")),
            endpoints: accesses.values().flat_map(endpoints).collect(),
            issuers,
        })
    }

    async fn open(
        &mut self,
        place: Place,
        desk: Arc<Mutex<Desk>>,
        accesses: &BTreeMap<Name, OpenAccess>,
    ) -> Result<Running, String> {
        let mut hosts: Vec<String> = accesses.values().flat_map(|a| a.hosts.clone()).collect();
        let host = place.host.as_ref().map(ToString::to_string);
        let host = host
            .or_else(|| reachable(&hosts))
            .or_else(|| hosts.first().cloned());
        let host = host.ok_or("no link access: links can not come in")?;
        hosts.push(host.clone());
        hosts.sort();
        hosts.dedup();
        let dir = self.namespace.runtime_issuer(&name(pki::GRANT_CA)?);
        let issuer = pki::ensure_issuer(&dir, pki::GRANT_CA).map_err(|e| chain(&e))?;
        let dir = self.namespace.runtime_certs(&name(CREDENTIALS)?);
        let secret = pki::ensure_server(&issuer, &dir, CREDENTIALS, &hosts, None);
        let secret = secret.map_err(|e| chain(&e))?;
        let tls = pki::grant_config(CREDENTIALS, &secret).map_err(|e| chain(&e))?;
        let door = self.doors.open(self.namespace.name());
        let (port, sockets) = match &door {
            // The service manager has it open, for the time in which we do not run too.
            Some(door) => match place.port {
                Some(port) if port != door.port() => {
                    return Err(format!(
                        "spec.settings[{PORT}]: {port}, but the unit of the socket has {}",
                        door.port()
                    ));
                }
                _ => {
                    let sockets = door.sockets();
                    (
                        door.port(),
                        sockets.map_err(|e| format!("grant server: {e}"))?,
                    )
                }
            },
            None => {
                // A port that somebody named is that port; ours may be the next free one.
                let first = place.port.or(self.port).unwrap_or(GRANT_PORT);
                let bound = bind(place.bind.as_ref(), first, place.port.is_none()).await;
                bound.map_err(|e| format!("grant server: {e}"))?
            }
        };
        let server = serve(sockets, tls, desk, self.poke.clone());
        let server = server.map_err(|e| format!("grant server on port {port}: {e}"))?;
        self.port = Some(port);
        tracing::info!(namespace = %self.namespace.name(), port, "tokens can be redeemed");
        let shown = if host.contains(':') {
            format!("[{host}]")
        } else {
            host
        };
        Ok(Running {
            place,
            url: format!("https://{shown}:{port}/"),
            ca: issuer.certificate().to_owned(),
            _server: server,
            _door: door,
        })
    }

    pub(super) fn draft(&self, name: &Name, edge: bool, no_site: Option<String>) -> Draft {
        let seen = self.desk.as_ref().and_then(|desk| {
            desk.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .seen(name)
        });
        let edge_text = "Edge sites cannot accept incoming links from remote sites";
        let processed = match (&seen, self.errors.get(name)) {
            _ if edge => State::Error(edge_text.to_owned()),
            (_, Some(error)) => State::Error(error.clone()),
            (Some(_), None) => State::True,
            (None, None) => State::Pending(None),
        };
        let resolved = match (&self.running, &self.error) {
            _ if edge => State::Error(edge_text.to_owned()),
            (_, Some(error)) => State::Error(error.clone()),
            (Some(_), None) => State::True,
            (None, None) => State::Pending(no_site),
        };
        let mut details = GrantDetails::default();
        if let Some(seen) = seen {
            if let Some(running) = &self.running {
                details.url = format!("{}{}", running.url, seen.id);
                details.ca.clone_from(&running.ca);
            }
            seen.code.reveal().clone_into(&mut details.code);
            details.redemptions = seen.redemptions;
            details.expiration_time = seen.expires.to_string();
        }
        Draft::new(Kind::AccessGrant, false)
            .with(ConditionType::Processed, processed)
            .with(ConditionType::Resolved, resolved)
            .details(details)
    }
}

fn name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|e| e.to_string())
}

fn place(settings: &Settings) -> Result<Place, String> {
    let host = |key: &str| {
        let host = settings.get(key).map(|text| Host::new(text.clone()));
        host.transpose()
            .map_err(|e| format!("spec.settings[{key}]: {e}"))
    };
    let port = settings.get(PORT).map(|text| {
        let port = text.parse::<u16>().ok().filter(|port| *port > 0);
        port.ok_or_else(|| format!("spec.settings[{PORT}]: {text} is not a port"))
    });
    Ok(Place {
        port: port.transpose()?,
        bind: host(BIND)?,
        host: host(HOST)?,
    })
}

/// The ways in that an access offers to others.
fn endpoints(access: &OpenAccess) -> Vec<Endpoint> {
    let host = reachable(&access.hosts).or_else(|| access.hosts.first().cloned());
    let Some(host) = host.and_then(|host| Host::new(host).ok()) else {
        return Vec::new();
    };
    let endpoint = |role: &crate::model::AccessRole| Endpoint {
        role: role.role,
        host: host.clone(),
        port: role.port,
        group: GROUP.to_owned(),
    };
    access.ports.iter().map(endpoint).collect()
}
