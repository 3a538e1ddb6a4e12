//! Carrying out one step of a plan.

use super::{
    addresses::Addresses,
    attached::attached_name,
    ends::{self, Ends, Sources},
    placed::Placements,
    places::{NETNS, places},
    settings::{self, PROXY},
    workloads::Workloads,
};
use crate::{
    link::{
        LinkSpec, Refused, Target,
        core::{
            AccessSpec, ConnectorSpec, Core, CoreSender, ListenerSpec, ServerTls, Site, SiteSpec,
        },
        ends::{Front, Keys},
        ledger::SiteName,
        view::TargetHost,
    },
    model::{
        AccessRole, Connector, Endpoint, Host, Key, Kind, Link, Name, Role, RouterAccess, Secret,
        ServerHost, SiteId, Strategy,
    },
    pki::{self, Served},
    plan::{Action, LinkSecrets, Picture},
    steer::{
        Plain,
        netns::{Netns, Placed},
        place::Place,
        routes::Routes,
    },
    store::{NamespaceDir, SHARED, read_text, write_file},
    telemetry::chain,
    workload::{Asking, Wish},
};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::{Arc, atomic::AtomicU32},
    time::SystemTime,
};

/// Ports tried for a site's own link access when the usual one is taken.
const PORT_TRIES: u16 = 200;
/// Version of the memory file; a later one is not touched.
const MEMORY_VERSION: u32 = 1;

/// What is remembered of a namespace between runs.
#[derive(Debug, Serialize, Deserialize)]
struct Memory {
    version: u32,
    site_id: String,
    /// Ports of link accesses that were chosen here, by access and role.
    #[serde(default)]
    ports: BTreeMap<String, u16>,
}

/// An open link access.
pub(super) struct OpenAccess {
    pub(super) ports: Vec<AccessRole>,
    /// Names in the certificate.
    pub(super) hosts: Vec<String>,
    /// What it shows and trusts; replaced under the open sockets.
    pub(super) served: Served,
    tls: ServerTls,
}

impl OpenAccess {
    /// The CA by which others recognise it, when the user supplied its credentials.
    pub(super) fn given(&self) -> Option<&str> {
        Some(&*self.served.authority).filter(|_| self.served.given)
    }
}

/// Carries out steps for one namespace.
pub(super) struct Executor {
    namespace: NamespaceDir,
    trunk: usize,
    addresses: Addresses,
    pub(super) placements: Placements,
    pub(super) site: Option<u32>,
    pub(super) site_id: String,
    pub(super) accesses: BTreeMap<Name, OpenAccess>,
    /// Credentials among the resources.
    pub(super) secrets: BTreeMap<Name, Secret>,
    memory: Option<Memory>,
    refused: Refused,
    /// Changes of listeners, which are made together: an address that goes from one to another is
    /// without an owner at no time, and a thousand are one step for the core.
    listeners: Vec<Change>,
    /// Listeners and connectors that speak TLS.
    pub(super) ends: Ends,
    /// Connectors with selectors.
    pub(super) workloads: Workloads,
}

type Done = Result<(), String>;

/// What is to become of a listener.
enum Change {
    Set(ListenerSpec),
    Remove(String),
}

impl Executor {
    pub(super) fn new(namespace: NamespaceDir, trunk: usize, routes: Arc<Routes>) -> Self {
        Self {
            addresses: Addresses::new(&namespace, routes),
            placements: Placements::new(&namespace),
            ends: Ends::new(namespace.clone()),
            workloads: Workloads::default(),
            namespace,
            trunk,
            site: None,
            site_id: String::new(),
            accesses: BTreeMap::new(),
            secrets: BTreeMap::new(),
            memory: None,
            refused: Refused::default(),
            listeners: Vec::new(),
        }
    }

