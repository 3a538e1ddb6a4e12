//! Steering in the network namespaces of listeners.

use crate::{
    messages::{Command, CoreSender, Senders},
    steer::NetnsSteering,
};
use std::sync::Arc;

/// Steered namespaces, by the key that workers know.
#[derive(Default)]
pub(super) struct NetnsSteerings(Vec<(u64, Arc<NetnsSteering>)>);

impl NetnsSteerings {
    /// Has workers accept there, if they do not yet.
    pub(super) fn admit(
        &mut self,
        netns: &Arc<NetnsSteering>,
        core: &CoreSender,
        workers: &Senders,
    ) {
        if self.0.iter().any(|(_, known)| Arc::ptr_eq(known, netns)) {
            return;
        }
        let key = core.next_key();
        workers.send_each(netns.take_sockets(), |sockets| Command::AcceptSteered {
            key,
            table: netns.table().clone(),
            sockets,
        });
        self.0.push((key, netns.clone()));
    }

    /// Leaves to others what they listen on by now, and detaches where no listener is any more.
    pub(super) fn rescan(&mut self, workers: &Senders) {
        for (listener, netns) in self.0.extract_if(.., |(_, netns)| netns.is_over()) {
            netns.end();
            let cut = false;
            workers.broadcast(|| Command::Unlisten { listener, cut });
        }
        self.0.iter().for_each(|(_, netns)| netns.rescan());
    }

    /// Ends everything for new connections.
    pub(super) fn end(&self) {
        self.0.iter().for_each(|(_, netns)| netns.end());
    }
}
