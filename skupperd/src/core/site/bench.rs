//! A site without sockets and threads, for tests.

use super::{
    Arrival, Site, SiteSpec,
    peers::{Peer, PeerOrigin},
};
use crate::{
    amqp::{connection::LinkId, performative::Attach},
    core::{
        channel,
        context::{ConnectionOwner, CoreContext},
    },
    flows::FlowLog,
    link::{conn::ConnKey, driver::MessageOrigin},
    listen::ListenerSockets,
    messages::{Command, Senders},
    model,
    pki::CertificateIdentity,
    service::policy::ListenerPolicies,
    steer::{OwnSockets, accel::Acceleration},
};
use bytes::Bytes;
use jiff::Timestamp;
use std::{sync::Arc, time::Instant};
use tokio::sync::mpsc;

/// A site without sockets, and the channel of its one worker.
pub(super) struct Bench {
    pub(super) ctx: CoreContext,
    pub(super) site: Site,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) key: ConnKey,
}

/// A site by its router, which is an edge or not.
pub(in crate::core) fn spec(own: &str, edge: bool) -> SiteSpec {
    SiteSpec {
        namespace: "test".to_owned(),
        site: Arc::default(),
        router_id: own.to_owned(),
        instance: 1,
        trunk: 0,
        advert: format!("skupper-site/{own}"),
        host: String::new(),
        edge,
    }
}

/// A certificate of this serial number and subject.
pub(in crate::core) fn identity(
    serial: &str,
    authority: &str,
    subject: &str,
) -> CertificateIdentity {
    CertificateIdentity {
        serial: serial.to_owned(),
        authority: authority.to_owned(),
        subject: subject.to_owned(),
        expires: Timestamp::UNIX_EPOCH,
    }
}

/// What sites share, with one worker, whose commands are given back.
fn context() -> (CoreContext, mpsc::UnboundedReceiver<Command>) {
    let (handle, _inbox) = channel();
    let (worker, commands) = mpsc::unbounded_channel();
    let sockets = ListenerSockets::new(
        None,
        Acceleration::new(false),
        OwnSockets::default(),
        ListenerPolicies::default(),
    );
    let (sender, workers) = (handle.events().clone(), Senders::new(vec![worker]));
    let (ctx, _) = CoreContext::new(sender, workers, sockets, FlowLog::new(1));
    (ctx, commands)
}

/// Router `own` with one connection of role edge to router `remote`.
pub(super) fn bench(own: &str, remote: &str) -> Bench {
    let edge = own == "E";
    let (mut ctx, commands) = context();
    let mut site = Site::new(1, spec(own, edge), &ctx);
    let key = ctx.sender.next_key();
    ctx.connections
        .insert(key, ConnectionOwner { site: 1, worker: 0 });
    let origin = PeerOrigin {
        role: model::Role::Edge,
        cost: 1,
        link: edge.then(|| "link".to_owned()),
        access: None,
        correlator: None,
    };
    let addr = "127.0.0.1:1".parse().expect("an address");
    let peer = Peer::of(origin, remote.to_owned(), addr);
    assert!(site.peers.insert(key, peer));
    if edge {
        site.uplink_opened(key, None);
    } else {
        site.edges.connected(key, remote, &mut site.effects);
    }
    site.apply(&mut ctx);
    Bench {
        ctx,
        site,
        commands,
        key,
    }
}

impl Bench {
    /// Lets the site do what it has to. Commands to the connection.
    pub(super) fn pump(&mut self) -> Vec<Command> {
        self.site.apply(&mut self.ctx);
        self.site.pump(&mut self.ctx, Instant::now());
        let all = std::iter::from_fn(|| self.commands.try_recv().ok());
        all.filter(|c| !matches!(c, Command::View(..))).collect()
    }

    pub(super) fn attach(&mut self, link: u32, attach: &Attach) -> Vec<Command> {
        let link = LinkId::of(link);
        self.site.link_attached(self.key, link, attach);
        self.pump()
    }

    pub(super) fn message(&mut self, link: u32, bytes: Bytes) -> Vec<Command> {
        let from = Arrival {
            key: self.key,
            group: self.key,
            link: LinkId::of(link),
            origin: MessageOrigin::Other,
        };
        self.site.message(from, None, &bytes);
        self.pump()
    }
}