    /// Does a step. What it changes of listeners takes effect with [`Self::finish`], and before a
    /// step that may want their ports.
    pub(super) async fn execute(
        &mut self,
        core: &CoreSender,
        wanted: &Picture,
        action: &Action,
    ) -> Done {
        if matches!(action, Action::SetAccess(_)) {
            self.finish(core).await?;
        }
        match action {
            Action::StartSite => self.start(core, wanted).await,
            Action::StopSite => self.stop(core).await,
            Action::UpdateSite => {
                self.revoke(core, wanted).await?;
                self.steer(core, wanted).await?;
                self.own_addresses(wanted)
            }
            Action::SetAccess(name) => match wanted.accesses.get(name) {
                Some(access) => self.set_access(core, wanted, name, access).await,
                None => Ok(()),
            },
            Action::RemoveAccess(name) => {
                self.accesses.remove(name);
                let name = name.to_string();
                self.on_site(core, move |s, c| s.remove_access(c, &name, true))
                    .await
            }
            Action::SetLink(name) => match wanted.links.get(name) {
                Some((link, secrets)) => self.set_link(core, wanted, name, link, secrets).await,
                None => Ok(()),
            },
            Action::RemoveLink(name) => self.remove_link(core, name).await,
            Action::SetConnector(name) => match wanted.connectors.get(name) {
                Some(connector) => {
                    let key = Key::new(Kind::Connector, name.clone());
                    self.set_connector(core, wanted, key, name, connector).await
                }
                None => Ok(()),
            },
            Action::RemoveConnector(name) => {
                self.ends.remove(Kind::Connector, name);
                self.remove_connector(core, name).await
            }
            Action::SetAttached(name) => match wanted.attached.get(name) {
                Some(connector) => {
                    let key = Key::new(Kind::AttachedConnectorBinding, name.clone());
                    let known = attached_name(name);
                    self.set_connector(core, wanted, key, &known, connector)
                        .await
                }
                None => Ok(()),
            },
            Action::RemoveAttached(name) => {
                self.ends.remove(Kind::AttachedConnectorBinding, name);
                self.remove_connector(core, &attached_name(name)).await
            }
            Action::SetListener(name) => {
                let set = self.set_listener(core, wanted, name).await;
                if set.is_err() {
                    self.remove_listener(name);
                }
                set
            }
            Action::RemoveListener(name) => {
                self.placements.remove(name);
                self.ends.remove(Kind::Listener, name);
                self.remove_listener(name);
                Ok(())
            }
            Action::SetMultiKey(name) => {
                let set = self.set_multikey(wanted, name).await;
                if set.is_err() {
                    self.remove_listener(&multikey_name(name));
                }
                set
            }
            Action::RemoveMultiKey(name) => {
                self.ends.remove(Kind::MultiKeyListener, name);
                self.remove_listener(&multikey_name(name));
                Ok(())
            }
        }
    }

    async fn set_listener(&mut self, core: &CoreSender, wanted: &Picture, name: &Name) -> Done {
        let Some(listener) = wanted.listeners.get(name) else {
            return Ok(());
        };
        let from = Sources {
            wanted,
            secrets: &self.secrets,
        };
        let tls = self.ends.listener(from, name, listener)?;
        let (host, port) = (&listener.host, listener.port);
        let netns = listener.settings.get(NETNS);
        let address = match netns {
            None => self.addresses.of(host, &wanted.listeners)?,
            Some(_) => None,
        };
        let addrs = match address {
            Some(ip) => vec![SocketAddr::new(ip, port)],
            None => {
                let found = resolve(host, port).await;
                found.map_err(|e| format!("spec.host: looking up {host}: {e}"))?
            }
        };
        let places = places(&addrs, port, &listener.settings)?;
        let placed = match netns {
            None => {
                self.placements.remove(name);
                None
            }
            Some(netns) => Some(self.place(core, name, netns, &places).await?),
        };
        let key = listener.routing_key.as_str();
        let front = tls.map(|tls| Front {
            keys: Keys::Ordered(vec![key.into()]),
            tls: Some(tls),
        });
        let spec = ListenerSpec {
            name: name.to_string(),
            places,
            placed,
            // One with a front is known by that alone: nobody serves it without.
            routing_key: front.as_ref().map_or(key, |_| "").to_owned(),
            front: front.map(Arc::new),
            acceleration: settings::acceleration(&listener.settings)?,
        };
        self.listeners.push(Change::Set(spec));
        Ok(())
    }

