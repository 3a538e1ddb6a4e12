//! Listeners' own sockets. Those stored with the service manager outlive the process: clients wait
//! in their queues until the next process adopts them.

use super::{SocketBindings, SteerError, SteeringHandover, plain};
use crate::sys::{self, DescriptorStore};
use socket2::SockRef;
use std::{
    collections::HashMap,
    io,
    net::{Shutdown, SocketAddr, TcpListener},
};

/// Prefix of the names of stored sockets; a number follows, the same for all sockets of an address.
const NAME: &str = "listen-";

struct ListeningSockets {
    name: String,
    sockets: Vec<TcpListener>,
}

/// The sockets of all listeners that are not steered.
#[derive(Default)]
pub struct OwnSockets {
    descriptor_store: DescriptorStore,
    next_number: u64,
    /// Unclaimed sockets of the previous process.
    adopted: HashMap<SocketAddr, ListeningSockets>,
    /// Copies of stored sockets: closing the worker's copy would not stop them from listening.
    open: HashMap<SocketAddr, ListeningSockets>,
}

impl OwnSockets {
    /// Adopts the sockets of the previous process.
    pub fn new(handover: &SteeringHandover) -> io::Result<Self> {
        let mut this = Self {
            descriptor_store: handover.descriptor_store.clone(),
            ..Self::default()
        };
        let here = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None)?;
        for (name, fd) in handover.descriptors.take(|name| name.starts_with(NAME)) {
            let number = name.strip_prefix(NAME);
            let number = number.and_then(|n| u64::from_str_radix(n, 16).ok());
            this.next_number = this
                .next_number
                .max(number.map_or(0, |n| n.saturating_add(1)));
            let socket = TcpListener::from(fd);
            let addr = plain::listens(&socket, (&here).into());
            match (number, addr) {
                (Some(_), Some(addr)) if socket.set_nonblocking(true).is_ok() => {
                    // An older version may not have.
                    sys::reset_on_close((&socket).into());
                    let sockets = Vec::new();
                    let entry = this.adopted.entry(addr);
                    let open = entry.or_insert(ListeningSockets { name, sockets });
                    open.sockets.push(socket);
                }
                _ => {
                    tracing::warn!(name, "closing stored socket that does not listen");
                    this.descriptor_store.remove(&name);
                }
            }
        }
        Ok(this)
    }

    /// Addresses of unclaimed sockets of the previous process.
    pub fn adopted(&self) -> impl Iterator<Item = SocketAddr> {
        self.adopted.keys().copied()
    }

    /// Listening, non-blocking sockets for an address: the n-th is for the n-th worker, modulo the
    /// number of workers.
    pub fn open(
        &mut self,
        addr: SocketAddr,
        workers: usize,
    ) -> Result<Vec<TcpListener>, SteerError> {
        let failed = |op| SteerError::at(addr, op);
        if !self.descriptor_store.is_available() {
            return SocketBindings.open(addr, workers);
        }
        let (name, mut sockets, mut fresh) = match self.adopted.remove(&addr) {
            // The previous process may have had fewer workers.
            Some(ListeningSockets { name, sockets }) => {
                let more = SocketBindings.join(addr, workers.saturating_sub(sockets.len()))?;
                (name, sockets, more)
            }
            None => {
                let name = format!("{NAME}{:x}", self.next_number);
                self.next_number += 1;
                (name, Vec::new(), SocketBindings.open(addr, workers)?)
            }
        };
        let copying = "duplicating a socket";
        for socket in &fresh {
            self.descriptor_store
                .store(&name, socket)
                .map_err(failed(copying))?;
        }
        sockets.append(&mut fresh);
        let copies = sockets.iter().map(TcpListener::try_clone);
        let copies = copies.collect::<io::Result<_>>().map_err(failed(copying))?;
        let open = ListeningSockets {
            name,
            sockets: copies,
        };
        self.open.insert(addr, open);
        Ok(sockets)
    }

    /// Stops listening on an address.
    pub fn close(&mut self, addr: SocketAddr) {
        if let Some(open) = self.open.remove(&addr) {
            self.end(&open);
        }
    }

    /// Closes unclaimed sockets.
    pub fn close_unclaimed(&mut self) {
        for open in std::mem::take(&mut self.adopted).values() {
            self.end(open);
        }
    }

    pub fn clear(&mut self) {
        self.close_unclaimed();
        for open in std::mem::take(&mut self.open).values() {
            self.end(open);
        }
    }

    fn end(&self, open: &ListeningSockets) {
        for socket in &open.sockets {
            // The service manager closes its copy later. A socket that is shut down refuses clients
            // and frees its address.
            if let Err(error) = SockRef::from(socket).shutdown(Shutdown::Both) {
                tracing::debug!(%error, name = open.name, "cannot shut down listening socket");
            }
        }
        self.descriptor_store.remove(&open.name);
    }
}
