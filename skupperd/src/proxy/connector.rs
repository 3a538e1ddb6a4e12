//! The server's side: from a stream that has come in to a connection to the server.

use super::{
    Cut, Proxy,
    flow::{self, Flow},
    head,
    local::{self, About},
    tcp::{NATIVE_END, Sending, TcpEnd},
};
use crate::{
    amqp::{
        message::{MessageHead, Properties},
        value::Value,
    },
    link::{
        conn::{Conn, ConnKey, End, Outcome},
        ledger::Served,
        origin::{ALPN, ORIGIN, Origin},
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
        let flow = self.server_flow(worker, site, &head);
        let end = TcpEnd::new(None, self.count(), flow.share());
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
    head: MessageHead,
    back: Rc<Conn>,
    end: Rc<TcpEnd>,
    flow: Flow,
}

impl Server {
    async fn run(self) {
        let key = match self.head.to().map(Target::parse) {
            Some(Target::Mobile(key)) => key.to_owned(),
            _ => return self.end.close(true),
        };
        let mut tried = Vec::new();
        let text = |name| self.head.application_property(name).and_then(Value::as_str);
        let about = About {
            origin: text(ORIGIN).and_then(Origin::parse),
            protocol: text(ALPN).map(str::to_owned),
            site: flow::origin(&self.head),
        };
        while let Some(target) = self.next(&key, &tried) {
            let near = &self.proxy.acceleration;
            match local::connect(near, &self.worker, self.site, &key, target, &about).await {
                Ok((server, in_use)) => {
                    let served = in_use.served(&server);
                    self.end.connected(server);
                    self.proxy
                        .own(target, Rc::downgrade(&self.end) as Weak<dyn Cut>);
                    self.answer(&served);
                    let client = flow::other_end(&self.head);
                    self.flow.served(Served {
                        site: client.site,
                        trace: client.trace,
                        ..served
                    });
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
    fn answer(&self, served: &Served) {
        let Some(view) = self.worker.view(self.site) else {
            return;
        };
        let properties = Properties {
            to: self.head.properties.reply_to.clone(),
            ..Properties::default()
        };
        let native = self.back.native && self.head.application_property(NATIVE_END).is_some();
        let about = native.then(|| flow::about(&view, Some(served)));
        let head = head::encode(
            &view.routes,
            properties,
            native,
            about.into_iter().collect(),
        );
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