    async fn set_multikey(&mut self, wanted: &Picture, name: &Name) -> Done {
        let Some(listener) = wanted.multikeys.get(name) else {
            return Ok(());
        };
        let from = Sources {
            wanted,
            secrets: &self.secrets,
        };
        let tls = self.ends.multikey(from, name, listener)?;
        if listener.settings.contains_key(NETNS) {
            let text = format!("spec.settings[{NETNS}]: only a Listener can be in another one");
            return Err(text);
        }
        let addrs = resolve(&listener.host, listener.port).await;
        let addrs = addrs.map_err(|e| format!("spec.host: looking up {}: {e}", listener.host))?;
        let keys = match &listener.strategy {
            Strategy::Priority(keys) => {
                Keys::Ordered(keys.iter().map(|key| key.as_str().into()).collect())
            }
            Strategy::Weighted(keys) => {
                let weighted = keys.iter().map(|(key, n)| (key.as_str().into(), *n));
                Keys::Weighted(weighted.collect(), AtomicU32::default())
            }
        };
        let spec = ListenerSpec {
            name: multikey_name(name),
            places: places(&addrs, listener.port, &listener.settings)?,
            placed: None,
            routing_key: String::new(),
            front: Some(Arc::new(Front { keys, tls })),
            acceleration: settings::acceleration(&listener.settings)?,
        };
        self.listeners.push(Change::Set(spec));
        Ok(())
    }

    async fn set_connector(
        &mut self,
        core: &CoreSender,
        wanted: &Picture,
        key: Key,
        name: &str,
        connector: &Connector,
    ) -> Done {
        match self.connector(wanted, key, name, connector) {
            Ok(spec) => self.put_connector(core, &connector.host, spec).await,
            Err(error) => {
                self.remove_connector(core, name).await?;
                Err(error)
            }
        }
    }

    fn connector(
        &mut self,
        wanted: &Picture,
        key: Key,
        name: &str,
        connector: &Connector,
    ) -> Result<ConnectorSpec, String> {
        let from = Sources {
            wanted,
            secrets: &self.secrets,
        };
        let host = match &connector.host {
            ServerHost::Unix(path) => TargetHost::Unix(path.clone()),
            // Each of its servers has an address.
            ServerHost::Workload(selector) => TargetHost::Name(selector.to_string()),
            ServerHost::Network(host) => match host.ip() {
                Some(ip) => TargetHost::Ip(ip),
                None => TargetHost::Name(host.to_string()),
            },
        };
        Ok(ConnectorSpec {
            name: name.to_owned(),
            host,
            port: connector.port,
            routing_key: connector.routing_key.to_string(),
            tls: self.ends.connector(from, key, connector)?,
            proxy_protocol: ends::proxy_protocol(&connector.settings)?,
            probe: ends::probe(connector)?,
            acceleration: settings::acceleration(&connector.settings)?,
            include_not_ready: connector.include_not_ready,
        })
    }

    /// Replaces the credentials of listeners and connectors that have changed. Gives what could not
    /// be replaced, and why.
    pub(super) fn refresh_ends(&mut self, wanted: &Picture) -> BTreeMap<Key, String> {
        let secrets = &self.secrets;
        self.ends.refresh(Sources { wanted, secrets })
    }

    fn remove_listener(&mut self, name: &str) {
        self.listeners.push(Change::Remove(name.to_owned()));
    }

    /// Sockets of a listener in another network namespace: those that it has, or others.
    async fn place(
        &mut self,
        core: &CoreSender,
        name: &Name,
        netns: &str,
        places: &[Place],
    ) -> Result<Placed, String> {
        let bad = |e| format!("spec.settings[{NETNS}]: {e}");
        let target: Netns = netns.parse().map_err(bad)?;
        if let Some(placed) = self.placements.kept(name, &target, places) {
            return Ok(placed);
        }
        // The old ones go first: the new ones may want their ports.
        self.remove_listener(name);
        self.finish(core).await?;
        let (places, workers) = (places.to_vec(), self.trunk);
        self.placements.make(name, target, places, workers).await
    }

