//! One site: its router, and the components that know its connections and services.
//!
//! The core calls a site for each event, request and tick. The site passes it to the components that it
//! concerns: [`Links`] that are dialled, [`Accesses`] where others connect, [`Peers`] that are connected,
//! [`AmqpClients`], [`Edges`] and the [`Uplink`] of an edge, [`Services`], and the [`VanflowEmitter`].
//! A component changes its own fields, and adds to the [`Effects`] what has to happen elsewhere: in the
//! router, at workers, in the view that they have. [`Site::apply`] carries effects out, in order.
//!
//! After each batch of events the core calls [`Site::pump`]: it handles the events of the router, and
//! publishes a new view if anything in it has changed. A site never waits, and never reads a socket.

mod accesses;
mod amqp_clients;
mod amqp_links;
#[cfg(test)]
pub(super) mod bench;
mod connections;
mod delivery;
mod edges;
mod effects;
mod events;
mod identities;
mod links;
mod messages;
mod peer_budgets;
mod peers;
mod requests;
mod router_events;
mod services;
mod uplink;
mod vanflow;

pub(crate) use accesses::open_config;
pub use accesses::{AccessSpec, IncomingLink};
pub use links::LinkState;
use messages::Arrival;
pub use services::{
    ConnectorSpec, ConnectorState, ListenerChange, ListenerSpec, ListenerState, Probe, ProbeKind,
};

use super::context::CoreContext;
use crate::{
    flows::SiteName,
    link::conn::ConnKey,
    messages::{CloseReason, Command, CoreSender},
    model::Role,
    peering::{LinkSpec, dial},
    router::{Output, Router, RouterConfig, Treatment},
    service::{origin::ORIGIN_ADVERT, view::SiteView},
    sys::clock,
};
use accesses::Accesses;
use amqp_clients::AmqpClients;
use edges::Edges;
use effects::{Effect, Effects, RouterInput};
use links::Links;
use peer_budgets::PeerBudgets;
use peers::Peers;
use router_events::RouterReports;
use services::Services;
use std::{sync::Arc, time::Instant};
use tokio::sync::watch;
use uplink::Uplink;
use vanflow::VanflowEmitter;

#[derive(Clone, Debug)]
pub struct SiteSpec {
    /// Namespace, for logs.
    pub namespace: String,
    /// Its names, for records.
    pub site: Arc<SiteName>,
    pub router_id: String,
    /// Start time in seconds since the epoch.
    pub instance: i64,
    /// Data connections of each link dialled.
    pub trunk: usize,
    /// Address that announces the site to other routers; it receives no messages.
    pub advert: String,
    pub host: String,
    /// Whether this is an edge site: it dials interior routers and does not route for others.
    pub edge: bool,
}

impl SiteSpec {
    fn link_role(&self) -> Role {
        match self.edge {
            true => Role::Edge,
            false => Role::InterRouter,
        }
    }
}

pub(super) struct Site {
    id: u32,
    spec: SiteSpec,
    workers: usize,
    sender: CoreSender,
    /// The name of its vanflow source: five characters, as Skupper's routers have.
    source: Arc<str>,
    router: Router,
    router_reports: RouterReports,
    links: Links,
    accesses: Accesses,
    peers: Peers,
    budgets: PeerBudgets,
    clients: AmqpClients,
    edges: Edges,
    uplink: Uplink,
    services: Services,
    vanflow_emitter: VanflowEmitter,
    /// Which of several receivers gets the next message.
    rotation: usize,
    effects: Effects,
    view_dirty: bool,
}

