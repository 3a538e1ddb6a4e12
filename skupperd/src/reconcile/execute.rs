//! Carrying out one step of a plan.

mod access;
mod links;
mod memory;
mod services;

pub(super) use access::{OpenAccess, bind};
pub(super) use memory::new_id;
pub(super) use services::multikey_name;

use super::{
    addresses::Addresses, attached::attached_name, ends::Ends, placed::Placements, settings,
    workloads::Workloads,
};
use crate::{
    link::{
        Refused,
        core::{Core, CoreSender, ListenerSpec, Site, SiteSpec},
        ledger::SiteName,
    },
    model::{Key, Kind, Name, Secret, SiteId},
    plan::{Action, Picture},
    steer::{Plain, routes::Routes},
    store::NamespaceDir,
    telemetry::chain,
};
use memory::Memory;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

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
    /// The port that AMQP clients of this host are let in at.
    local_amqp: Option<u16>,
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
            local_amqp: None,
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
                self.serve_clients(core, wanted).await?;
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
            host: crate::sys::host_name().unwrap_or_default(),
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
        let done = self.furnish(core, wanted).await;
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
        self.local_amqp = None;
        if let Some(id) = self.site.take() {
            let removed = core.call(move |c| c.remove_site(id)).await;
            removed.ok_or_else(ended)?;
        }
        self.addresses.clear()
    }

    async fn furnish(&mut self, core: &CoreSender, wanted: &Picture) -> Done {
        self.revoke(core, wanted).await?;
        self.steer(core, wanted).await?;
        self.serve_clients(core, wanted).await
    }

    /// Lets AMQP clients of this host in where the site says, and nowhere else.
    async fn serve_clients(&mut self, core: &CoreSender, wanted: &Picture) -> Done {
        let Some((_, site)) = &wanted.site else {
            return Ok(());
        };
        let port = settings::local_amqp(&site.settings)?;
        if port == self.local_amqp {
            return Ok(());
        }
        let socket = match port {
            None => None,
            Some(port) => {
                let addr = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
                let sockets = Plain.open(addr, 1);
                let failed = |e| format!("spec.settings[{}]: {}", settings::LOCAL_AMQP, chain(&e));
                sockets.map_err(failed)?.into_iter().next()
            }
        };
        self.on_site(core, move |s, c| s.set_local(c, socket))
            .await?;
        self.local_amqp = port;
        Ok(())
    }

    /// Has listeners steered or not, and connections accelerated or not, as the site says.
    async fn steer(&mut self, core: &CoreSender, wanted: &Picture) -> Done {
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
        self.on_site(core, set).await?;
        let steers = steering && core.call(|core| core.steers()).await.unwrap_or(false);
        self.placements.set_steered(steers);
        Ok(())
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
}

fn ended() -> String {
    "the daemon is ending".to_owned()
}