    /// Makes the changes of listeners that were waiting.
    pub(super) async fn finish(&mut self, core: &CoreSender) -> Done {
        let changes = std::mem::take(&mut self.listeners);
        if changes.is_empty() {
            return Ok(());
        }
        let all = move |site: &mut Site, core: &mut Core| {
            for change in changes {
                match change {
                    Change::Set(spec) => site.set_listener(core, spec),
                    Change::Remove(name) => site.remove_listener(core, &name),
                }
            }
        };
        self.on_site(core, all).await
    }

    async fn remove_link(&self, core: &CoreSender, name: &str) -> Done {
        let name = name.to_owned();
        self.on_site(core, move |s, c| s.remove_link(c, &name, "link deleted"))
            .await
    }

    /// Sets a connector, or has the servers looked for that it stands for.
    async fn put_connector(
        &mut self,
        core: &CoreSender,
        host: &ServerHost,
        spec: ConnectorSpec,
    ) -> Done {
        if let ServerHost::Workload(selector) = host {
            let (selector, port) = (selector.clone(), spec.port);
            self.workloads.set(Wish { selector, port }, spec);
            return Ok(());
        }
        self.workloads.remove(&spec.name);
        self.on_site(core, move |s, c| s.set_connector(c, spec))
            .await
    }

    /// Gives connectors with selectors the servers that were found.
    pub(super) async fn follow(&mut self, core: &CoreSender, asking: &Asking) -> Done {
        let Some(id) = self.site else { return Ok(()) };
        for (name, servers) in self.workloads.due(asking) {
            let of = name.clone();
            let set = move |site: &mut Site, core: &mut Core| site.set_servers(core, &of, servers);
            let busy = core.call(move |c| c.site(id, set)).await;
            let busy = busy.ok_or_else(ended)?;
            self.workloads.was_set(&name, busy.unwrap_or_default());
        }
        Ok(())
    }

    async fn remove_connector(&mut self, core: &CoreSender, name: &str) -> Done {
        self.workloads.remove(name);
        let name = name.to_owned();
        self.on_site(core, move |s, c| s.remove_connector(c, &name))
            .await
    }

    async fn on_site(
        &self,
        core: &CoreSender,
        f: impl FnOnce(&mut Site, &mut Core) + Send + 'static,
    ) -> Done {
        let Some(id) = self.site else { return Ok(()) };
        core.call(move |c| c.site(id, f))
            .await
            .map(drop)
            .ok_or_else(ended)
    }

    async fn start(&mut self, core: &CoreSender, wanted: &Picture) -> Done {
        let Some((name, site)) = &wanted.site else {
            return Ok(());
        };
        self.site_id = self
            .remember(site.uid.as_ref().map(SiteId::as_str))?
            .site_id
            .clone();
        // What is wrong is said before anything runs.
        settings::steering(&site.settings)?;
        settings::acceleration(&site.settings)?;
        self.own_addresses(wanted)?;
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let router_id = format!("{name}-{}-{}", now.as_secs(), now.subsec_nanos());
        // The router that an edge hangs on speaks for it: its advert says whose it is.
        let edge = site.edge.then_some(router_id.as_str());
        let namespace = self.namespace.name();
        let spec = SiteSpec {
            advert: super::status::advert(&self.site_id, name, namespace, edge),
            edge: site.edge,
            namespace: namespace.to_string(),
            site: Arc::new(SiteName {
                namespace: namespace.to_string(),
                id: self.site_id.clone(),
                name: name.to_string(),
            }),
            router_id,
            instance: i64::try_from(now.as_secs()).unwrap_or(0),
            trunk: settings::trunk(&site.settings).unwrap_or(self.trunk),
        };
        let id = core
            .call(move |c| c.add_site(spec))
            .await
            .ok_or_else(ended)?;
        self.site = Some(id);
        let done = self.furnish(core, wanted, site).await;
        if done.is_err() {
            // It is started as a whole or not at all: the next try is another site.
            self.stop(core).await?;
        }
        done
    }

