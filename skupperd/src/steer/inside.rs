//! Steering in another network namespace, for all listeners that are placed there: a program that is
//! attached to it, and accept sockets that were made in it, however many listeners there are.
//!
//! Attaching takes CAP_BPF, CAP_NET_ADMIN and an open file of the namespace: the kernel asks for no
//! right in the namespace itself. So it is the daemon that does it, with what it was given.

use super::{NotSteered, Owner, Steer, SteerError, Steered, Table, netlink::Netlink, place::Place};
use crate::sys;
use std::{
    fmt,
    fs::File,
    net::TcpListener,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

/// What is made in a namespace by who may enter it.
#[cfg_attr(
    not(feature = "ebpf"),
    expect(dead_code, reason = "nothing is steered")
)]
pub(super) struct Entrance {
    /// The namespace.
    pub(super) netns: File,
    /// Knows who listens in there.
    pub(super) asked: Netlink,
    /// Accept sockets, which do not listen yet.
    pub(super) sockets: Vec<TcpListener>,
}

/// The namespaces that this process steers in, by their cookies. There is one for each, whoever has
/// listeners there: two programs would take each other's clients.
static OPEN: Mutex<Vec<(u64, Weak<Inside>)>> = Mutex::new(Vec::new());

/// Steering in another network namespace. Dropping this detaches the program.
pub struct Inside {
    steer: Mutex<Box<dyn Steer>>,
    table: Arc<Table>,
    /// Until workers have them.
    sockets: Mutex<Vec<Vec<TcpListener>>>,
}

impl fmt::Debug for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inside")
    }
}

fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inside {
    /// That of the namespace, which may be there already.
    pub(super) fn open(workers: usize, entrance: Entrance) -> Result<Arc<Self>, NotSteered> {
        let made_in = entrance.sockets.first();
        let made_in = made_in.ok_or_else(|| std::io::Error::other("no accept socket"))?;
        let cookie = sys::netns_cookie(made_in.as_fd())?;
        let mut open = locked(&OPEN);
        open.retain(|(_, inside)| inside.strong_count() > 0);
        let known = open.iter().find(|(other, _)| *other == cookie);
        if let Some(inside) = known.and_then(|(_, inside)| inside.upgrade()) {
            return Ok(inside);
        }
        let Steered {
            steer,
            table,
            sockets,
            ..
        } = start(workers, entrance)?;
        let inside = Arc::new(Self {
            steer: Mutex::new(steer),
            table,
            sockets: Mutex::new(sockets),
        });
        open.push((cookie, Arc::downgrade(&inside)));
        Ok(inside)
    }

    /// Whether nobody has it but the caller. Nobody gets it any more then.
    pub fn is_over(self: &Arc<Self>) -> bool {
        let mut open = locked(&OPEN);
        let over = Arc::strong_count(self) == 1;
        if over {
            open.retain(|(_, other)| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(self)));
        }
        over
    }

    /// Who owns the addresses that connections have come to.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Listening sockets by worker, once.
    pub fn take_sockets(&self) -> Vec<Vec<TcpListener>> {
        std::mem::take(&mut *locked(&self.sockets))
    }

    /// As [`Steer::apply`].
    pub fn apply(&self, end: &[Place], begin: Vec<(Place, Owner)>) -> Vec<Result<(), SteerError>> {
        locked(&self.steer).apply(end, begin)
    }

    /// As [`Steer::look`].
    pub fn look(&self) {
        locked(&self.steer).look();
    }

    /// As [`Steer::end`].
    pub fn end(&self) {
        locked(&self.steer).end();
    }
}

#[cfg(feature = "ebpf")]
fn start(workers: usize, entrance: Entrance) -> Result<Steered, NotSteered> {
    super::kernel::inside(workers, entrance)
}

/// Not in this program.
#[cfg(not(feature = "ebpf"))]
fn start(_workers: usize, _entrance: Entrance) -> Result<Steered, NotSteered> {
    Err(NotSteered::NotBuilt)
}
