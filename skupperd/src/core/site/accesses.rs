//! Ports of a site: where links and AMQP clients of this host are accepted, and which certificates are
//! refused.

use super::vanflow::VanflowEmitter;
use crate::{
    amqp::{
        connection::{Config as OpenConfig, Limits},
        value::{Symbol, Value},
    },
    core::site::vanflow,
    link::{
        conn::ConnKey,
        handshake::{Established, RevocationList, RevokedCertificates},
        names::{ACCESS_ID, SITE_ADVERT},
    },
    messages::{AcceptPort, CoreSender, ServerTls},
    model::Role,
    peering::{accept, dial},
    pki::CertificateIdentity,
};
use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};
use tokio::task::AbortHandle;

/// The name under which the port for AMQP clients of this host is kept: no resource has it.
const LOCAL_AMQP: &str = "";
/// Bytes of the links that a client of this host may attach: about 10,000 links.
const CLIENT_LINKS: usize = 4 * 1024 * 1024;
/// Bytes of the links that an edge may attach: two for each of 8,192 addresses, and those of streams.
const EDGE_LINKS: usize = 16 * 1024 * 1024;

/// Bytes of the links that a peer on this port may attach.
fn link_bytes(port: &AcceptPort) -> usize {
    match port {
        AcceptPort::Local => CLIENT_LINKS,
        AcceptPort::Links {
            role: Role::Edge, ..
        } => EDGE_LINKS,
        AcceptPort::Links { .. } => Limits::default().link_bytes,
    }
}

/// What a router says, and bounds, on a connection that came in by this port.
pub(crate) fn open_config(router: &str, port: &AcceptPort, key: ConnKey) -> OpenConfig {
    let mut config = OpenConfig::new(router);
    config.limits.link_bytes = link_bytes(port);
    config.capabilities = dial::capabilities();
    config.properties = dial::properties(key);
    config
}

/// A port for links.
pub struct AccessSpec {
    pub name: Arc<str>,
    pub sockets: Vec<(Role, TcpListener)>,
    pub tls: ServerTls,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingLink {
    pub remote: String,
    /// Where it came from.
    pub peer: SocketAddr,
    pub identity: CertificateIdentity,
}

/// Sockets of one RouterAccess. They are closed when it is dropped.
#[derive(Default)]
struct AccessPorts {
    roles: Vec<Role>,
    tasks: Vec<AbortHandle>,
}

impl Drop for AccessPorts {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

pub(in crate::core) struct Accesses {
    site: u32,
    router: String,
    /// The address by which the site is known to others, for edges: they do not learn it from the
    /// network.
    advert: String,
    sender: CoreSender,
    by_name: HashMap<String, AccessPorts>,
    revoked: RevocationList,
}

impl Accesses {
    pub(in crate::core) fn new(site: u32, router: &str, advert: &str, sender: CoreSender) -> Self {
        Self {
            site,
            router: router.to_owned(),
            advert: advert.to_owned(),
            sender,
            by_name: HashMap::new(),
            revoked: RevocationList::default(),
        }
    }

    /// Accepts links on the sockets of a RouterAccess. `emitter` knows the identity of each port, which
    /// peers are notified.
    pub(in crate::core) fn set(&mut self, spec: AccessSpec, emitter: &mut VanflowEmitter) {
        self.remove(&spec.name);
        let mut open = AccessPorts::default();
        for (role, socket) in spec.sockets {
            let port = AcceptPort::Links {
                access: spec.name.clone(),
                role,
                tls: spec.tls.clone(),
                revoked: self.revoked.clone(),
            };
            let id = emitter.identity(&vanflow::access(&spec.name, role.as_str()));
            open.roles.push(role);
            open.tasks
                .push(self.accept_on(socket, port, role == Role::Edge, Some(id)));
        }
        self.by_name.insert(spec.name.to_string(), open);
    }

