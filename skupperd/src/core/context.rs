//! What the sites of the core share: channels to workers, owners of connections, sockets of listeners.

use crate::{
    flows::FlowLog,
    link::{conn::ConnKey, intake::IntakePermit},
    listen::ListenerSockets,
    messages::{Command, CoreSender, NewConnection, Senders},
};
use std::{collections::HashMap, sync::Arc};
use tokio::sync::watch;

/// The site and worker of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionOwner {
    pub(super) site: u32,
    pub(super) worker: usize,
}

pub(super) struct CoreContext {
    pub(super) sender: CoreSender,
    pub(super) workers: Senders,
    pub(super) connections: HashMap<ConnKey, ConnectionOwner>,
    pub(super) sockets: ListenerSockets,
    /// Where broken links are counted, and where connections are recorded.
    pub(super) flow_log: FlowLog,
    status_changes: watch::Sender<u64>,
    /// Workers that were sent messages since [`Self::release`].
    sent_messages: Vec<usize>,
}

fn has_message(command: &Command) -> bool {
    matches!(
        command,
        Command::Control(..) | Command::Message(..) | Command::ClientMessage(..)
    )
}

impl CoreContext {
    pub(super) fn new(
        sender: CoreSender,
        workers: Senders,
        sockets: ListenerSockets,
        flow_log: FlowLog,
    ) -> (Self, watch::Receiver<u64>) {
        let (status_changes, receiver) = watch::channel(0);
        let ctx = Self {
            sender,
            workers,
            connections: HashMap::new(),
            sockets,
            flow_log,
            status_changes,
            sent_messages: Vec::new(),
        };
        (ctx, receiver)
    }

    /// Something that statuses show has changed.
    pub(super) fn update_status(&self) {
        self.status_changes.send_modify(|n| *n += 1);
    }

    /// Sends a command to the worker of a connection. One that has ended gets none.
    pub(super) fn send_command(&mut self, key: ConnKey, command: Command) {
        if let Some(owner) = self.connections.get(&key) {
            if has_message(&command) && !self.sent_messages.contains(&owner.worker) {
                self.sent_messages.push(owner.worker);
            }
            self.workers.send(owner.worker, command);
        }
    }

    /// Gives a permit back once the workers have handled the messages that were sent since the last
    /// call: a worker may be behind, and what waits for it is memory that a peer fills.
    pub(super) fn release(&mut self, permit: Option<IntakePermit>) {
        let permit = permit.filter(|_| !self.sent_messages.is_empty());
        let permit = permit.map(Arc::new);
        for worker in self.sent_messages.drain(..) {
            if let Some(permit) = &permit {
                let handled = Command::EventHandled(permit.clone());
                self.workers.send(worker, handled);
            }
        }
    }

    pub(super) fn carry(&mut self, worker: usize, connection: Box<NewConnection>) {
        let site = connection.site;
        self.connections
            .insert(connection.key, ConnectionOwner { site, worker });
        self.workers.send(worker, Command::Connection(connection));
    }
}
