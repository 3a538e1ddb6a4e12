//! The server's side: from an incoming stream to a connection to the server.

use super::{
    Disconnect, Proxy,
    flow::{self, FlowGuard},
    head,
    local::{self, ClientInfo},
    tcp::TcpEnd,
};
use crate::{
    amqp::{
        message::{MessageHead, Properties},
        value::Value,
    },
    flows::ServerInfo,
    link::{
        conn::{
            ConnKey, DeliveryOutcome, LinkConnection,
            stream_end::{End, StreamReply},
        },
        flow_window::SendPhase,
        names::NATIVE_END,
    },
    router::{ParsedAddress, Routes},
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
    ) -> Result<End, DeliveryOutcome> {
        let IncomingStream {
            site,
            head,
            source,
            reply_conn,
            link,
        } = stream;
        let (Some(proxy), Some(reply_conn)) = (self.this.upgrade(), reply_conn) else {
            return Err(DeliveryOutcome::Released);
        };
        // Answers need an address.
        if head.properties.reply_to.is_none() {
            return Err(DeliveryOutcome::Rejected);
        }
        let flow = self.server_flow(worker, site, &head);
        let end = TcpEnd::new(None, self.count_open(), flow.recorder());
        end.receive_from(source, &head);
        let server = ServerConnection {
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

struct ServerConnection {
    proxy: Rc<Proxy>,
    worker: Rc<Worker>,
    site: u32,
    link: ConnKey,
    head: Box<MessageHead>,
    reply_conn: Rc<LinkConnection>,
    end: Rc<TcpEnd>,
    flow: FlowGuard,
}

impl ServerConnection {
    async fn run(self) {
        let key = match self.head.to().map(ParsedAddress::parse) {
            Some(ParsedAddress::Mobile(key)) => key.to_owned(),
            _ => return self.end.close(),
        };
        let mut tried = Vec::new();
        let text = |name| self.head.application_property(name).and_then(Value::as_str);
        let client = ClientInfo {
            origin: text(ORIGIN).and_then(Origin::parse),
            protocol: text(ALPN).map(str::to_owned),
            site: flow::client_site(&self.head),
        };
        while let Some(target) = self.next(&key, &tried) {
            let near = &self.proxy.acceleration;
            match local::connect(near, &self.worker, self.site, &key, target, &client).await {
                Ok((server, in_use)) => {
                    let served = in_use.server_info(&server);
                    self.end.connected(server);
                    self.proxy
                        .register(target, Rc::downgrade(&self.end) as Weak<dyn Disconnect>);
                    self.answer(&served);
                    let client_side = flow::remote_side(&self.head);
                    self.flow.set_server(ServerInfo {
                        site: client_side.site,
                        trace: client_side.trace,
                        ..served
                    });
                    self.end.run().await;
                    drop(in_use);
                    return;
                }
                Err(error) => {
                    tracing::debug!(routing_key = key, %error, "refusing stream: cannot connect to server");
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

    /// The connection that answers leave on: towards the client by this router's own path. Where two paths
    /// cost the same, the stream may have come by the other one, whose routers pass on nothing of this
    /// router for the client's.
    fn answer_conn(&self, routes: &Routes) -> Rc<LinkConnection> {
        let reply_to = self.head.properties.reply_to.as_deref();
        let link = reply_to.and_then(|to| answer_link(routes, to));
        let conn = link
            .filter(|link| *link != self.link)
            .and_then(|link| self.worker.trunk(link));
        conn.unwrap_or_else(|| self.reply_conn.clone())
    }

    /// Opens the stream back to the client.
    fn answer(&self, served: &ServerInfo) {
        let Some(view) = self.worker.view(self.site) else {
            return;
        };
        let conn = self.answer_conn(&view.routes);
        let properties = Properties {
            to: self.head.properties.reply_to.clone(),
            ..Properties::default()
        };
        let native = conn.native && self.head.application_property(NATIVE_END).is_some();
        let flow_fields = native.then(|| flow::end_field(&view, Some(served)));
        let head = head::encode(
            &view.routes,
            properties,
            native,
            flow_fields.into_iter().collect(),
        );
        let replay = Bytes::new();
        self.end.open_stream(&conn, head, SendPhase::Open, replay);
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

/// The link towards a reply address of another router, as far as this router knows a path.
fn answer_link(routes: &Routes, reply_to: &str) -> Option<ConnKey> {
    // An edge has no paths.
    if routes.mesh.is_some() {
        return None;
    }
    match ParsedAddress::parse(reply_to) {
        ParsedAddress::Router { id, .. } if id != routes.self_id => routes.link_towards(id),
        ParsedAddress::Edge { id, .. } => routes.link_towards_edge(id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::RouterRoute;

    #[test]
    fn answers_take_the_path_of_this_router_and_not_the_one_that_the_stream_came_by() {
        let route = |next_hop| RouterRoute {
            next_hop,
            next_hop_id: "S2".to_owned(),
            cost: 6,
            valid_origins: crate::router::Origins::default(),
        };
        // Over S2; the stream of the client's router came over U3 at the same cost.
        let mut routes = Routes {
            self_id: "S3".to_owned(),
            routers: std::sync::Arc::new([("U2".to_owned(), route(2))].into()),
            edges: std::sync::Arc::new([("E".to_owned(), 7)].into()),
            ..Routes::default()
        };
        let link = |routes: &Routes, to| answer_link(routes, to);
        assert_eq!(link(&routes, "amqp:/_topo/0/U2/temp.1"), Some(2));
        assert_eq!(link(&routes, "amqp:/_edge/E/temp.1"), Some(7));
        for unknown in ["amqp:/_topo/0/U9/temp.1", "amqp:/_topo/0/S3/temp.1", "key"] {
            assert_eq!(link(&routes, unknown), None, "{unknown}");
        }
        routes.mesh = Some("mesh".into());
        assert_eq!(link(&routes, "amqp:/_topo/0/U2/temp.1"), None);
    }
}