    /// Accepts AMQP clients of this host on this socket, or none any more. Those that are connected
    /// stay.
    pub(in crate::core) fn set_local_amqp(&mut self, socket: Option<TcpListener>) {
        self.remove(LOCAL_AMQP);
        if let Some(socket) = socket {
            let mut open = AccessPorts::default();
            open.tasks
                .push(self.accept_on(socket, AcceptPort::Local, false, None));
            self.by_name.insert(LOCAL_AMQP.to_owned(), open);
        }
    }

    pub(in crate::core) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Stops accepting. False: there is no such RouterAccess.
    pub(in crate::core) fn remove(&mut self, name: &str) -> bool {
        self.by_name.remove(name).is_some()
    }

    pub(in crate::core) fn clear(&mut self) {
        self.by_name.clear();
    }

    /// Refuses these certificates from now on, in handshakes too that have begun.
    pub(in crate::core) fn refuse(&self, refused: RevokedCertificates) {
        self.revoked.store(Arc::new(refused));
    }

    /// The identity of a connection whose certificate is refused.
    pub(in crate::core) fn refused<'a>(
        &self,
        established: &'a Established,
    ) -> Option<&'a CertificateIdentity> {
        let identity = established.identity.as_ref();
        identity.filter(|identity| self.revoked.load().contains(identity))
    }

    /// Ports for links: the name of the RouterAccess and the role.
    pub(in crate::core) fn roles(&self) -> impl Iterator<Item = (&str, Role)> {
        let accesses = self.by_name.iter();
        accesses.flat_map(|(name, open)| open.roles.iter().map(move |role| (&**name, *role)))
    }

    fn accept_on(
        &self,
        socket: TcpListener,
        port: AcceptPort,
        edges: bool,
        id: Option<String>,
    ) -> AbortHandle {
        let (router, sender) = (self.router.clone(), self.sender.clone());
        let advert = edges.then(|| self.advert.clone());
        let opened_port = port.clone();
        let open = move || {
            let mut config = open_config(&router, &opened_port, sender.next_key());
            let texts = [(ACCESS_ID, &id), (SITE_ADVERT, &advert)];
            for (name, text) in texts {
                let text = text.as_deref().map(Value::from);
                let name = Value::Symbol(Symbol::from(name));
                config.properties.extend(text.map(|text| (name, text)));
            }
            config
        };
        let task = accept::port(socket, self.site, port, self.sender.clone(), open);
        tokio::task::spawn(task).abort_handle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{core::channel, flows::FlowLog};
    use std::net::{Ipv4Addr, TcpStream};

    fn socket() -> (TcpListener, SocketAddr) {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        let addr = socket.local_addr().expect("an address");
        (socket, addr)
    }

    #[tokio::test]
    async fn a_port_is_open_until_its_access_is_removed() {
        let (handle, mut inbox) = channel();
        let mut accesses = Accesses::new(1, "A", "", handle.events().clone());
        let (local, addr) = socket();
        accesses.set_local_amqp(Some(local));
        let client = TcpStream::connect(addr).expect("an open port");
        drop(client);
        assert!(accesses.remove(LOCAL_AMQP) && !accesses.remove(LOCAL_AMQP));
        // The task ends, and its socket with it.
        while TcpStream::connect(addr).is_ok() {
            tokio::task::yield_now().await;
        }
        // The peer sent no AMQP.
        assert!(inbox.events.try_recv().is_err());
    }

    #[tokio::test]
    async fn each_role_of_an_access_is_a_port() {
        let (handle, _inbox) = channel();
        let mut accesses = Accesses::new(1, "A", "", handle.events().clone());
        let mut emitter = VanflowEmitter::new("abcde".into(), FlowLog::new(1));
        let tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
        let sockets = [Role::InterRouter, Role::Edge].map(|role| (role, socket().0));
        let spec = AccessSpec {
            name: "access".into(),
            sockets: sockets.into(),
            tls: ServerTls::new(Arc::new(tls).into()),
        };
        accesses.set(spec, &mut emitter);
        assert!(accesses.contains("access") && !accesses.contains("other"));
        let roles: Vec<_> = accesses.roles().collect();
        assert_eq!(
            roles,
            [("access", Role::InterRouter), ("access", Role::Edge)]
        );
        accesses.clear();
        assert_eq!(accesses.roles().count(), 0);
    }
}
