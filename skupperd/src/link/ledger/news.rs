//! Connections and requests for whoever tells others of them as they happen. While nobody does,
//! nothing is kept for it.

use super::{Ledger, Record, RequestRecord, Shelf, flow::Flow, requests::Request};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

/// News that wait at a worker for one listener. Who takes them too slowly gets the newest not at all.
const WAITING: usize = 8192;

/// A connection, to be looked at again.
#[derive(Clone, Debug)]
pub struct Seen(Arc<Flow>);

impl Seen {
    /// What is known of it now.
    pub fn record(&self) -> Record {
        self.0.record()
    }
}

/// Something has happened.
#[derive(Debug)]
pub enum News {
    /// A connection has begun, is served or has ended.
    Connection(Seen),
    /// A request is over.
    Request(Box<RequestRecord>),
}

/// What waits.
#[derive(Debug)]
pub(super) enum Item {
    Connection(Arc<Flow>),
    Request(Arc<Request>),
}

impl Ledger {
    /// Begins or ends to keep news of this source. Gives the connections that are open, of those that
    /// nothing will be said of before they end.
    pub fn listen(&self, source: &Arc<str>, on: bool) -> Vec<Seen> {
        let mut open = Vec::new();
        for worker in 0..self.0.shelves.len() {
            let Some(mut shelf) = self.shelf(worker) else {
                continue;
            };
            if on {
                shelf.news.entry(source.clone()).or_default();
                let own = shelf.live.values().filter(|flow| flow.is_told_by(source));
                open.extend(own.take(WAITING).cloned().map(Seen));
            } else {
                shelf.news.remove(source);
            }
            let any = !shelf.news.is_empty();
            if let Some(listened) = self.0.listened.get(worker) {
                listened.store(any, Ordering::Relaxed);
            }
        }
        open
    }

    /// What has happened since the last time, in order for each connection.
    pub fn news(&self, source: &str) -> Vec<News> {
        let mut all = Vec::new();
        for worker in 0..self.0.shelves.len() {
            let taken = match self.shelf(worker) {
                Some(mut shelf) => shelf.news.get_mut(source).map(std::mem::take),
                None => None,
            };
            all.extend(taken.into_iter().flatten().map(|item| match item {
                Item::Connection(flow) => News::Connection(Seen(flow)),
                Item::Request(request) => News::Request(Box::new(request.record())),
            }));
        }
        all
    }

    /// Something is known of a connection that was not known when it began.
    pub(super) fn known(&self, worker: usize, flow: &Arc<Flow>) {
        let listened = self.0.listened.get(worker);
        if listened.is_some_and(|l| l.load(Ordering::Relaxed))
            && let Some(mut shelf) = self.shelf(worker)
        {
            shelf.tell(flow);
        }
    }
}

impl Shelf {
    pub(super) fn tell(&mut self, flow: &Arc<Flow>) {
        self.push(flow, || Item::Connection(flow.clone()));
    }

    pub(super) fn tell_request(&mut self, request: &Arc<Request>) {
        self.push(&request.flow, || Item::Request(request.clone()));
    }

    fn push(&mut self, flow: &Flow, item: impl FnOnce() -> Item) {
        if self.news.is_empty() {
            return;
        }
        let queue: Option<&mut VecDeque<Item>> = self.news.get_mut(flow.source());
        if let Some(queue) = queue.filter(|queue| queue.len() < WAITING) {
            queue.push_back(item());
        }
    }
}
