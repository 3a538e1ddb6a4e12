//! The record of a connection, as the worker that carries it writes it.

use super::{ConnectionSide, Ending, FlowState, ServerInfo};
use crate::flows::{Exchange, FlowLog, ServiceCounters, ServiceKey, SiteName, StopReason, add};
use jiff::Timestamp;
use std::{
    cell::{Cell, OnceCell},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// A connection at the worker that carries it. Dropping it ends the record.
#[derive(Debug)]
pub struct FlowWriter {
    flow_log: FlowLog,
    worker: usize,
    n: u64,
    flow: Arc<FlowState>,
    service: OnceCell<Arc<ServiceCounters>>,
    ending: Cell<Option<Ending>>,
    finished: Cell<bool>,
}

impl FlowWriter {
    pub(in crate::flows) fn new(
        flow_log: FlowLog,
        worker: usize,
        n: u64,
        flow: Arc<FlowState>,
    ) -> Self {
        Self {
            flow_log,
            worker,
            n,
            flow,
            service: OnceCell::new(),
            ending: Cell::new(None),
            finished: Cell::new(false),
        }
    }

    pub fn id(&self) -> &str {
        &self.flow.id
    }

    /// Counts bytes that were read from the socket.
    pub fn add_read(&self, n: usize) {
        self.add_bytes(&self.flow.read, |s| &s.read, ConnectionSide::Connector, n);
    }

    /// Counts bytes that were written to the socket.
    pub fn add_written(&self, n: usize) {
        self.add_bytes(&self.flow.wrote, |s| &s.wrote, ConnectionSide::Listener, n);
    }

    /// `answers`: the side at which these bytes are the server's.
    fn add_bytes(
        &self,
        cell: &AtomicU64,
        of: fn(&ServiceCounters) -> &AtomicU64,
        answers: ConnectionSide,
        n: usize,
    ) {
        if n == 0 {
            return;
        }
        if self.flow.begin.side == answers && cell.load(Ordering::Relaxed) == 0 {
            self.flow.mark(&self.flow.answered);
        }
        add(cell, n as u64);
        if let Some(service) = self.service.get() {
            add(of(service), n as u64);
        }
    }

    /// Records the routing key that a server is chosen by.
    pub fn set_routing_key(&self, routing_key: &Arc<str>) {
        self.flow
            .with(|detail| detail.routing_key = routing_key.clone());
    }

    pub fn set_server(&self, server: ServerInfo) {
        self.flow.mark(&self.flow.opened);
        let there = server.site.clone();
        let routing_key = self.flow.with(|detail| {
            detail.server = Some(server);
            detail.routing_key.clone()
        });
        self.count(routing_key, there);
        self.flow_log.publish(self.worker, &self.flow);
    }

    fn count(&self, routing_key: Arc<str>, there: SiteName) {
        let key = ServiceKey {
            side: self.flow.begin.side,
            here: self.flow.begin.site.clone(),
            routing_key,
            there,
        };
        if self.service.get().is_none()
            && let Some(service) = self.flow_log.count(self.worker, key)
        {
            add(&service.read, self.flow.read.load(Ordering::Relaxed));
            add(&service.wrote, self.flow.wrote.load(Ordering::Relaxed));
            drop(self.service.set(service));
        }
    }

    /// Records a request that is over.
    pub fn exchanged(&self, exchange: Exchange) {
        self.count_without_server();
        if let Some(service) = self.service.get() {
            service.asked(&exchange);
        }
        add(&self.flow.requests, 1);
        self.flow_log.exchanged(self.worker, &self.flow, exchange);
    }

    /// Records the end of observation.
    pub fn count_unobserved(&self, reason: StopReason) {
        tracing::debug!(
            id = self.flow.id,
            reason = reason.as_str(),
            "stopped observing requests"
        );
        self.flow_log.count_unobserved(reason);
    }

    /// A connection without a server is counted for its routing key alone.
    fn count_without_server(&self) {
        if self.service.get().is_none() {
            let key = self.flow.with(|detail| detail.routing_key.clone());
            self.count(key, SiteName::default());
        }
    }

    /// Records why it ends. The first reason stays.
    pub fn end(&self, ending: Ending) {
        if self.ending.get().is_none() {
            self.ending.set(Some(ending));
        }
    }

    /// The program at the socket of this host has reset it.
    pub fn reset_here(&self) {
        self.end(match self.flow.begin.side {
            ConnectionSide::Listener => Ending::ResetByClient,
            ConnectionSide::Connector => Ending::ResetByServer,
        });
    }

    /// The other end has reset it.
    pub fn reset_there(&self) {
        self.end(match self.flow.begin.side {
            ConnectionSide::Listener => Ending::ResetByServer,
            ConnectionSide::Connector => Ending::ResetByClient,
        });
    }

    pub fn finish(&self) {
        if self.finished.replace(true) {
            return;
        }
        let server = self.flow.with(|detail| detail.server.is_some());
        self.count_without_server();
        let ending = self.ending.get().unwrap_or(match server {
            // Its task was dropped with the worker.
            true => Ending::Removed,
            false => Ending::Refused,
        });
        if let Some(service) = self.service.get() {
            add(&service.closed, 1);
        }
        let end = (Timestamp::now(), self.flow.since.elapsed(), ending);
        self.flow.with(|detail| detail.end = Some(end));
        self.flow_log.end(self.worker, self.n);
    }
}

impl Drop for FlowWriter {
    fn drop(&mut self) {
        self.finish();
    }
}
