//! Network namespaces that listeners are placed in and that the kernel steers in.

use crate::{
    link::{
        core::CoreSender,
        worker::{Command, Senders},
    },
    steer::Inside,
};
use std::sync::Arc;

/// Those that workers accept in, by what workers know them by.
#[derive(Default)]
pub(super) struct Insides(Vec<(u64, Arc<Inside>)>);

impl Insides {
    /// Has workers accept there, if they do not yet.
    pub(super) fn admit(&mut self, inside: &Arc<Inside>, core: &CoreSender, workers: &Senders) {
        if self.0.iter().any(|(_, known)| Arc::ptr_eq(known, inside)) {
            return;
        }
        let key = core.next_key();
        for (worker, sockets) in inside.take_sockets().into_iter().enumerate() {
            let table = inside.table().clone();
            workers.send(
                worker,
                Command::Steered {
                    key,
                    table,
                    sockets,
                },
            );
        }
        self.0.push((key, inside.clone()));
    }

    /// Leaves to others what they listen on by now, and detaches where no listener is any more.
    pub(super) fn look(&mut self, workers: &Senders) {
        for (listener, inside) in self.0.extract_if(.., |(_, inside)| inside.is_over()) {
            inside.end();
            for worker in 0..workers.count() {
                let cut = false;
                workers.send(worker, Command::Unlisten { listener, cut });
            }
        }
        self.0.iter().for_each(|(_, inside)| inside.look());
    }

    /// Ends everything for new connections.
    pub(super) fn end(&self) {
        self.0.iter().for_each(|(_, inside)| inside.end());
    }
}