    async fn stop(&mut self, core: &CoreSender) -> Done {
        self.listeners.clear();
        self.placements.clear();
        self.ends.clear();
        self.workloads.clear();
        self.accesses.clear();
        if let Some(id) = self.site.take() {
            let removed = core.call(move |c| c.remove_site(id)).await;
            removed.ok_or_else(ended)?;
        }
        self.addresses.clear()
    }

    async fn furnish(
        &mut self,
        core: &CoreSender,
        wanted: &Picture,
        site: &crate::model::Site,
    ) -> Done {
        self.revoke(core, wanted).await?;
        self.steer(core, wanted).await?;
        if let Some(port) = settings::local_amqp(&site.settings)? {
            let field = format!("spec.settings[{}]", settings::LOCAL_AMQP);
            let addr = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
            let sockets = Plain
                .open(addr, 1)
                .map_err(|e| format!("{field}: {}", chain(&e)))?;
            if let Some(socket) = sockets.into_iter().next() {
                self.on_site(core, move |s, c| s.set_local(c, socket))
                    .await?;
            }
        }
        Ok(())
    }

    /// Has listeners steered or not, and connections accelerated or not, as the site says.
    async fn steer(&self, core: &CoreSender, wanted: &Picture) -> Done {
        let Some((_, site)) = &wanted.site else {
            return Ok(());
        };
        let steering = settings::steering(&site.settings)?;
        // What differs for programs is for whoever knows them to accept: not by default.
        let accelerated = settings::acceleration(&site.settings)?.unwrap_or(false);
        let set = move |s: &mut Site, c: &mut Core| {
            s.set_acceleration(c, accelerated);
            s.set_steering(c, steering);
        };
        self.on_site(core, set).await
    }

    /// Makes the addresses that the site has for its services this host's own.
    fn own_addresses(&mut self, wanted: &Picture) -> Done {
        match &wanted.site {
            Some((_, site)) => self.addresses.set(&site.settings),
            None => Ok(()),
        }
    }

    /// Says the names of the site's service addresses to the host.
    pub(super) fn publish_names(&mut self, wanted: &Picture) {
        if let Err(error) = self.addresses.publish(&wanted.listeners) {
            tracing::error!(namespace = %self.namespace.name(), %error, "names of service addresses");
        }
    }

    /// Takes the certificates that the site names no more.
    async fn revoke(&mut self, core: &CoreSender, wanted: &Picture) -> Done {
        let Some((_, site)) = &wanted.site else {
            return Ok(());
        };
        self.refused.serials = settings::revoked(&site.settings)?;
        settings::named_hosts(&site.settings)?;
        self.refuse(core).await
    }

    /// Identity and ports from earlier runs; made on first need.
    fn remember(&mut self, uid: Option<&str>) -> Result<&mut Memory, String> {
        if self.memory.is_none() {
            let path = self.namespace.internal().join("site.json");
            let memory = match read_text(&path) {
                Ok(text) => serde_json::from_str::<Memory>(&text)
                    .map_err(|e| format!("reading {}: {e}", path.display()))?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => Memory {
                    version: MEMORY_VERSION,
                    site_id: uid.map_or_else(new_id, str::to_owned),
                    ports: BTreeMap::new(),
                },
                Err(e) => return Err(format!("reading {}: {e}", path.display())),
            };
            if memory.version > MEMORY_VERSION {
                return Err(format!(
                    "{} is of version {}, and this program knows {MEMORY_VERSION}",
                    path.display(),
                    memory.version
                ));
            }
            self.memory = Some(memory);
            self.save()?;
        }
        self.memory.as_mut().ok_or_else(|| "no memory".to_owned())
    }

    /// A port that was chosen here in an earlier run.
    pub(super) fn port(&mut self, of: &str) -> Option<u16> {
        self.memory.as_ref()?.ports.get(of).copied()
    }

    /// Remembers a port that was chosen here.
    pub(super) fn keep_port(&mut self, of: &str, port: u16) -> Done {
        let ports = &mut self.remember(None)?.ports;
        if ports.insert(of.to_owned(), port) == Some(port) {
            return Ok(());
        }
        self.save()
    }

