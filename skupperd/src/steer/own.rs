//! Listeners' own sockets, which outlive the process where somebody keeps them: clients wait in their
//! queues until the next process takes them up.

use super::{Kept, Plain, SteerError, plain};
use crate::sys::Keeper;
use socket2::SockRef;
use std::{
    collections::HashMap,
    io,
    net::{Shutdown, SocketAddr, TcpListener},
};

/// What the names of kept sockets begin with; a number follows, the same for all of one address.
const NAME: &str = "listen-";

/// Sockets of one address.
struct Open {
    name: String,
    sockets: Vec<TcpListener>,
}

/// Sockets of all listeners that have some of their own.
#[derive(Default)]
pub struct OwnSockets {
    keeper: Keeper,
    next: u64,
    /// Of an earlier process, wanted by nobody yet.
    adopted: HashMap<SocketAddr, Open>,
    /// Copies of those that are kept: closing ours is not enough to have them refuse.
    open: HashMap<SocketAddr, Open>,
}

impl OwnSockets {
    /// Takes up what an earlier process has left.
    pub fn new(kept: &Kept) -> io::Result<Self> {
        let mut this = Self {
            keeper: kept.keeper.clone(),
            ..Self::default()
        };
        let here = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None)?;
        for (name, fd) in kept.descriptors.take(|name| name.starts_with(NAME)) {
            let number = name.strip_prefix(NAME);
            let number = number.and_then(|n| u64::from_str_radix(n, 16).ok());
            this.next = this.next.max(number.map_or(0, |n| n.saturating_add(1)));
            let socket = TcpListener::from(fd);
            let addr = plain::listens(&socket, (&here).into());
            match (number, addr) {
                (Some(_), Some(addr)) if socket.set_nonblocking(true).is_ok() => {
                    let sockets = Vec::new();
                    let entry = this.adopted.entry(addr);
                    let open = entry.or_insert(Open { name, sockets });
                    open.sockets.push(socket);
                }
                _ => {
                    tracing::warn!(name, "a kept socket that does not listen is thrown away");
                    this.keeper.forget(&name);
                }
            }
        }
        Ok(this)
    }

    /// Addresses of an earlier process that nobody has wanted yet.
    pub fn adopted(&self) -> impl Iterator<Item = SocketAddr> {
        self.adopted.keys().copied()
    }

    /// Listening, non-blocking sockets for an address: the n-th is for the n-th worker, and what is
    /// more begins with the first one again.
    pub fn open(
        &mut self,
        addr: SocketAddr,
        workers: usize,
    ) -> Result<Vec<TcpListener>, SteerError> {
        let failed = |op| {
            move |source| SteerError {
                place: addr.into(),
                op,
                source,
            }
        };
        if !self.keeper.keeps() {
            return Plain.open(addr, workers);
        }
        let (name, mut sockets, mut fresh) = match self.adopted.remove(&addr) {
            // There may have been fewer workers then.
            Some(Open { name, sockets }) => {
                let more = Plain.join(addr, workers.saturating_sub(sockets.len()))?;
                (name, sockets, more)
            }
            None => {
                let name = format!("{NAME}{:x}", self.next);
                self.next += 1;
                (name, Vec::new(), Plain.open(addr, workers)?)
            }
        };
        let copying = "duplicating a socket";
        for socket in &fresh {
            self.keeper.keep(&name, socket).map_err(failed(copying))?;
        }
        sockets.append(&mut fresh);
        let copies = sockets.iter().map(TcpListener::try_clone);
        let copies = copies.collect::<io::Result<_>>().map_err(failed(copying))?;
        let open = Open {
            name,
            sockets: copies,
        };
        self.open.insert(addr, open);
        Ok(sockets)
    }

    /// Clients of an address are refused from now on.
    pub fn close(&mut self, addr: SocketAddr) {
        if let Some(open) = self.open.remove(&addr) {
            self.end(&open);
        }
    }

    /// Closes what nobody has wanted.
    pub fn settle(&mut self) {
        for open in std::mem::take(&mut self.adopted).values() {
            self.end(open);
        }
    }

    /// Closes all.
    pub fn clear(&mut self) {
        self.settle();
        for open in std::mem::take(&mut self.open).values() {
            self.end(open);
        }
    }

    fn end(&self, open: &Open) {
        for socket in &open.sockets {
            // The service manager closes its copy in its own time. What has been shut down refuses,
            // and the address can be had again.
            if let Err(error) = SockRef::from(socket).shutdown(Shutdown::Both) {
                tracing::debug!(%error, name = open.name, "shutting down a listening socket");
            }
        }
        self.keeper.forget(&open.name);
    }
}
