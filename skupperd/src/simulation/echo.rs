//! Servers in memory: each stream to a connector comes back on the stream of its answers.

use crate::{
    amqp::{
        message::{
            FLAG_DISABLE_Q2, FLAG_STREAMING, MessageHead, Properties, RouterAnnotations,
            STREAM_CONTENT_TYPE, encode_stream_head,
        },
        value::Value,
    },
    link::conn::{DeliveryOutcome, stream_end::End},
    messages::AcceptedClient,
    worker::{Acceptor, IncomingStream, Worker, transit::Transit},
};
use bytes::BytesMut;
use std::rc::Rc;
use tokio::task::spawn_local;

/// In place of the proxy. There are no clients.
pub(super) struct EchoServers;

impl Acceptor for EchoServers {
    fn stream(
        &self,
        worker: &Rc<Worker>,
        stream: IncomingStream,
        reply_number: Option<u64>,
    ) -> Result<End, DeliveryOutcome> {
        let (None, Some(conn)) = (reply_number, stream.reply_conn) else {
            return Err(DeliveryOutcome::Released);
        };
        let (Some(to), Some(view)) = (stream.head.properties.reply_to, worker.view(stream.site))
        else {
            return Err(DeliveryOutcome::Rejected);
        };
        let own = format!("0/{}", view.routes.self_id);
        let head = MessageHead {
            annotations: RouterAnnotations {
                flags: FLAG_STREAMING | FLAG_DISABLE_Q2,
                ingress: Some(own.clone()),
                trace: vec![own],
                ..RouterAnnotations::default()
            },
            properties: Properties {
                to: Some(to),
                content_type: Some(Value::from(STREAM_CONTENT_TYPE)),
                ..Properties::default()
            },
            application_properties: Vec::new(),
        };
        let mut bytes = BytesMut::new();
        encode_stream_head(&head, &mut bytes);
        let echo = Transit::new(stream.source, conn);
        // The connection is borrowed now.
        spawn_local({
            let echo = echo.clone();
            async move { echo.open_late(bytes.freeze()) }
        });
        Ok(echo)
    }

    fn client(&self, _: &Rc<Worker>, client: AcceptedClient) -> Option<AcceptedClient> {
        Some(client)
    }

    fn cut(&self, _: u64) {}

    fn open_connections(&self) -> usize {
        0
    }
}
