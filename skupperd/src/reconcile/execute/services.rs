//! Steps for listeners and connectors.

use super::{Change, Done, Executor, ended};
use crate::{
    link::{
        core::{ConnectorSpec, Core, CoreSender, ListenerSpec, Site},
        ends::{Front, Keys},
        view::TargetHost,
    },
    model::{Connector, Key, Name, ServerHost, Strategy},
    plan::Picture,
    reconcile::{
        ends::{self, Sources},
        hosts::resolve,
        places::{NETNS, places},
        policy, settings,
    },
    steer::{
        netns::{Netns, Placed},
        place::Place,
    },
    workload::{Asking, Wish},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU32},
};

impl Executor {
    pub(super) async fn set_listener(
        &mut self,
        core: &CoreSender,
        wanted: &Picture,
        name: &Name,
    ) -> Done {
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
        let users = policy::users(&listener.settings)?;
        let front = (tls.is_some() || users.is_some()).then(|| Front {
            keys: Keys::Ordered(vec![key.into()]),
            tls,
            users,
        });
        let spec = ListenerSpec {
            name: name.to_string(),
            places,
            placed,
            // One with a front is known by that alone: nobody serves it without.
            routing_key: front.as_ref().map_or(key, |_| "").to_owned(),
            front: front.map(Arc::new),
            acceleration: settings::acceleration(&listener.settings)?,
            observer: listener.observer,
        };
        self.listeners.push(Change::Set(spec));
        Ok(())
    }

    pub(super) async fn set_multikey(&mut self, wanted: &Picture, name: &Name) -> Done {
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
        let users = policy::users(&listener.settings)?;
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
            front: Some(Arc::new(Front { keys, tls, users })),
            acceleration: settings::acceleration(&listener.settings)?,
            observer: listener.observer,
        };
        self.listeners.push(Change::Set(spec));
        Ok(())
    }

    pub(super) async fn set_connector(
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
            sites: policy::sites(&connector.settings)?,
            probe: ends::probe(connector)?,
            acceleration: settings::acceleration(&connector.settings)?,
            include_not_ready: connector.include_not_ready,
        })
    }

    /// Replaces the credentials of listeners and connectors that have changed. Gives what could not
    /// be replaced, and why.
    pub(in crate::reconcile) fn refresh_ends(&mut self, wanted: &Picture) -> BTreeMap<Key, String> {
        let secrets = &self.secrets;
        self.ends.refresh(Sources { wanted, secrets })
    }

    pub(super) fn remove_listener(&mut self, name: &str) {
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
    pub(in crate::reconcile) async fn finish(&mut self, core: &CoreSender) -> Done {
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
    pub(in crate::reconcile) async fn follow(
        &mut self,
        core: &CoreSender,
        asking: &Asking,
    ) -> Done {
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

    pub(super) async fn remove_connector(&mut self, core: &CoreSender, name: &str) -> Done {
        self.workloads.remove(name);
        let name = name.to_owned();
        self.on_site(core, move |s, c| s.remove_connector(c, &name))
            .await
    }
}

/// Name of a MultiKeyListener in the core, where all listeners are together; no Listener has it.
pub(in crate::reconcile) fn multikey_name(name: &str) -> String {
    format!("multikeylistener/{name}")
}