    fn save(&self) -> Done {
        let path = self.namespace.internal().join("site.json");
        let text = serde_json::to_string_pretty(&self.memory)
            .map_err(|e| format!("encoding {}: {e}", path.display()))?;
        write_file(&path, text.as_bytes(), SHARED)
            .map_err(|e| format!("writing {}: {e}", path.display()))
    }

    async fn set_link(
        &mut self,
        core: &CoreSender,
        wanted: &Picture,
        name: &str,
        link: &Link,
        secrets: &LinkSecrets,
    ) -> Done {
        let prepared = prepare_link(wanted, name, link, secrets);
        match prepared {
            Ok(spec) => self.on_site(core, move |s, c| s.set_link(c, spec)).await,
            Err(error) => {
                self.remove_link(core, name).await?;
                Err(error)
            }
        }
    }

    async fn set_access(
        &mut self,
        core: &CoreSender,
        wanted: &Picture,
        name: &Name,
        access: &RouterAccess,
    ) -> Done {
        let own = wanted.site.as_ref().is_some_and(|(site, _)| site == name)
            && access.bind_host.is_none();
        let hosts = certificate_hosts(access);
        let served = self.credentials(wanted, name, access, &hosts)?;
        let tls = pki::server_config(&access.tls_credentials, &served.secret);
        let tls = ServerTls::new(ArcSwap::new(tls.map_err(|e| chain(&e))?));
        let removed = name.to_string();
        self.accesses.remove(name);
        // The old sockets go first: the new ones may want their ports.
        self.on_site(core, move |s, c| s.remove_access(c, &removed, false))
            .await?;
        let mut sockets = Vec::new();
        let mut ports = Vec::new();
        for AccessRole { role, port } in &access.roles {
            let remembered = format!("{name}/{}", role.as_str());
            let memory = self.remember(None)?;
            let first = memory
                .ports
                .get(&remembered)
                .copied()
                .filter(|_| own)
                .unwrap_or(*port);
            let (port, bound) = bind(access.bind_host.as_ref(), first, own).await?;
            ports.push(AccessRole { role: *role, port });
            sockets.extend(bound.into_iter().map(|socket| (*role, socket)));
            let memory = self.remember(None)?;
            if own && memory.ports.insert(remembered, port) != Some(port) {
                self.save()?;
            }
        }
        let spec = AccessSpec {
            name: Arc::from(name.as_str()),
            sockets,
            tls: tls.clone(),
        };
        self.on_site(core, move |s, c| s.set_access(c, spec))
            .await?;
        tracing::info!(
            namespace = %self.namespace.name(),
            access = %name,
            ports = ?ports.iter().map(|r| r.port).collect::<Vec<_>>(),
            "link access is open"
        );
        let open = OpenAccess {
            ports,
            hosts,
            served,
            tls,
        };
        self.accesses.insert(name.clone(), open);
        Ok(())
    }

    /// What an access shows and trusts by now: the user's, or ours, issued anew when it runs out.
    fn credentials(
        &self,
        wanted: &Picture,
        name: &Name,
        access: &RouterAccess,
        hosts: &[String],
    ) -> Result<Served, String> {
        let site = wanted.site.as_ref().map(|(_, site)| site);
        let issuer = access.issuer.clone();
        let issuer = issuer.or_else(|| site.and_then(|s| s.default_issuer.clone()));
        let issuer = issuer.map_or_else(|| Name::new(pki::SITE_CA), Ok);
        let issuer = issuer.map_err(|e| e.to_string())?;
        let validity = site.map(|s| settings::validity(&s.settings)).transpose()?;
        let validity = validity.flatten();
        let secret = self.secrets.get(&issuer);
        let rotation = site.map(|s| settings::rotation(&s.settings)).transpose()?;
        let issuer = pki::issuer_for(&self.namespace, &issuer, secret, rotation.as_ref());
        let issuer = issuer.map_err(|e| chain(&e))?;
        let credentials = &access.tls_credentials;
        let asked: Vec<String> = access
            .subject_alternative_names
            .iter()
            .map(ToString::to_string)
            .collect();
        let given = (self.secrets.get(credentials), validity);
        pki::server_for(
            &self.namespace,
            &issuer,
            credentials,
            (name, hosts),
            &asked,
            given,
        )
        .map_err(|e| chain(&e))
    }

