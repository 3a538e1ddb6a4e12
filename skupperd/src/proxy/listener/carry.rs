//! Carries a client to a connector, and to another one if it refuses.

use super::Client;
use crate::{
    flows::{ServerInfo, SiteName},
    link::conn::ConnKey,
    proxy::{
        local::{self, ClientInfo, InUse},
        stream::Stream,
        tcp::{TcpEnd, TcpOutcome},
    },
    router::{Choice, Exclusions, OutstandingDelivery},
    service::origin::Origin,
};
use bytes::Bytes;
use std::{io, rc::Rc};

/// How a client is being served.
pub(super) enum Carrier {
    /// By a connector of this site; with what a refused one had been sent.
    Local(Rc<Stream>, u64, Bytes),
    /// Over a link.
    Remote {
        end: Rc<TcpEnd>,
        link: ConnKey,
        reply_number: Option<u64>,
        outstanding: OutstandingDelivery,
    },
}

impl Client {
    /// Connects to a connector of this site.
    async fn connect(&self, client: &Stream, target: u64) -> io::Result<(Stream, InUse)> {
        let key = &self.routing_key;
        let mut info = ClientInfo {
            origin: None,
            protocol: self.protocol.clone(),
            site: None,
        };
        let view = self.worker.view(self.site);
        info.site = view.as_ref().map(|v| v.site.name.clone());
        if view.is_some_and(|v| v.origins.contains(&**key)) {
            info.origin = Origin::of(client.socket());
        }
        let near = &self.proxy.acceleration;
        local::connect(near, &self.worker, self.site, key, target, &info).await
    }

    /// A connector of this site has taken the client.
    fn served_here(&self, served: ServerInfo) {
        let site = self.worker.view(self.site).map(|v| v.site.clone());
        self.flow.set_routing_key(&self.routing_key);
        self.flow.set_server(ServerInfo {
            site: site.map_or_else(SiteName::default, |site| SiteName {
                // The other end's, which is known of no other site.
                namespace: String::new(),
                ..(*site).clone()
            }),
            ..served
        });
    }

    /// Carries a client to a connector, and tries others for as long as connectors refuse.
    pub(super) async fn carry(mut self, mut carrier: Carrier, mut exclude: Exclusions) {
        loop {
            let (end, stream, replay) = match carrier {
                Carrier::Local(stream, target, replay) => {
                    match self.connect(&stream, target).await {
                        Ok((server, in_use)) => {
                            let open = self.proxy.count_open();
                            let replay = replay.as_ref();
                            self.served_here(in_use.server_info(&server));
                            let (owners, flow) = ([self.listener, target], &*self.flow);
                            local::bridge(&self.proxy, owners, &stream, &server, replay, flow)
                                .await;
                            drop((in_use, open));
                            return;
                        }
                        Err(error) => {
                            let key = &*self.routing_key;
                            tracing::debug!(routing_key = key, %error, "connector refused connection");
                            exclude.locals.push(target);
                            (None, Some(stream), replay)
                        }
                    }
                }
                Carrier::Remote {
                    end,
                    link,
                    reply_number,
                    outstanding,
                } => {
                    let refused = match reply_number {
                        Some(reply_number) => {
                            let outcome = end.run().await;
                            self.proxy.clients.borrow_mut().remove(&reply_number);
                            matches!(outcome, TcpOutcome::Refused(_))
                        }
                        None => true,
                    };
                    drop(outstanding);
                    if !refused {
                        return;
                    }
                    tracing::debug!(routing_key = &*self.routing_key, "connector refused stream");
                    exclude.links.push(link);
                    let (replay, stream) = (end.retry(), end.socket());
                    (Some(end), stream, replay)
                }
            };
            let choice = self.choose_connector(&mut exclude);
            let Some(stream) = stream else { return };
            carrier = match (choice, end) {
                (
                    Choice::Remote {
                        link, outstanding, ..
                    },
                    Some(end),
                ) => {
                    let reply_number = self.open_stream(&end, stream.socket(), link, replay);
                    Carrier::Remote {
                        end,
                        link,
                        reply_number,
                        outstanding,
                    }
                }
                (
                    Choice::Remote {
                        link, outstanding, ..
                    },
                    None,
                ) => self.send_over_link(stream, link, outstanding, replay),
                (Choice::Local(target), _) => Carrier::Local(stream, target, replay),
                (Choice::None, Some(end)) => return end.close(),
                // Closing the socket resets the client.
                (Choice::None, None) => return,
            };
        }
    }
}
