//! The server's side: from a stream that has come in to a connection to the server.

use super::{
    Cut, Proxy, head, local,
    tcp::{NATIVE_END, Sending, TcpEnd},
};
use crate::{
    amqp::message::{MessageHead, Properties},
    link::{
        conn::{Conn, ConnKey, End, Outcome},
        worker::{Arrived, Worker},
    },
    router::Target,
};
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
            let near = &self.proxy.acceleration;
            match local::connect(near, &self.worker, self.site, &key, target).await {
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
        let Some(view) = self.worker.view(self.site) else {
            return;
        };
        let properties = Properties {
            to: self.head.properties.reply_to.clone(),
            ..Properties::default()
        };
        let native = self.back.native && self.head.application_property(NATIVE_END).is_some();
        let head = head::encode(&view.routes.self_id, properties, native);
        {
            let mut st = self.end.st.borrow_mut();
            st.next = Some(self.back.clone());
            st.sending = Sending::Open;
        }
        if self.back.is_open() {
            let shared: End = self.end.clone();
            let out = self.back.borrow().open(head, &shared);
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