    /// Replaces what the open accesses show and trust where that has changed. Links that are up stay
    /// as they are. Gives what could not be replaced, and why.
    pub(super) fn refresh(&mut self, wanted: &Picture) -> BTreeMap<Name, String> {
        let mut failed = BTreeMap::new();
        for name in self.accesses.keys().cloned().collect::<Vec<_>>() {
            let (Some(access), Some(open)) = (wanted.accesses.get(&name), self.accesses.get(&name))
            else {
                continue;
            };
            let fresh = self
                .credentials(wanted, &name, access, &open.hosts)
                .and_then(|served| {
                    let tls = pki::server_config(&access.tls_credentials, &served.secret);
                    Ok((tls.map_err(|e| chain(&e))?, served))
                });
            match fresh {
                Ok((_, served)) if served == open.served => {}
                Ok((tls, served)) => {
                    tracing::info!(
                        namespace = %self.namespace.name(),
                        access = %name,
                        expires = served.identity.as_ref().map(|i| i.expires.to_string()),
                        "credentials of link access are replaced"
                    );
                    open.tls.store(tls);
                    if let Some(open) = self.accesses.get_mut(&name) {
                        open.served = served;
                    }
                }
                Err(error) => drop(failed.insert(name, error)),
            }
        }
        failed
    }

    /// When the first of our credentials is to be renewed, or stops being trusted.
    pub(super) fn renewal(&self) -> Option<Timestamp> {
        let due = self.accesses.values().filter_map(|a| a.served.changes);
        due.chain(self.ends.renewal()).min()
    }

    /// Until when a retired CA, known by its key identifier, is trusted; empty for one that is not.
    pub(super) fn trusted_until(&self, authority: &str) -> String {
        let mut retired = self.accesses.values().flat_map(|a| &a.served.retired);
        let found = retired.find(|(key, _)| key == authority);
        found
            .map(|(_, until)| until.to_string())
            .unwrap_or_default()
    }

    /// Ends the links that came in by a CA whose overlap is over.
    pub(super) async fn retire(&mut self, core: &CoreSender) -> Done {
        let now = Timestamp::now();
        let retired = self.accesses.values().flat_map(|a| &a.served.retired);
        let over = retired.filter(|(_, until)| *until <= now);
        let over: BTreeSet<String> = over.map(|(key, _)| key.clone()).collect();
        if over == self.refused.authorities {
            return Ok(());
        }
        self.refused.authorities = over;
        self.refuse(core).await
    }

    async fn refuse(&self, core: &CoreSender) -> Done {
        let refused = self.refused.clone();
        self.on_site(core, move |s, c| s.set_refused(c, refused))
            .await
    }
}

/// Name of a MultiKeyListener in the core, where all listeners are together; no Listener has it.
pub(super) fn multikey_name(name: &str) -> String {
    format!("multikeylistener/{name}")
}

fn ended() -> String {
    "the daemon is ending".to_owned()
}

pub(super) fn new_id() -> String {
    let mut bytes = [0; 16];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        // The system has no randomness: time still tells sites apart.
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        bytes = now.as_nanos().to_be_bytes();
    }
    // Version 4, variant 1 (RFC 9562).
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

