//! Accepting: ports for links and clients, whose certificates are taken, what has come in.

use super::{
    Core,
    site::{ACCESS_ID, MAX_WAITING, Peer, Site, close, cost},
    telling, uplink,
};
use crate::{
    amqp::{
        connection::Config as OpenConfig,
        value::{Symbol, Value},
    },
    link::{
        accept::{self, Port},
        dial,
        handshake::{Established, Refused},
    },
    model::Role,
    pki::Identity,
};
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Instant,
};
use tokio::task::AbortHandle;

/// Certificates for accepting, which can be replaced while ports are open.
pub type ServerTls = Arc<ArcSwap<ServerConfig>>;

/// A port for links.
pub struct AccessSpec {
    /// Name of the RouterAccess.
    pub name: Arc<str>,
    /// Listening sockets with their roles.
    pub sockets: Vec<(Role, TcpListener)>,
    /// Certificates.
    pub tls: ServerTls,
}

/// A link that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingLink {
    /// The remote router.
    pub remote: String,
    /// Where it came from.
    pub peer: SocketAddr,
    /// Its certificate.
    pub identity: Identity,
}

impl Site {
    /// Accepts links on these sockets.
    pub fn set_access(&mut self, core: &Core, spec: AccessSpec) {
        self.remove_access(core, &spec.name.clone(), false);
        let roles: Vec<Role> = spec.sockets.iter().map(|(role, _)| *role).collect();
        let tasks: Vec<AbortHandle> = spec
            .sockets
            .into_iter()
            .map(|(role, socket)| {
                let port = Port::Links {
                    access: spec.name.clone(),
                    role,
                    tls: spec.tls.clone(),
                    revoked: self.revoked.clone(),
                };
                let what = telling::access(&spec.name, role.as_str());
                let id = self.telling.identity(core, &what);
                self.accept_on(core, socket, port, role == Role::Edge, Some(id))
            })
            .collect();
        self.accesses.insert(spec.name.to_string(), (roles, tasks));
    }

    /// Takes none of these certificates any more, and ends the links that came in with one. Of a CA
    /// that is over, a connection stays whose peer has come again with better credentials: only its
    /// last streams are on it.
    pub fn set_refused(&mut self, core: &Core, refused: Refused) {
        let ours = |p: &Peer| p.link.is_none();
        let good = |p: &Peer| p.identity.as_ref().is_some_and(|i| !refused.contains(i));
        let came_again = |p: &Peer| {
            let later = |q: &Peer| q.remote == p.remote && q.since > p.since && ours(q) && good(q);
            self.peers.values().any(later)
        };
        let cut = |p: &Peer| {
            p.identity.as_ref().is_some_and(|i| {
                refused.serials.contains(&i.serial)
                    || (refused.authorities.contains(&i.authority) && !came_again(p))
            })
        };
        for (key, peer) in self.peers.iter().filter(|(_, p)| ours(p) && cut(p)) {
            close(core, *key, peer, "its certificate or CA was revoked");
        }
        self.waiting.retain(|(_, _, established)| {
            let identity = established.identity.as_ref();
            identity.is_none_or(|i| !refused.contains(i))
        });
        self.revoked.store(Arc::new(refused));
    }

    /// The links that came in and are up.
    pub fn incoming_links(&self) -> Vec<IncomingLink> {
        let link = |p: &Peer| {
            Some(IncomingLink {
                remote: p.remote.clone(),
                peer: p.addr,
                identity: p.identity.clone()?,
            })
        };
        let came_in = |p: &&Peer| p.link.is_none() && p.neighbour;
        self.peers
            .values()
            .filter(came_in)
            .filter_map(link)
            .collect()
    }

    /// Accepts AMQP clients of this host on this socket, or none any more. Those that are connected
    /// stay.
    pub fn set_local(&mut self, core: &Core, socket: Option<TcpListener>) {
        self.remove_access(core, "", false);
        if let Some(socket) = socket {
            let task = self.accept_on(core, socket, Port::Local, false, None);
            self.accesses
                .insert(String::new(), (Vec::new(), vec![task]));
        }
    }

    /// Ports for links, with what comes to them.
    pub(super) fn access_roles(&self) -> Vec<(String, &'static str)> {
        let accesses = self.accesses.iter();
        let roles = accesses.flat_map(|(name, (roles, _))| {
            roles.iter().map(move |role| (name.clone(), role.as_str()))
        });
        roles.collect()
    }

    fn accept_on(
        &self,
        core: &Core,
        socket: TcpListener,
        port: Port,
        edges: bool,
        id: Option<String>,
    ) -> AbortHandle {
        let (router, sender) = (self.spec.router_id.clone(), core.sender.clone());
        // An edge does not hear what the network says of this site.
        let advert = edges.then(|| self.spec.advert.clone());
        let open = move || {
            let mut config = OpenConfig::new(&*router);
            config.capabilities = dial::capabilities();
            config.properties = dial::properties(sender.next_key());
            if let Some(id) = &id {
                let name = Value::Symbol(Symbol::from(ACCESS_ID));
                config.properties.push((name, Value::from(&**id)));
            }
            if let Some(advert) = &advert {
                let name = Value::Symbol(Symbol::from(uplink::ADVERT));
                config.properties.push((name, Value::from(&**advert)));
            }
            config
        };
        let task = accept::port(socket, self.id, port, core.sender.clone(), open);
        tokio::task::spawn(task).abort_handle()
    }

    /// Stops accepting; with `cut` the links that came in are ended too.
    pub fn remove_access(&mut self, core: &Core, name: &str, cut: bool) {
        let Some((_, tasks)) = self.accesses.remove(name) else {
            return;
        };
        tasks.iter().for_each(AbortHandle::abort);
        if cut {
            let own = |p: &Peer| p.access.as_deref() == Some(name);
            for (key, peer) in self.peers.iter().filter(|(_, p)| own(p)) {
                close(core, *key, peer, "link access removed");
            }
        }
    }

    pub(super) fn accepted(
        &mut self,
        core: &mut Core,
        access: &str,
        role: Role,
        established: Established,
    ) {
        let text = |name: &str| {
            established
                .open
                .property(name)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let correlator = text("qd.group-correlator");
        let of = established
            .open
            .property("qd.inter-router-role")
            .and_then(Value::as_i64);
        if role == Role::InterRouter && of == Some(4) {
            let Some(correlator) = correlator else {
                tracing::warn!(peer = %established.peer, "data connection without a group");
                return;
            };
            let group = self
                .peers
                .iter()
                .find(|(_, p)| p.link.is_none() && p.correlator.as_ref() == Some(&correlator))
                .map(|(key, _)| *key);
            match group {
                Some(group) => self.add_data(core, core.sender.next_key(), group, established),
                None if self.waiting.len() < MAX_WAITING => {
                    self.waiting.push((Instant::now(), correlator, established));
                }
                None => tracing::warn!(peer = %established.peer, "too many connections wait"),
            }
            return;
        }
        let cost = cost(&established.open);
        let key = core.sender.next_key();
        tracing::info!(
            namespace = self.spec.namespace,
            access,
            peer = %established.peer,
            remote = established.open.container_id,
            role = role.as_str(),
            "link accepted"
        );
        let group = (Some(access), correlator.clone());
        self.add_control(core, key, role, None, group, cost, established);
        let (now, later) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<Vec<_>, _>(|(_, waits, _)| Some(waits) == correlator.as_ref());
        self.waiting = later;
        for (_, _, established) in now {
            self.add_data(core, core.sender.next_key(), key, established);
        }
    }
}
