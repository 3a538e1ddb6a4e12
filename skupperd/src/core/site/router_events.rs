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
        let (reports, namespace) = (&self.router_reports, &self.spec.namespace);
        match output {
            Output::WrongId { link, id } => self.close_impostor(link, &id),
            Output::Restarted { link, id } => {
                if let Some((suppressed, peer)) = self.report(&reports.restarts, link) {
                    tracing::info!(namespace, id, ?peer, suppressed, "router has restarted");
                }
            }
            Output::WrongInstance { link, id } => {
                if let Some((suppressed, peer)) = self.report(&reports.ignored, link) {
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
                if let Some((suppressed, peer)) = self.report(&reports.over_budget, link) {
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

    /// Counts a report about the peer of a link. Some: it is to be logged, with the number of those that
    /// were not, and the address of the peer.
    fn report(&self, reports: &Failures, link: ConnKey) -> Option<(u64, Option<String>)> {
        let suppressed = reports.count_and_report(clock::now())?;
        let peer = self.peers.get(link).map(|p| p.addr.to_string());
        Some((suppressed, peer))
    }
}