impl Site {
    pub(super) fn new(id: u32, spec: SiteSpec, ctx: &CoreContext) -> Self {
        let mut config = RouterConfig::new(&*spec.router_id, spec.instance);
        config.mesh = spec.edge.then(dial::random_name);
        let mut router = Router::new(config, clock::now());
        router.add_consumer(&spec.advert, Treatment::Closest);
        let source: Arc<str> = source_name().into();
        let vanflow_emitter = VanflowEmitter::new(source.clone(), ctx.flow_log.clone());
        for address in vanflow_emitter.addresses() {
            router.add_consumer(&address, Treatment::Closest);
        }
        let (router_id, sender) = (&spec.router_id, &ctx.sender);
        Self {
            id,
            workers: ctx.workers.count(),
            source,
            router,
            router_reports: RouterReports::default(),
            links: Links::default(),
            accesses: Accesses::new(id, router_id, &spec.advert, sender.clone()),
            peers: Peers::default(),
            budgets: PeerBudgets::default(),
            clients: AmqpClients::default(),
            edges: Edges::new(router_id),
            uplink: Uplink::new(router_id),
            services: Services::new(id, &spec.namespace),
            vanflow_emitter,
            rotation: 0,
            effects: Effects::default(),
            view_dirty: true,
            sender: sender.clone(),
            spec,
        }
    }

    /// What a probe found of the connector's server with this id.
    pub(super) fn probed(&mut self, connector: u64, result: Result<(), String>) {
        self.services.probed(connector, result, &mut self.effects);
    }

    // ---- effects ----

    /// Carries out the effects of components, in order.
    pub(super) fn apply(&mut self, ctx: &mut CoreContext) {
        while let Some(effect) = self.effects.pop() {
            match effect {
                Effect::Carry(worker, connection) => ctx.carry(worker, connection),
                Effect::ToConnection(key, command) => ctx.send_command(key, command),
                Effect::ToWorker(worker, command) => ctx.workers.send(worker, command),
                Effect::Unlisten { listener, cut } => {
                    ctx.workers
                        .broadcast(|| Command::Unlisten { listener, cut });
                }
                Effect::Router(input) => self.update_router(input),
                Effect::Dial(specs) => self.dial(specs),
                Effect::Refuse(established, reason) => {
                    drop(tokio::task::spawn(established.refuse(reason)));
                }
                Effect::EdgeReachable(key, reachable) => self.edge_reachable(key, reachable),
                Effect::UpdateView => self.view_dirty = true,
                Effect::UpdateStatus => ctx.update_status(),
                Effect::CountLinkError => {
                    let role = self.spec.link_role().as_str();
                    ctx.flow_log.link_error(&self.spec.namespace, role);
                }
            }
        }
    }

    fn update_router(&mut self, input: RouterInput) {
        if let Err((edge, error)) = input.apply(&mut self.router, clock::now()) {
            self.effects.close(edge, error.into());
        }
    }

    fn dial(&self, specs: watch::Receiver<LinkSpec>) {
        let trunk = (!self.spec.edge).then_some(self.spec.trunk);
        let router = self.spec.router_id.clone();
        let task = dial::run(self.id, router, specs, trunk, self.sender.clone());
        drop(tokio::task::spawn(task));
    }

    // ---- routing ----

