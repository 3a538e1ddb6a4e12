//! Sockets of grant servers that the service manager opened. They exist while the daemon does not
//! run, and a client starts it (socket activation).
//!
//! A socket without grants must still be served: its clients would wait forever, and systemd would
//! start the service again as soon as it stops. So connections to a socket that no grant server
//! leases are closed at once, but only after all resources are applied: the client that started the
//! daemon waits until it is known whether there are grants.

#[cfg(feature = "daemon")]
use crate::sys::InheritedDescriptors;
use crate::{http_server::accept, model::Namespace};
use parking_lot::Mutex;
use std::{collections::BTreeMap, io, net::TcpListener, sync::Arc};
use tokio::task::JoinSet;

/// Prefix of the names of descriptors; the namespace follows.
#[cfg(feature = "daemon")]
const PREFIX: &str = "grants-";

/// The sockets of all namespaces; clones share them.
#[derive(Clone, Debug, Default)]
pub struct GrantSockets(Arc<Mutex<SocketPool>>);

#[derive(Debug, Default)]
struct SocketPool {
    idle: BTreeMap<Namespace, IdleSockets>,
    /// Connections to idle sockets are closed.
    refusing: bool,
}

/// Sockets of a namespace that no grant server leases.
#[derive(Debug)]
struct IdleSockets {
    sockets: Vec<TcpListener>,
    /// Close connections; aborted when dropped.
    _tasks: JoinSet<()>,
}

/// The sockets of a namespace while a grant server uses them. Dropping it makes them idle.
#[derive(Debug)]
pub struct GrantSocketLease {
    pool: GrantSockets,
    namespace: Namespace,
    sockets: Vec<TcpListener>,
    port: u16,
}

impl GrantSockets {
    /// Takes the grant sockets among the descriptors that the service manager passed.
    #[cfg(feature = "daemon")]
    pub fn new(descriptors: &InheritedDescriptors) -> Self {
        let pool = Self::default();
        let mut found: BTreeMap<Namespace, Vec<TcpListener>> = BTreeMap::new();
        for (name, fd) in descriptors.take(|name| name.starts_with(PREFIX)) {
            let space = Namespace::new(&name[PREFIX.len()..]).map_err(|e| e.to_string());
            let taken =
                space.and_then(|space| Ok((space, listener(fd).map_err(|e| e.to_string())?)));
            match taken {
                Ok((space, socket)) => found.entry(space).or_default().push(socket),
                Err(error) => tracing::error!(name, error, "cannot use socket of service manager"),
            }
        }
        for (namespace, sockets) in found {
            pool.put_back(namespace, sockets);
        }
        pool
    }

    /// Closes connections to idle sockets from now on. Must be called in a Tokio runtime.
    pub fn start_refusing(&self) {
        let idle = {
            let mut pool = self.0.lock();
            pool.refusing = true;
            std::mem::take(&mut pool.idle)
        };
        for (namespace, sockets) in idle {
            self.put_back(namespace, sockets.sockets);
        }
    }

    /// The sockets of a namespace, unless it has none or they are leased.
    pub fn lease(&self, namespace: &Namespace) -> Option<GrantSocketLease> {
        let mut pool = self.0.lock();
        let addr = pool.idle.get(namespace)?.sockets.first()?.local_addr();
        let failed = |error: &io::Error| {
            tracing::error!(%namespace, %error, "cannot read address of grant socket");
        };
        let port = addr.inspect_err(failed).ok()?.port();
        let IdleSockets { sockets, .. } = pool.idle.remove(namespace)?;
        Some(GrantSocketLease {
            pool: self.clone(),
            namespace: namespace.clone(),
            sockets,
            port,
        })
    }

