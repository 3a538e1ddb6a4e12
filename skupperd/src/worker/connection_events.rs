//! Events of connections: streams go to their ends, everything else to the core.

use super::{IncomingStream, Worker, stream_source::StreamSource};
use crate::{
    amqp::{
        connection::{AttachArgs, DeliveryId, LinkId},
        message::{MessageHead, RouterAnnotations},
        performative::{Attach, DeliveryState},
        value::Value,
    },
    link::{
        conn::{
            ConnKey, ConnectionKind, ConnectionState, DeliveryOutcome, InStream, LinkConnection,
            stream_end::End,
        },
        driver::{ConnectionEvents, MessageOrigin},
        intake::IntakePermit,
        peer_budget::PeerBudget,
    },
    messages::CoreEvent,
    service::origin::{ALPN, ORIGIN},
    sys::clock,
};
use bytes::Bytes;
use std::rc::Rc;

/// Prefix of the application properties that endpoints of this project exchange.
const OURS: &str = "io.skupper.";

impl ConnectionEvents for Worker {
    fn stream(
        self: &Rc<Self>,
        conn: &Rc<LinkConnection>,
        stream: InStream,
        mut head: Box<MessageHead>,
    ) -> Result<End, DeliveryOutcome> {
        match (conn.kind, self.view(conn.site)) {
            (ConnectionKind::Normal, _) => drop_claims(&mut head),
            // On an edge this is the connection to its interior router, which is trusted.
            (ConnectionKind::Edge, Some(view)) if view.routes.mesh.is_none() => {
                set_ingress(&mut head, &view.routes.self_id);
            }
            _ => {}
        }
        let stream = IncomingStream {
            site: conn.site,
            head,
            source: StreamSource::Connection(conn.clone(), stream),
            reply_conn: Some(conn.clone()),
            link: conn.group,
        };
        self.route_stream(stream, true)
            .map_err(|(_, outcome)| outcome)
    }

    fn window_exceeded(&self, conn: &Rc<LinkConnection>) {
        if let Some(suppressed) = self.window_overruns.count_and_report(clock::now()) {
            let (conn, site) = (conn.key, self.site_name(conn.site));
            tracing::warn!(conn, site, suppressed, "stream aborted: window exceeded");
        }
    }

    fn over_budget(&self, conn: &Rc<LinkConnection>, reason: &str) {
        if let Some(suppressed) = self.budget_overruns.count_and_report(clock::now()) {
            let (site, kind) = (self.site_name(conn.site), conn.kind);
            tracing::warn!(
                conn = conn.key,
                site,
                peer = conn.budget.name(),
                ?kind,
                suppressed,
                reason,
                "closing connection over its budget"
            );
        }
    }

    fn streams_over_budget(&self, conn: &Rc<LinkConnection>, budget: &PeerBudget) {
        if let Some(suppressed) = self.stream_overruns.count_and_report(clock::now()) {
            tracing::warn!(
                conn = conn.key,
                site = self.site_name(conn.site),
                peer = budget.name(),
                suppressed,
                "stream aborted: the streams of its peer are over their budget"
            );
        }
    }

    fn ended(&self, conn: &Rc<LinkConnection>) {
        self.conns.borrow_mut().remove(&conn.key);
        let mut trunks = self.trunks.borrow_mut();
        if let Some(conns) = trunks.get_mut(&conn.group) {
            conns.retain(|c| c.key != conn.key);
            if conns.is_empty() {
                trunks.remove(&conn.group);
            }
        }
    }

    fn message(
        &self,
        conn: &Rc<LinkConnection>,
        stream: InStream,
        settled: bool,
        origin: MessageOrigin,
        message: Bytes,
        permit: IntakePermit,
    ) {
        let delivery = (!settled).then_some(stream.delivery);
        let (key, group, link) = (conn.key, conn.group, stream.link);
        self.core.send(CoreEvent::Message {
            key,
            group,
            link,
            delivery,
            origin,
            message,
            permit,
        });
    }

    fn message_settled(
        &self,
        conn: &Rc<LinkConnection>,
        link: LinkId,
        _delivery: DeliveryId,
        settled: bool,
        state: Option<&DeliveryState>,
    ) {
        tracing::trace!(
            conn = conn.key,
            ?link,
            settled,
            ?state,
            "message settled by the peer"
        );
    }

    fn control_ready(&self, conn: &Rc<LinkConnection>) {
        self.core.send(CoreEvent::ControlReady { key: conn.key });
    }

