//! What passes between the core and the workers of a simulation.

use crate::{
    link::conn::ConnKey,
    messages::{Command, CoreEvent},
    service::view::SiteView,
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    sync::Arc,
};

/// Messages between core and workers: a measure of work that no clock disturbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// From the core to workers, and between workers.
    pub commands: u64,
    /// From workers to the core.
    pub events: u64,
}

/// A connection that a worker had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedConnection {
    /// The id with which its peer opened it.
    pub remote: String,
    pub reason: String,
}

#[derive(Default)]
pub(super) struct Activity {
    counts: Cell<MessageCounts>,
    view: RefCell<Arc<SiteView>>,
    /// Ids of peers, by connection.
    open: RefCell<BTreeMap<ConnKey, String>>,
    ended: RefCell<Vec<EndedConnection>>,
}

impl Activity {
    pub(super) fn command(&self, worker: usize, command: &Command) {
        let mut counts = self.counts.get();
        counts.commands += 1;
        self.counts.set(counts);
        match command {
            // All workers get the same.
            Command::View(_, view) if worker == 0 => *self.view.borrow_mut() = view.clone(),
            Command::Connection(new) => {
                let remote = new.established.open.container_id.clone();
                self.open.borrow_mut().insert(new.key, remote);
            }
            _ => {}
        }
    }

    pub(super) fn event(&self, event: &CoreEvent) {
        let mut counts = self.counts.get();
        counts.events += 1;
        self.counts.set(counts);
        if let CoreEvent::Ended { key, reason, .. } = event
            && let Some(remote) = self.open.borrow_mut().remove(key)
        {
            let reason = reason.to_string();
            self.ended
                .borrow_mut()
                .push(EndedConnection { remote, reason });
        }
    }

    pub(super) fn view(&self) -> Arc<SiteView> {
        self.view.borrow().clone()
    }

    pub(super) fn counts(&self) -> MessageCounts {
        self.counts.get()
    }

    pub(super) fn connections(&self) -> Vec<String> {
        self.open.borrow().values().cloned().collect()
    }

    pub(super) fn take_ended(&self) -> Vec<EndedConnection> {
        self.ended.take()
    }
}