    fn put_back(&self, namespace: Namespace, sockets: Vec<TcpListener>) {
        let mut pool = self.0.lock();
        let mut tasks = JoinSet::new();
        for socket in sockets.iter().filter(|_| pool.refusing) {
            match socket
                .try_clone()
                .and_then(tokio::net::TcpListener::from_std)
            {
                Ok(socket) => drop(tasks.spawn(refuse_clients(socket))),
                Err(error) => {
                    tracing::error!(%namespace, %error, "cannot serve idle grant socket");
                }
            }
        }
        let idle = IdleSockets {
            sockets,
            _tasks: tasks,
        };
        pool.idle.insert(namespace, idle);
    }
}

impl GrantSocketLease {
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn sockets(&self) -> io::Result<Vec<TcpListener>> {
        self.sockets.iter().map(TcpListener::try_clone).collect()
    }
}

impl Drop for GrantSocketLease {
    fn drop(&mut self) {
        let sockets = std::mem::take(&mut self.sockets);
        self.pool.put_back(self.namespace.clone(), sockets);
    }
}

/// Checks that a descriptor is a TCP socket that listens.
#[cfg(feature = "daemon")]
fn listener(fd: std::os::fd::OwnedFd) -> io::Result<TcpListener> {
    let socket = socket2::SockRef::from(&fd);
    let tcp = socket.protocol()? == Some(socket2::Protocol::TCP);
    if !tcp || !socket.is_listener()? {
        return Err(io::Error::other("not a listening TCP socket"));
    }
    let socket = TcpListener::from(fd);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

async fn refuse_clients(socket: tokio::net::TcpListener) {
    loop {
        let (client, peer) = accept("grants", || socket.accept()).await;
        tracing::debug!(%peer, "closing connection: the namespace has no grants");
        drop(client);
    }
}

#[cfg(test)]
#[cfg(feature = "daemon")]
mod tests {
    use super::*;
    use std::{fs::File, os::fd::OwnedFd, time::Duration};
    use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

    fn space() -> Namespace {
        Namespace::new("east").unwrap()
    }

    async fn is_closed(client: &mut TcpStream) -> bool {
        matches!(client.read(&mut [0]).await, Ok(0))
    }

    #[tokio::test]
    async fn a_failed_lease_leaves_the_sockets_in_the_pool() {
        let dir = tempfile::tempdir().unwrap();
        let unix = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        let pool = GrantSockets::default();
        pool.put_back(space(), vec![TcpListener::from(OwnedFd::from(unix))]);
        assert!(pool.lease(&space()).is_none(), "it has no TCP port");
        assert_eq!(pool.0.lock().idle[&space()].sockets.len(), 1);
    }

    #[tokio::test]
    async fn connections_are_closed_before_and_after_a_lease() {
        let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = socket.local_addr().unwrap();
        let file = || OwnedFd::from(File::open("/dev/null").unwrap());
        let descriptors = InheritedDescriptors::of([
            ("grants-east", OwnedFd::from(socket)),
            ("grants-west", file()),
            ("grants-No Name", file()),
        ]);
        let pool = GrantSockets::new(&descriptors);
        let mut early = TcpStream::connect(addr).await.unwrap();
        let nothing = timeout(Duration::from_millis(50), early.read(&mut [0])).await;
        nothing.expect_err("resources are not applied yet");
        pool.start_refusing();
        assert!(is_closed(&mut early).await);
        let none = Namespace::new("west").unwrap();
        assert!(pool.lease(&none).is_none(), "a file is not a socket");
        let lease = pool.lease(&space()).unwrap();
        assert_eq!(lease.port(), addr.port());
        assert!(pool.lease(&space()).is_none(), "it is leased");
        let socket = lease.sockets().unwrap().remove(0);
        let socket = tokio::net::TcpListener::from_std(socket).unwrap();
        let client = TcpStream::connect(addr).await.unwrap();
        let (_, peer) = socket.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        drop((socket, lease));
        let mut late = TcpStream::connect(addr).await.unwrap();
        assert!(is_closed(&mut late).await);
    }
}