    fn link_attached(
        &self,
        conn: &Rc<LinkConnection>,
        state: &mut ConnectionState,
        link: LinkId,
        attach: &Attach,
    ) {
        let router = self
            .view(conn.site)
            .map(|v| v.routes.self_id.clone())
            .unwrap_or_default();
        let attach = Box::new(state.client_attached(link, attach, &router));
        self.core.send(CoreEvent::ClientAttached {
            key: conn.key,
            link,
            attach,
            permit: state.intake.permit(0),
        });
    }

    fn link_detached(&self, conn: &Rc<LinkConnection>, link: LinkId, permit: IntakePermit) {
        self.core.send(CoreEvent::ClientDetached {
            key: conn.key,
            link,
            permit,
        });
    }

    fn link_credit(
        &self,
        conn: &Rc<LinkConnection>,
        state: &mut ConnectionState,
        link: LinkId,
        credit: u32,
        drain: bool,
    ) {
        self.core.send(CoreEvent::ClientCredit {
            key: conn.key,
            link,
            credit,
            permit: state.intake.permit(0),
        });
        if drain {
            state.amqp.drained(link);
        }
    }
}

/// Drops what only routers may claim: the origin of a stream and its endpoints. Streams of clients of
/// this host begin at this router.
fn drop_claims(head: &mut MessageHead) {
    head.annotations = RouterAnnotations {
        flags: head.annotations.flags,
        to_override: head.annotations.to_override.take(),
        ..RouterAnnotations::default()
    };
    let claim = |name: &Value| {
        let name = name.as_str().unwrap_or_default();
        name.starts_with(OURS) || name == ALPN
    };
    head.application_properties.retain(|(name, _)| !claim(name));
}

/// Overwrites what an edge claims about the origin of its stream, which enters the network at this
/// router. Its claims about endpoints and ALPN stay; its claim about the client is dropped, because an
/// edge does not learn that a connector asks for it.
fn set_ingress(head: &mut MessageHead, own: &str) {
    let claimed = std::mem::take(&mut head.annotations);
    head.annotations = RouterAnnotations {
        flags: claimed.flags,
        to_override: claimed.to_override,
        ingress: Some(format!("0/{own}")),
        ingress_mesh: claimed.ingress_mesh,
        ..RouterAnnotations::default()
    };
    head.application_properties
        .retain(|(name, _)| name.as_str() != Some(ORIGIN));
}

impl Worker {
    fn site_name(&self, site: u32) -> String {
        self.view(site)
            .map(|view| view.site.name.clone())
            .unwrap_or_default()
    }

    /// Attaches a link for the core and reports its ID.
    pub(super) fn attach(&self, key: ConnKey, tag: u64, args: AttachArgs) {
        let mut link = None;
        self.on_conn(key, |conn| link = conn.attach_own(args));
        if let Some(link) = link {
            self.core.send(CoreEvent::LinkAttached { key, tag, link });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forged_annotations() -> MessageHead {
        let property = |name: &str| (Value::from(name), Value::from("x"));
        let names = [ORIGIN, ALPN, "io.skupper.end", "V"];
        MessageHead {
            annotations: RouterAnnotations {
                flags: 5,
                to_override: Some("web".to_owned()),
                ingress: Some("0/east-1-1".to_owned()),
                trace: vec!["0/east-1-1".to_owned()],
                ingress_mesh: Some("mesh".to_owned()),
                extra: vec![Value::Uint(1)],
            },
            application_properties: names.map(property).into(),
            ..MessageHead::default()
        }
    }

    fn properties(head: &MessageHead) -> Vec<&str> {
        let names = head.application_properties.iter();
        names.filter_map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn a_client_of_the_host_sets_only_the_destination() {
        let mut head = forged_annotations();
        drop_claims(&mut head);
        let expected = RouterAnnotations {
            flags: 5,
            to_override: Some("web".to_owned()),
            ..RouterAnnotations::default()
        };
        assert_eq!(head.annotations, expected);
        assert_eq!(properties(&head), ["V"]);
    }

    #[test]
    fn the_stream_of_an_edge_enters_the_network_here() {
        let mut head = forged_annotations();
        set_ingress(&mut head, "hub");
        let expected = RouterAnnotations {
            flags: 5,
            to_override: Some("web".to_owned()),
            ingress: Some("0/hub".to_owned()),
            ingress_mesh: Some("mesh".to_owned()),
            ..RouterAnnotations::default()
        };
        assert_eq!(head.annotations, expected);
        assert_eq!(properties(&head), [ALPN, "io.skupper.end", "V"]);
    }
}