    /// When the router has something to do next.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.router.poll_timeout()
    }

    /// Handles the events of the router, and publishes changes. Workers get the new view before other
    /// routers hear of it: else the first stream to a new connector could reach a worker that does not
    /// know it yet.
    pub(super) fn pump(&mut self, ctx: &mut CoreContext, now: Instant) {
        if now >= self.router.poll_timeout() {
            self.router.handle_timeout(now);
        }
        let mut messages = Vec::new();
        while let Some(output) = self.router.poll_output() {
            self.output(output, &mut messages);
        }
        self.apply(ctx);
        if std::mem::take(&mut self.view_dirty) {
            self.publish(ctx);
        }
        for (link, message) in messages {
            ctx.send_command(link, message);
        }
    }

    /// Handles one output of the router; control messages go to `messages`.
    fn output(&mut self, output: Output, messages: &mut Vec<(ConnKey, Command)>) {
        let effects = &mut self.effects;
        match output {
            Output::Control { link, message } => {
                messages.push((link, Command::Control(link, message)));
            }
            Output::RoutesChanged => effects.update_view(),
            Output::NeighbourUp { link, id } => self.neighbour_up(link, &id),
            Output::NeighbourLost { link, id } => self.neighbour_lost(link, &id),
            Output::Reachable {
                edge,
                address,
                reachable,
            } => self
                .edges
                .notify_reachable(edge, &address, reachable, effects),
            report @ (Output::WrongId { .. }
            | Output::Restarted { .. }
            | Output::WrongInstance { .. }
            | Output::OverBudget { .. }) => self.router_report(report),
            Output::DuplicateId { link } => {
                let peer = self.peers.get(link).map(|p| p.addr);
                tracing::warn!(
                    ?peer,
                    id = self.router.id(),
                    "duplicate router id in the network"
                );
            }
        }
    }

    fn neighbour_up(&mut self, link: ConnKey, id: &str) {
        if let Some(peer) = self.peers.set_neighbour(link, true) {
            let namespace = &self.spec.namespace;
            tracing::info!(namespace, remote = id, peer = %peer.addr, "link is up");
        }
        self.peers.retire_superseded(&mut self.effects);
        self.effects.update_status();
    }

    fn neighbour_lost(&mut self, key: ConnKey, id: &str) {
        if let Some(peer) = self.peers.set_neighbour(key, false) {
            let namespace = &self.spec.namespace;
            if peer.announced {
                let reason = "no HELLO from neighbour";
                tracing::warn!(namespace, remote = id, peer = %peer.addr, reason, "link lost");
            } else {
                // A site that stops is seen like this too.
                let reason = "no data connection is left";
                tracing::info!(namespace, remote = id, peer = %peer.addr, reason, "link lost");
            }
            // With another endpoint, dial that one instead of waiting for this one.
            let link = peer.link.as_deref();
            if link.is_some_and(|name| self.links.has_alternatives(name)) {
                let reason = CloseReason::NeighbourLost;
                self.peers.close(key, reason, &mut self.effects);
            }
        }
        self.effects.update_status();
    }

    /// Publishes a new view to workers, and opens and closes listeners accordingly.
    fn publish(&mut self, ctx: &mut CoreContext) {
        if self.spec.edge {
            self.sync_uplink();
            self.apply(ctx);
        }
        let routes = self.router.routes();
        let origins = routes.addresses.keys();
        let origins = origins.filter_map(|a| a.strip_prefix(ORIGIN_ADVERT));
        let view = Arc::new(SiteView {
            site: self.spec.site.clone(),
            source: self.source.clone(),
            listeners: self.services.listener_views(),
            origins: origins.map(str::to_owned).collect(),
            routes,
            connectors: self.services.offered(),
            withheld: self.services.withheld(),
            workers: self.peers.workers(),
        });
        ctx.workers
            .broadcast(|| Command::View(self.id, view.clone()));
        self.services.reconsider(&view, ctx, &mut self.effects);
        self.effects.update_status();
        self.apply(ctx);
    }

    /// Attaches links for new addresses of this edge, and detaches those of removed ones.
    fn sync_uplink(&mut self) {
        let consumed = self.router.own_addresses();
        let sent_to = self.services.sent_to().chain(self.clients.sent_to());
        let sent_to = sent_to.chain(self.vanflow_emitter.sends_to());
        self.uplink.sync(consumed, sent_to, &mut self.effects);
    }

    // ---- time ----

    pub(super) fn tick(&mut self, ctx: &mut CoreContext, now: Instant) {
        self.peers.drop_late_data(now);
        self.peers.expire_ids(now);
        self.budgets.expire();
        self.peers.carry_late(now, &mut self.effects);
        self.services.retry(ctx, &mut self.effects);
        self.emit_records(now);
        self.apply(ctx);
    }

    /// Whether listeners are open for clients of an earlier process alone.
    pub(super) fn has_held_listeners(&self) -> bool {
        self.services.has_held_listeners()
    }

    /// Closes such listeners when the next view is published.
    pub(super) fn release_listeners(&mut self) {
        self.view_dirty |= self.has_held_listeners();
    }

    pub(super) fn shut_down(mut self, ctx: &mut CoreContext) {
        let reason = CloseReason::SiteRemoved;
        self.links.clear();
        self.accesses.clear();
        self.peers.close_all(reason, &mut self.effects);
        self.services.clear(ctx, &mut self.effects);
        self.clients.close_all(reason, &mut self.effects);
        self.vanflow_emitter.stop();
        self.apply(ctx);
    }
}

/// A name for a vanflow source; another one after each start.
fn source_name() -> String {
    let mut name = dial::random_name();
    name.split_off(name.len().saturating_sub(5))
}

#[cfg(test)]
mod tests;
