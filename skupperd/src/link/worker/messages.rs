//! What a worker tells the core of links that are not a stream's, and what the core has done with them.

use super::Worker;
use crate::{
    amqp::{
        connection::{AttachArgs, DeliveryId, LinkId},
        performative::{Attach, DeliveryState},
    },
    link::{
        conn::{Conn, ConnKey, InStream, Inner},
        core::CoreEvent,
    },
};
use bytes::Bytes;
use std::rc::Rc;

impl Worker {
    pub(in crate::link) fn message(
        &self,
        conn: &Rc<Conn>,
        stream: InStream,
        settled: bool,
        message: Bytes,
    ) {
        let delivery = (!settled).then_some(stream.delivery);
        let (key, group, link) = (conn.key, conn.group, stream.link);
        self.core.send(CoreEvent::Message {
            key,
            group,
            link,
            delivery,
            message,
        });
    }

    pub(in crate::link) fn message_outcome(
        &self,
        conn: &Rc<Conn>,
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
            "outcome of a message"
        );
    }

    pub(in crate::link) fn control_ready(&self, conn: &Rc<Conn>) {
        self.core.send(CoreEvent::ControlReady { key: conn.key });
    }

    pub(in crate::link) fn client_attached(
        &self,
        conn: &Rc<Conn>,
        inner: &mut Inner,
        link: LinkId,
        attach: &Attach,
    ) {
        let router = self
            .view(conn.site)
            .map(|v| v.routes.self_id.clone())
            .unwrap_or_default();
        let attach = Box::new(inner.client_attached(link, attach, &router));
        let key = conn.key;
        self.core
            .send(CoreEvent::ClientAttached { key, link, attach });
    }

    pub(in crate::link) fn client_detached(&self, conn: &Rc<Conn>, link: LinkId) {
        self.core.send(CoreEvent::ClientDetached {
            key: conn.key,
            link,
        });
    }

    pub(in crate::link) fn client_credit(
        &self,
        conn: &Rc<Conn>,
        inner: &mut Inner,
        link: LinkId,
        credit: u32,
        drain: bool,
    ) {
        self.core.send(CoreEvent::ClientCredit {
            key: conn.key,
            link,
            credit,
        });
        if drain {
            inner.amqp.drained(link);
        }
    }

    /// Attaches a link that the core wants, and tells it which that is.
    pub(super) fn attach(&self, key: ConnKey, tag: u64, args: AttachArgs) {
        let mut link = None;
        self.on_conn(key, |inner| link = inner.attach_own(args));
        if let Some(link) = link {
            self.core.send(CoreEvent::LinkAttached { key, tag, link });
        }
    }
}
