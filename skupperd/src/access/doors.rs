//! Ports of grant servers that the service manager has opened: they are there while the daemon is
//! not, and somebody who comes has it started.
//!
//! A port that nobody takes connections from would keep its clients waiting, and have the service
//! started again as soon as it ends: where there is no grant, whoever comes is sent away. Not before it
//! is known whether there is one: whoever has had the daemon started waits until then.

use super::server::lock;
use crate::model::Namespace;
#[cfg(feature = "daemon")]
use crate::sys::Descriptors;
use std::{
    collections::BTreeMap,
    io,
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::task::JoinSet;

/// What names of descriptors begin with; the namespace follows.
#[cfg(feature = "daemon")]
const PREFIX: &str = "grants-";
/// Pause after an accept that failed, for example for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// All of them; copies share them.
#[derive(Clone, Debug, Default)]
pub struct Doors(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    closed: BTreeMap<Namespace, Closed>,
    /// Whoever comes to one that is closed is sent away.
    attended: bool,
}

/// One that is not in use.
#[derive(Debug)]
struct Closed {
    sockets: Vec<TcpListener>,
    /// Who sends clients away; aborted when dropped.
    _tasks: JoinSet<()>,
}

/// One that is in use; it is closed again when this is dropped.
#[derive(Debug)]
pub struct Door {
    doors: Doors,
    namespace: Namespace,
    sockets: Vec<TcpListener>,
    port: u16,
}

impl Doors {
    /// Takes over those that are among what the service manager has passed.
    #[cfg(feature = "daemon")]
    pub fn new(descriptors: &Descriptors) -> Self {
        let doors = Self::default();
        let mut found: BTreeMap<Namespace, Vec<TcpListener>> = BTreeMap::new();
        for (name, fd) in descriptors.take(|name| name.starts_with(PREFIX)) {
            let space = Namespace::new(&name[PREFIX.len()..]).map_err(|e| e.to_string());
            let taken =
                space.and_then(|space| Ok((space, listener(fd).map_err(|e| e.to_string())?)));
            match taken {
                Ok((space, socket)) => found.entry(space).or_default().push(socket),
                Err(error) => tracing::error!(name, error, "socket of the service manager"),
            }
        }
        for (namespace, sockets) in found {
            doors.close(namespace, sockets);
        }
        doors
    }

    /// From now on, and not before, whoever comes to one that is not in use is sent away. Needs a
    /// runtime.
    pub fn attend(&self) {
        let closed = {
            let mut inner = lock(&self.0);
            inner.attended = true;
            std::mem::take(&mut inner.closed)
        };
        for (namespace, closed) in closed {
            self.close(namespace, closed.sockets);
        }
    }

    /// Opens that of a namespace, if it has one.
    pub fn open(&self, namespace: &Namespace) -> Option<Door> {
        let Closed { sockets, .. } = lock(&self.0).closed.remove(namespace)?;
        let port = sockets.first()?.local_addr().ok()?.port();
        Some(Door {
            doors: self.clone(),
            namespace: namespace.clone(),
            sockets,
            port,
        })
    }

    fn close(&self, namespace: Namespace, sockets: Vec<TcpListener>) {
        let mut inner = lock(&self.0);
        let mut tasks = JoinSet::new();
        for socket in sockets.iter().filter(|_| inner.attended) {
            match socket
                .try_clone()
                .and_then(tokio::net::TcpListener::from_std)
            {
                Ok(socket) => drop(tasks.spawn(send_away(socket))),
                Err(error) => tracing::error!(%namespace, %error, "port of the grant server"),
            }
        }
        let closed = Closed {
            sockets,
            _tasks: tasks,
        };
        inner.closed.insert(namespace, closed);
    }
}

impl Door {
    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sockets to take connections from.
    pub fn sockets(&self) -> io::Result<Vec<TcpListener>> {
        self.sockets.iter().map(TcpListener::try_clone).collect()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let sockets = std::mem::take(&mut self.sockets);
        self.doors.close(self.namespace.clone(), sockets);
    }
}

/// The socket, if it is one that takes TCP connections.
#[cfg(feature = "daemon")]
fn listener(fd: std::os::fd::OwnedFd) -> io::Result<TcpListener> {
    let socket = socket2::SockRef::from(&fd);
    let tcp = socket.protocol()? == Some(socket2::Protocol::TCP);
    if !tcp || !socket.is_listener()? {
        return Err(io::Error::other("it does not take TCP connections"));
    }
    let socket = TcpListener::from(fd);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

async fn send_away(socket: tokio::net::TcpListener) {
    loop {
        match socket.accept().await {
            Ok((client, peer)) => {
                tracing::debug!(%peer, "there are no grants here");
                drop(client);
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a redemption");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
#[cfg(feature = "daemon")]
mod tests {
    use super::*;
    use std::{fs::File, os::fd::OwnedFd};
    use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

    fn space() -> Namespace {
        Namespace::new("east").unwrap()
    }

    /// What a client is told: nothing, and that there is nothing more.
    async fn sent_away(client: &mut TcpStream) -> bool {
        matches!(client.read(&mut [0]).await, Ok(0))
    }

    #[tokio::test]
    async fn who_comes_is_sent_away_until_the_door_is_open_and_after() {
        let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = socket.local_addr().unwrap();
        let file = || OwnedFd::from(File::open("/dev/null").unwrap());
        let descriptors = Descriptors::of([
            ("grants-east", OwnedFd::from(socket)),
            ("grants-west", file()),
            ("grants-No Name", file()),
        ]);
        let doors = Doors::new(&descriptors);
        let mut early = TcpStream::connect(addr).await.unwrap();
        let nothing = timeout(Duration::from_millis(50), early.read(&mut [0])).await;
        nothing.expect_err("nobody knows yet whether there are grants");
        doors.attend();
        assert!(sent_away(&mut early).await);
        let none = Namespace::new("west").unwrap();
        assert!(doors.open(&none).is_none(), "a file is no port");
        let door = doors.open(&space()).unwrap();
        assert_eq!(door.port(), addr.port());
        assert!(doors.open(&space()).is_none(), "it is in use");
        let socket = door.sockets().unwrap().remove(0);
        let socket = tokio::net::TcpListener::from_std(socket).unwrap();
        let client = TcpStream::connect(addr).await.unwrap();
        let (_, peer) = socket.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        drop((socket, door));
        let mut late = TcpStream::connect(addr).await.unwrap();
        assert!(sent_away(&mut late).await);
    }
}
