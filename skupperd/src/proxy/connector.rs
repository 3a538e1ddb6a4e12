//! The server's side: from a stream that has come in to a connection to the server.

use super::{
    Cut, Proxy, local,
    tcp::{NATIVE_END, Sending, TcpEnd},
};
use crate::{
    amqp::{
        message::{
            FLAG_DISABLE_Q2, FLAG_STREAMING, MessageHead, Properties, RouterAnnotations,
            STREAM_CONTENT_TYPE, encode_stream_head,
        },
        value::Value,
    },
    link::{
        conn::{Conn, ConnKey, End, Outcome},
        worker::{Arrived, Worker},
    },
    router::Target,
};
use bytes::BytesMut;
use std::rc::{Rc, Weak};

impl Proxy {
    pub(super) fn serve(&self, worker: &Rc<Worker>, arrived: Arrived) -> Result<End, Outcome> {
        let Arrived {
            site,
            head,
            up,
            back,
            link,
            ..
        } = arrived;
        let (Some(proxy), Some(back)) = (self.this.upgrade(), back) else {
            return Err(Outcome::Released);
        };
        // Without an address for answers no connection can be made of it.
        if head.properties.reply_to.is_none() {
            return Err(Outcome::Rejected);
        }
        let end = TcpEnd::new(None, self.count());
        end.st.borrow_mut().up = Some(up);
        end.peer(&head);
        let server = Server {
            proxy,
            worker: worker.clone(),
            site,
            link,
            head: *head,
            back,
            end: end.clone(),
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
    head: MessageHead,
    back: Rc<Conn>,
    end: Rc<TcpEnd>,
}

impl Server {
    async fn run(self) {
        let key = match self.head.to().map(Target::parse) {
            Some(Target::Mobile(key)) => key.to_owned(),
            _ => return self.end.close(true),
        };
        let mut tried = Vec::new();
        while let Some(target) = self.next(&key, &tried) {
            match local::connect(&self.worker, self.site, &key, target).await {
                Ok((server, in_use)) => {
                    if let Err(error) = self.end.connected(server) {
                        tracing::warn!(%error, "registering a server connection failed");
                        return self.end.close(true);
                    }
                    self.proxy
                        .own(target, Rc::downgrade(&self.end) as Weak<dyn Cut>);
                    self.answer();
                    self.end.run().await;
                    drop(in_use);
                    return;
                }
                Err(error) => {
                    tracing::debug!(routing_key = key, %error, "connector refused");
                    tried.push(target);
                }
            }
            if self.end.is_reset() {
                return self.end.close(true);
            }
        }
        self.elsewhere();
    }

    /// The connector of this host with the fewest connections, of those that were not tried.
    fn next(&self, key: &str, tried: &[u64]) -> Option<u64> {
        let candidates = super::candidates(&self.worker, self.site, key);
        let left = candidates.into_iter().filter(|c| !tried.contains(&c.id));
        left.min_by_key(|c| c.in_use).map(|c| c.id)
    }

    /// Opens the stream back to the client.
    fn answer(&self) {
        let own = self
            .worker
            .view(self.site)
            .map(|v| format!("0/{}", v.routes.self_id));
        let own = own.unwrap_or_default();
        let mut application_properties = vec![(Value::from("V"), Value::Uint(1))];
        if self.back.native && self.head.application_property(NATIVE_END).is_some() {
            application_properties.push((Value::from(NATIVE_END), Value::Uint(1)));
        }
        let head = MessageHead {
            annotations: RouterAnnotations {
                flags: FLAG_STREAMING | FLAG_DISABLE_Q2,
                ingress: Some(own.clone()),
                trace: vec![own],
                ..RouterAnnotations::default()
            },
            properties: Properties {
                to: self.head.properties.reply_to.clone(),
                content_type: Some(Value::from(STREAM_CONTENT_TYPE)),
                ..Properties::default()
            },
            application_properties,
        };
        let mut bytes = BytesMut::with_capacity(192);
        encode_stream_head(&head, &mut bytes);
        {
            let mut st = self.end.st.borrow_mut();
            st.next = Some(self.back.clone());
            st.sending = Sending::Open;
        }
        if self.back.is_open() {
            let shared: End = self.end.clone();
            let out = self.back.borrow().open(bytes.freeze(), &shared);
            self.end.st.borrow_mut().out = out;
        }
    }

    /// No server of this host takes the connection: another router's may.
    fn elsewhere(self) {
        let up = self.end.st.borrow_mut().up.take();
        let Some(up) = up else {
            return self.end.close(true);
        };
        match self.worker.pass_on(self.site, self.link, self.head, up) {
            Ok(to) => self.end.delegate(to),
            Err((up, outcome)) => {
                up.settle(None, outcome);
                self.end.close(false);
            }
        }
    }
}
