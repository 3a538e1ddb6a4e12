//! Observed requests: the newest of them, and counters for each service.

use super::{
    ConnectionRecord, Exchange, FlowFilter, FlowLog, Query, ServiceCounters, StopReason,
    WorkerFlows, connection::FlowState,
};
use jiff::Timestamp;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Requests that each worker remembers.
const REQUESTS: usize = 1000;

/// What requests of a service are counted by: protocol, method, and the first digit of the status,
/// which is 0 where there was none. Skupper counts by the same, and there are a few hundred of them
/// at most, whatever clients ask for.
pub type RequestKey = (&'static str, &'static str, u16);

/// A request, for its receivers.
#[derive(Debug)]
pub(super) struct ObservedRequest {
    pub(super) n: u64,
    pub(super) flow: Arc<FlowState>,
    exchange: Exchange,
    end: Timestamp,
}

/// What is known of a request that is over.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    pub id: String,
    pub connection: ConnectionRecord,
    /// What was seen of it.
    pub exchange: Exchange,
    pub start: Timestamp,
    pub end: Timestamp,
}

impl ObservedRequest {
    pub(super) fn record(&self) -> RequestRecord {
        RequestRecord {
            id: self.flow.identity(self.n),
            connection: self.flow.record(),
            start: self.end - self.exchange.duration,
            end: self.end,
            exchange: self.exchange.clone(),
        }
    }
}

/// Connections that were not observed to their end, by the reason.
#[derive(Debug, Default)]
pub(super) struct UnobservedCounts([AtomicU64; StopReason::ALL.len()]);

impl FlowLog {
    /// The newest requests that are over, newest first. All of a connection that is of the namespace
    /// and in the state that is asked for.
    pub fn requests(&self, query: &Query) -> Vec<RequestRecord> {
        let mut newest: Vec<Arc<ObservedRequest>> = Vec::new();
        for worker in 0..self.0.by_worker.len() {
            let Some(worker_flows) = self.worker_flows(worker) else {
                continue;
            };
            let wanted = |request: &&Arc<ObservedRequest>| {
                let namespace = query.namespace.as_ref();
                let state = match query.filter {
                    FlowFilter::All => true,
                    FlowFilter::Active => !request.flow.has_ended(),
                    FlowFilter::Terminated => request.flow.has_ended(),
                };
                state && namespace.is_none_or(|namespace| request.flow.is_of(namespace))
            };
            let requests = worker_flows.requests.iter().rev().filter(wanted);
            newest.extend(requests.take(query.limit).cloned());
        }
        newest.sort_by(|a, b| b.end.cmp(&a.end).then_with(|| b.n.cmp(&a.n)));
        newest.truncate(query.limit);
        newest.iter().map(|request| request.record()).collect()
    }

    /// A connection is not observed any further.
    pub(super) fn count_unobserved(&self, reason: StopReason) {
        self.0.unobserved.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was, by the reason.
    pub fn unobserved_totals(&self) -> [(StopReason, u64); StopReason::ALL.len()] {
        StopReason::ALL.map(|reason| {
            (
                reason,
                self.0.unobserved.0[reason as usize].load(Ordering::Relaxed),
            )
        })
    }

    /// A request of a connection is over.
    pub(super) fn exchanged(&self, worker: usize, flow: &Arc<FlowState>, exchange: Exchange) {
        let Some(mut worker_flows) = self.worker_flows(worker) else {
            return;
        };
        let n = self.number(worker, &mut worker_flows);
        let request = Arc::new(ObservedRequest {
            n,
            flow: flow.clone(),
            exchange,
            end: Timestamp::now(),
        });
        worker_flows.remember(request);
    }
}

impl WorkerFlows {
    fn remember(&mut self, request: Arc<ObservedRequest>) {
        self.notify_request(&request);
        if self.requests.len() >= REQUESTS {
            self.requests.pop_front();
        }
        self.requests.push_back(request);
    }
}

impl ServiceCounters {
    /// A request is over.
    pub(super) fn asked(&self, exchange: &Exchange) {
        let class = exchange.status.map_or(0, |status| status / 100);
        let key = (exchange.protocol.as_str(), exchange.method, class);
        let mut counts = self.requests.lock();
        *counts.entry(key).or_default() += 1;
    }

    /// Adds its requests to those of others.
    pub(super) fn add_requests(&self, to: &mut BTreeMap<RequestKey, u64>) {
        for (key, n) in &*self.requests.lock() {
            *to.entry(*key).or_default() += n;
        }
    }
}
