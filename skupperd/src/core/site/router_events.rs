//! Reports of the router about other routers: wrong ids, restarts, exceeded budgets.

use super::Site;
use crate::{
    link::conn::ConnKey, messages::CloseReason, router::Output, sys::clock, telemetry::Failures,
};

/// Reports that peers can cause any number of. Each kind is logged now and then.
#[derive(Debug, Default)]
pub(super) struct RouterReports {
    restarts: Failures,
    ignored: Failures,
    over_budget: Failures,
    /// Messages that cannot be decoded.
    pub(super) undecodable: Failures,
    /// Control messages with invalid fields.
    pub(super) invalid: Failures,
}

impl Site {
    /// Logs what a peer has done, and ends its connection where it alone can have done it.
    pub(super) fn router_report(&mut self, output: Output) {
        let reports = &self.router_reports;
        match output {
            Output::WrongId { link, id } => self.close_impostor(link, &id),
            Output::Restarted { link, id } => {
                if let Some(suppressed) = reports.restarts.count_and_report(clock::now()) {
                    let (namespace, peer) = (&self.spec.namespace, self.peer_address(link));
                    tracing::info!(namespace, id, ?peer, suppressed, "router has restarted");
                }
            }
            Output::WrongInstance { link, id } => {
                if let Some(suppressed) = reports.ignored.count_and_report(clock::now()) {
                    let (namespace, peer) = (&self.spec.namespace, self.peer_address(link));
                    tracing::warn!(
                        namespace,
                        id,
                        ?peer,
                        suppressed,
                        "ignoring restart of a neighbour that it does not report itself"
                    );
                }
            }
            Output::OverBudget { link, id } => {
                if let Some(suppressed) = reports.over_budget.count_and_report(clock::now()) {
                    let (namespace, peer) = (&self.spec.namespace, self.peer_address(link));
                    tracing::warn!(
                        namespace,
                        id,
                        ?peer,
                        suppressed,
                        "ignoring link state or addresses over the budget of a link"
                    );
                }
                // Only the peer itself can have sent its own link state.
                if self.peers.get(link).is_some_and(|p| p.remote == id) {
                    let reason = CloseReason::OverBudget;
                    self.peers.close(link, reason, &mut self.effects);
                }
            }
            _ => {}
        }
    }

    fn close_impostor(&mut self, link: ConnKey, id: &str) {
        let Some(peer) = self.peers.get(link).filter(|p| !p.retired) else {
            return;
        };
        tracing::warn!(
            namespace = self.spec.namespace,
            remote = peer.remote,
            id,
            peer = %peer.addr,
            "closing link: HELLO has another router id"
        );
        let reason = CloseReason::WrongRouterId;
        self.peers.close(link, reason, &mut self.effects);
    }

    /// Address of the peer of a link.
    fn peer_address(&self, link: ConnKey) -> Option<String> {
        self.peers.get(link).map(|p| p.addr.to_string())
    }
}
