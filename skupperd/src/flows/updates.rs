//! Queues changes of connections and requests for vanflow emitters, while they listen.

use super::{
    ConnectionRecord, FlowLog, RequestRecord, WorkerFlows, connection::FlowState,
    requests::ObservedRequest,
};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

/// Most updates that a worker queues for one emitter. Later ones are dropped.
const WAITING: usize = 8192;

/// A connection whose record can be read later.
#[derive(Clone, Debug)]
pub struct ObservedFlow(Arc<FlowState>);

impl ObservedFlow {
    pub fn record(&self) -> ConnectionRecord {
        self.0.record()
    }
}

#[derive(Debug)]
pub enum FlowUpdate {
    /// A connection has begun, was connected to a server, or has ended.
    Connection(ObservedFlow),
    Request(Box<RequestRecord>),
}

#[derive(Debug)]
pub(super) enum QueuedUpdate {
    Connection(Arc<FlowState>),
    Request(Arc<ObservedRequest>),
}

impl FlowLog {
    /// Starts or stops queueing updates of this source. Returns its open connections.
    pub fn listen(&self, source: &Arc<str>, on: bool) -> Vec<ObservedFlow> {
        let mut open = Vec::new();
        for worker in 0..self.0.by_worker.len() {
            let Some(mut worker_flows) = self.worker_flows(worker) else {
                continue;
            };
            if on {
                worker_flows.news.entry(source.clone()).or_default();
                let own = worker_flows
                    .live
                    .values()
                    .filter(|flow| flow.is_of_source(source));
                open.extend(own.take(WAITING).cloned().map(ObservedFlow));
            } else {
                worker_flows.news.remove(source);
            }
            let any = !worker_flows.news.is_empty();
            if let Some(listened) = self.0.listened.get(worker) {
                listened.store(any, Ordering::Relaxed);
            }
        }
        open
    }

    /// Takes the queued news, in order for each connection.
    pub fn take_updates(&self, source: &str) -> Vec<FlowUpdate> {
        let mut all = Vec::new();
        for worker in 0..self.0.by_worker.len() {
            let taken = match self.worker_flows(worker) {
                Some(mut worker_flows) => worker_flows.news.get_mut(source).map(std::mem::take),
                None => None,
            };
            all.extend(taken.into_iter().flatten().map(|item| match item {
                QueuedUpdate::Connection(flow) => FlowUpdate::Connection(ObservedFlow(flow)),
                QueuedUpdate::Request(request) => FlowUpdate::Request(Box::new(request.record())),
            }));
        }
        all
    }

    /// Queues a connection whose record has changed.
    pub(super) fn publish(&self, worker: usize, flow: &Arc<FlowState>) {
        let listened = self.0.listened.get(worker);
        if listened.is_some_and(|l| l.load(Ordering::Relaxed))
            && let Some(mut worker_flows) = self.worker_flows(worker)
        {
            worker_flows.notify(flow);
        }
    }
}

impl WorkerFlows {
    pub(super) fn notify(&mut self, flow: &Arc<FlowState>) {
        self.push(flow, || QueuedUpdate::Connection(flow.clone()));
    }

    pub(super) fn notify_request(&mut self, request: &Arc<ObservedRequest>) {
        self.push(&request.flow, || QueuedUpdate::Request(request.clone()));
    }

    fn push(&mut self, flow: &FlowState, item: impl FnOnce() -> QueuedUpdate) {
        if self.news.is_empty() {
            return;
        }
        let queue: Option<&mut VecDeque<QueuedUpdate>> = self.news.get_mut(flow.source());
        if let Some(queue) = queue.filter(|queue| queue.len() < WAITING) {
            queue.push_back(item());
        }
    }
}
