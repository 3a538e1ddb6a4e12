//! The server's side: from an incoming stream to a connection to the server.

use super::{
    Cut, Proxy,
    flow::{self, Flow},
    head,
    local::{self, ClientInfo},
    tcp::TcpEnd,
};
use crate::{
    amqp::{
        message::{MessageHead, Properties},
        value::Value,
    },
    flows::FlowSide,
    link::{
        conn::{
            ConnKey, LinkConnection, Outcome,
            stream_end::{End, StreamReply},
        },
        flow_window::SendPhase,
        names::NATIVE_END,
    },
    router::Target,
    service::origin::{ALPN, ORIGIN, Origin},
    worker::{IncomingStream, Worker},
};
use bytes::Bytes;
use std::rc::{Rc, Weak};

impl Proxy {
    pub(super) fn serve(
        &self,
        worker: &Rc<Worker>,
        stream: IncomingStream,
    ) -> Result<End, Outcome> {
        let IncomingStream {
            site,
            head,
            source,
            reply_conn,
            link,
        } = stream;
        let (Some(proxy), Some(reply_conn)) = (self.this.upgrade(), reply_conn) else {
            return Err(Outcome::Released);
        };
        // Answers need an address.
        if head.properties.reply_to.is_none() {
            return Err(Outcome::Rejected);
        }
        let flow = self.server_flow(worker, site, &head);
        let end = TcpEnd::new(None, self.count_open(), flow.share());
        end.receive_from(source, &head);
        let server = Server {
            proxy,
            worker: worker.clone(),
            site,
            link,
            head,
            reply_conn,
            end: end.clone(),
            flow,
        };
        tokio::task::spawn_local(server.run());
        Ok(end)
    }
}

struct Server {
    proxy: Rc<Proxy>,
    worker: Rc<Worker>,
    site: u32,
    link: ConnKey,
    head: Box<MessageHead>,
    reply_conn: Rc<LinkConnection>,
    end: Rc<TcpEnd>,
    flow: Flow,
}

impl Server {
    async fn run(self) {
        let key = match self.head.to().map(Target::parse) {
            Some(Target::Mobile(key)) => key.to_owned(),
            _ => return self.end.close(),
        };
        let mut tried = Vec::new();
        let text = |name| self.head.application_property(name).and_then(Value::as_str);
        let client = ClientInfo {
            origin: text(ORIGIN).and_then(Origin::parse),
            protocol: text(ALPN).map(str::to_owned),
            site: flow::origin(&self.head),
        };
        while let Some(target) = self.next(&key, &tried) {
            let near = &self.proxy.acceleration;
            match local::connect(near, &self.worker, self.site, &key, target, &client).await {
                Ok((server, in_use)) => {
                    let served = in_use.served(&server);
                    self.end.connected(server);
                    self.proxy
                        .own(target, Rc::downgrade(&self.end) as Weak<dyn Cut>);
                    self.answer(&served);
                    let client_side = flow::other_end(&self.head);
                    self.flow.set_server(FlowSide {
                        site: client_side.site,
                        trace: client_side.trace,
                        ..served
                    });
                    self.end.run().await;
                    drop(in_use);
                    return;
                }
                Err(error) => {
                    tracing::debug!(routing_key = key, %error, "connector refused connection");
                    tried.push(target);
                }
            }
            if self.end.is_reset() {
                return self.end.close();
            }
        }
        self.reroute();
    }

    /// The connector of this host with the fewest connections, of those that were not tried.
    fn next(&self, key: &str, tried: &[u64]) -> Option<u64> {
        let view = self.worker.view(self.site)?;
        let candidates = view.local_candidates(key);
        let left = candidates.into_iter().filter(|c| !tried.contains(&c.id));
        left.min_by_key(|c| c.in_use).map(|c| c.id)
    }

    /// Opens the stream back to the client.
    fn answer(&self, served: &FlowSide) {
        let Some(view) = self.worker.view(self.site) else {
            return;
        };
        let properties = Properties {
            to: self.head.properties.reply_to.clone(),
            ..Properties::default()
        };
        let native = self.reply_conn.native && self.head.application_property(NATIVE_END).is_some();
        let flow_fields = native.then(|| flow::end_field(&view, Some(served)));
        let head = head::encode(
            &view.routes,
            properties,
            native,
            flow_fields.into_iter().collect(),
        );
        let replay = Bytes::new();
        self.end
            .open_stream(&self.reply_conn, head, SendPhase::Open, replay);
    }

    /// Passes the stream on: no server of this host accepts the connection.
    fn reroute(self) {
        let Some(source) = self.end.take_source() else {
            return self.end.close();
        };
        let stream = IncomingStream {
            site: self.site,
            head: self.head,
            source,
            reply_conn: None,
            link: self.link,
        };
        match self.worker.route_stream(stream, false) {
            Ok(to) => self.end.delegate(to),
            Err((source, outcome)) => {
                source.reply_now(StreamReply::Outcome(outcome));
                self.end.close();
            }
        }
    }
}