fn prepare_link(
    wanted: &Picture,
    name: &str,
    link: &Link,
    secrets: &LinkSecrets,
) -> Result<LinkSpec, String> {
    let credentials = &link.tls_credentials;
    let secret = secrets.credentials.as_ref().map_err(Clone::clone)?.as_ref();
    let secret = secret.ok_or_else(|| format!("secret {credentials:?} not found"))?;
    let proxy = match (link.settings.get(PROXY), &secrets.proxy) {
        (None, _) => None,
        (Some(name), None) => {
            return Err(format!("spec.settings[{PROXY}]: secret {name:?} not found"));
        }
        (Some(name), Some(secret)) => {
            let missing =
                || format!("spec.settings[{PROXY}]: secret {name:?} has no host and port");
            Some(secret.proxy.clone().ok_or_else(missing)?)
        }
    };
    let edge = wanted.site.as_ref().is_some_and(|(_, s)| s.edge);
    let role = if edge { Role::Edge } else { Role::InterRouter };
    let target = |endpoint: &Endpoint| Target {
        host: endpoint.host.to_string(),
        port: endpoint.port,
    };
    let ours = link.endpoints.iter().filter(|e| e.role == role);
    let targets: Vec<Target> = ours.map(target).collect();
    if targets.is_empty() {
        let role = role.as_str();
        return Err(format!(
            "spec.endpoints: no endpoint for the role of this site, {role}"
        ));
    }
    Ok(LinkSpec {
        name: name.to_owned(),
        targets,
        cost: link.cost,
        credentials: secret.clone(),
        proxy,
        tls: pki::client_config(credentials, secret).map_err(|e| chain(&e))?,
    })
}

async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let addrs: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    if addrs.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no address"));
    }
    Ok(addrs)
}

/// Binds a port for links; with `search` the next free one when it is taken.
pub(super) async fn bind(
    host: Option<&Host>,
    port: u16,
    search: bool,
) -> Result<(u16, Vec<TcpListener>), String> {
    let tries = if search { PORT_TRIES } else { 1 };
    let mut last = String::new();
    for port in (0..tries).filter_map(|n| port.checked_add(n)) {
        let addrs = match host {
            None => vec![
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
                SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
            ],
            Some(host) => {
                let found = resolve(host, port).await;
                found.map_err(|e| format!("spec.bindHost: looking up {host}: {e}"))?
            }
        };
        let mut sockets = Vec::new();
        let mut failed = None;
        for addr in addrs {
            match Plain.open(addr, 1) {
                Ok(bound) => sockets.extend(bound),
                // A host without IPv6 serves IPv4.
                Err(_) if addr.is_ipv6() && host.is_none() && !has_ipv6() => {}
                Err(e) => failed = Some(chain(&e)),
            }
        }
        match failed {
            None => return Ok((port, sockets)),
            Some(error) => last = error,
        }
    }
    Err(last)
}

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// Names that remote sites may dial: those that are asked for, or everything this host is known by.
fn certificate_hosts(access: &RouterAccess) -> Vec<String> {
    let names = access
        .subject_alternative_names
        .iter()
        .chain(&access.bind_host);
    let mut hosts: Vec<String> = names.map(ToString::to_string).collect();
    if hosts.is_empty() {
        hosts.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        hosts.extend(host_names());
    }
    hosts.sort();
    hosts.dedup();
    hosts
}

/// The host that others can really use: an address rather than a name, which may mean nothing
/// elsewhere, and never one that is this host to everybody.
pub(crate) fn reachable(hosts: &[String]) -> Option<String> {
    let usable = |host: &&String| match host.parse::<IpAddr>() {
        Ok(ip) => !ip.is_unspecified() && !ip.is_loopback(),
        Err(_) => *host != "localhost",
    };
    let (ips, names): (Vec<&String>, Vec<&String>) = hosts
        .iter()
        .filter(usable)
        .partition(|h| h.parse::<IpAddr>().is_ok());
    ips.into_iter().chain(names).next().cloned()
}

/// The host's own name and the addresses of its interfaces, loopback and link-local ones left out.
pub(crate) fn host_names() -> Vec<String> {
    let mut names = Vec::new();
    if let Ok(name) = nix::unistd::gethostname() {
        let name = name.to_string_lossy().to_lowercase();
        if crate::model::check_host(&name).is_ok() && name != "localhost" {
            names.push(name);
        }
    }
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    names.extend(
        interface_addresses()
            .filter(usable)
            .map(|ip| ip.to_string()),
    );
    names
}

/// The addresses of this host's interfaces.
pub(super) fn interface_addresses() -> impl Iterator<Item = IpAddr> {
    let addresses = nix::ifaddrs::getifaddrs().into_iter().flatten();
    addresses.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
    })
}
