//! Steering in another network namespace, for all listeners there: a program attached to the
//! namespace, and accept sockets created in it.
//!
//! Attaching needs CAP_BPF, CAP_NET_ADMIN and an open file of the namespace, but no privileges in
//! the namespace itself. So the daemon can do it with the descriptors of the helper.

use crate::steer::{
    ActiveSteering, NetnsDescriptors, Owner, OwnerTable, Steer, SteerError, SteeringUnavailable,
    bind_range::BindRange,
};
use crate::sys;
use parking_lot::Mutex;
use std::{
    fmt,
    net::TcpListener,
    os::fd::AsFd,
    sync::{Arc, Weak},
};

/// Namespaces that this process steers in, by cookie. All sites share one instance per namespace:
/// two programs would take each other's clients.
static OPEN: Mutex<Vec<(u64, Weak<NetnsSteering>)>> = Mutex::new(Vec::new());

/// Steering in another network namespace. Dropping this detaches the program.
pub struct NetnsSteering {
    steer: Mutex<Box<dyn Steer>>,
    table: Arc<OwnerTable>,
    /// Empty once workers have the sockets.
    sockets: Mutex<Vec<Vec<TcpListener>>>,
}

impl fmt::Debug for NetnsSteering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetnsSteering")
    }
}

impl NetnsSteering {
    /// Returns the existing instance of the namespace, or starts one.
    pub(super) fn open(
        workers: usize,
        descriptors: NetnsDescriptors,
    ) -> Result<Arc<Self>, SteeringUnavailable> {
        let made_in = descriptors.sockets.first();
        let made_in = made_in.ok_or_else(|| std::io::Error::other("no accept socket"))?;
        let cookie = sys::netns_cookie(made_in.as_fd())?;
        let mut open = OPEN.lock();
        open.retain(|(_, steering)| steering.strong_count() > 0);
        let known = open.iter().find(|(other, _)| *other == cookie);
        if let Some(steering) = known.and_then(|(_, steering)| steering.upgrade()) {
            return Ok(steering);
        }
        let ActiveSteering {
            steer,
            table,
            sockets,
            ..
        } = start(workers, descriptors)?;
        let steering = Arc::new(Self {
            steer: Mutex::new(steer),
            table,
            sockets: Mutex::new(sockets),
        });
        open.push((cookie, Arc::downgrade(&steering)));
        Ok(steering)
    }

    /// Whether the caller has the last reference.
    pub fn is_over(self: &Arc<Self>) -> bool {
        let mut open = OPEN.lock();
        let over = Arc::strong_count(self) == 1;
        if over {
            open.retain(|(_, other)| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(self)));
        }
        over
    }

    /// Finds the owner of a connection's destination.
    pub fn table(&self) -> &Arc<OwnerTable> {
        &self.table
    }

    /// Takes the listening sockets, by worker.
    pub fn take_sockets(&self) -> Vec<Vec<TcpListener>> {
        std::mem::take(&mut *self.sockets.lock())
    }

    /// As [`Steer::apply`].
    pub fn apply(
        &self,
        end: &[BindRange],
        begin: Vec<(BindRange, Owner)>,
    ) -> Vec<Result<(), SteerError>> {
        self.steer.lock().apply(end, begin)
    }

    /// As [`Steer::rescan`].
    pub fn rescan(&self) {
        self.steer.lock().rescan();
    }

    /// As [`Steer::end`].
    pub fn end(&self) {
        self.steer.lock().end();
    }
}

#[cfg(feature = "ebpf")]
fn start(
    workers: usize,
    descriptors: NetnsDescriptors,
) -> Result<ActiveSteering, SteeringUnavailable> {
    super::kernel::start_in_netns(workers, descriptors)
}

/// Built without eBPF.
#[cfg(not(feature = "ebpf"))]
fn start(
    _workers: usize,
    _entrance: NetnsDescriptors,
) -> Result<ActiveSteering, SteeringUnavailable> {
    Err(SteeringUnavailable::NotBuilt)
}
