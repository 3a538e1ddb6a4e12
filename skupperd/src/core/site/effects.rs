//! What the components of a site want done outside of themselves.
//!
//! A component changes its own state and adds effects, in order; [`Site::apply`](super::Site::apply)
//! is the one place that carries them out. So a component can be tested without threads, sockets and
//! a router.

use crate::{
    amqp::performative::Error as AmqpError,
    link::{conn::ConnKey, handshake::Established},
    messages::{CloseReason, Command, NewConnection},
    peering::LinkSpec,
    router::{OwnerId, Router, TooMany, Treatment},
};
use std::{collections::VecDeque, time::Instant};
use tokio::sync::watch;

pub(in crate::core) enum Effect {
    /// Give a connection to this worker.
    Carry(usize, Box<NewConnection>),
    /// Close a connection with this condition, before a worker has it.
    Refuse(Box<Established>, AmqpError),
    /// Send a command to the worker of a connection.
    ToConnection(ConnKey, Command),
    ToWorker(usize, Command),
    /// Have all workers stop accepting for a listener.
    Unlisten {
        listener: u64,
        cut: bool,
    },
    Router(RouterInput),
    /// Start the task that dials a link. It ends when the sender of its specification is dropped.
    Dial(watch::Receiver<LinkSpec>),
    /// Others can reach an edge that is served here, or no longer.
    EdgeReachable(ConnKey, bool),
    /// Publish a new view to workers.
    UpdateView,
    /// Something that statuses show has changed.
    UpdateStatus,
    /// A link failed or broke.
    CountLinkError,
}

/// Changes of a site that its router has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::core) enum RouterInput {
    /// Its cost, the id that its router has to have, and whose budget it counts for.
    AddLink(ConnKey, u32, String, OwnerId),
    SetLinkCost(ConnKey, u32),
    RemoveLink(ConnKey),
    AddConsumer(String, Treatment),
    RemoveConsumer(String),
    AddEdge(ConnKey, String),
    RemoveEdge(ConnKey),
    SetEdgeDownlink(ConnKey, bool),
    SetEdgeTracking(ConnKey, bool),
    AddEdgeConsumer(ConnKey, String),
    RemoveEdgeConsumer(ConnKey, String),
    AddEdgeProducer(ConnKey, String),
    RemoveEdgeProducer(ConnKey, String),
    /// Of an edge: its connection, id and cost of the interior router, and how that makes itself known.
    SetUplink(Option<(ConnKey, String, u32)>, Vec<String>),
    SetReachable(String, bool),
}

impl RouterInput {
    /// Changes the router. An edge with too many addresses is an error.
    pub(in crate::core) fn apply(
        self,
        router: &mut Router,
        now: Instant,
    ) -> Result<(), (ConnKey, TooMany)> {
        match self {
            Self::AddLink(key, cost, id, owner) => {
                router.add_link(key, cost, now);
                router.bind_link(key, &id, owner);
            }
            Self::SetLinkCost(key, cost) => router.set_link_cost(key, cost, now),
            Self::RemoveLink(key) => router.remove_link(key, now),
            Self::AddConsumer(address, treatment) => router.add_consumer(&address, treatment),
            Self::RemoveConsumer(address) => router.remove_consumer(&address),
            Self::AddEdge(key, id) => router.add_edge(key, &id),
            Self::RemoveEdge(key) => router.remove_edge(key),
            Self::SetEdgeDownlink(key, on) => router.set_edge_downlink(key, on),
            Self::SetEdgeTracking(key, on) => router.set_edge_tracking(key, on),
            Self::AddEdgeConsumer(key, address) => {
                return router
                    .add_edge_consumer(key, &address)
                    .map_err(|e| (key, e));
            }
            Self::RemoveEdgeConsumer(key, address) => router.remove_edge_consumer(key, &address),
            Self::AddEdgeProducer(key, address) => {
                return router
                    .add_edge_producer(key, &address)
                    .map_err(|e| (key, e));
            }
            Self::RemoveEdgeProducer(key, address) => router.remove_edge_producer(key, &address),
            Self::SetUplink(active, adverts) => {
                let active = active.as_ref();
                let active = active.map(|(key, id, cost)| (*key, id.as_str(), *cost));
                router.set_uplink(active, adverts, now);
            }
            Self::SetReachable(address, reachable) => router.set_reachable(&address, reachable),
        }
        Ok(())
    }
}

/// Effects in the order in which [`Site::apply`](super::Site::apply) carries them out.
#[derive(Default)]
pub(in crate::core) struct Effects(VecDeque<Effect>);

impl Effects {
    pub(in crate::core) fn push(&mut self, effect: Effect) {
        self.0.push_back(effect);
    }

    pub(in crate::core) fn pop(&mut self) -> Option<Effect> {
        self.0.pop_front()
    }

    /// Sends a command to the worker of a connection.
    pub(in crate::core) fn send_command(&mut self, key: ConnKey, command: Command) {
        self.push(Effect::ToConnection(key, command));
    }

    pub(in crate::core) fn close(&mut self, key: ConnKey, reason: CloseReason) {
        self.send_command(key, Command::Close(key, reason));
    }

    pub(in crate::core) fn router(&mut self, input: RouterInput) {
        self.push(Effect::Router(input));
    }

    /// Has all workers stop accepting for a listener; with `cut` its connections end.
    pub(in crate::core) fn unlisten(&mut self, listener: u64, cut: bool) {
        self.push(Effect::Unlisten { listener, cut });
    }

    pub(in crate::core) fn update_view(&mut self) {
        self.push(Effect::UpdateView);
    }

    pub(in crate::core) fn update_status(&mut self) {
        self.push(Effect::UpdateStatus);
    }
}

#[cfg(test)]
impl Effects {
    /// All effects so far.
    pub(in crate::core) fn drain(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.0).into()
    }

    /// The router's inputs among the effects so far; the effects are dropped.
    pub(in crate::core) fn router_inputs(&mut self) -> Vec<RouterInput> {
        let inputs = self.drain().into_iter().filter_map(|effect| match effect {
            Effect::Router(input) => Some(input),
            _ => None,
        });
        inputs.collect()
    }
}
