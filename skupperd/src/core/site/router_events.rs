//! What the router of a site reports about others: lies, restarts, budgets.

use super::Site;
use crate::{
    link::conn::ConnKey, messages::CloseReason, router::Output, service::failures::Failures,
    sys::clock,
};

/// Reports that peers can cause any number of. Each kind is logged now and then.
#[derive(Debug, Default)]
pub(super) struct RouterReports {
    restarts: Failures,
    ignored: Failures,
    over_budget: Failures,
    /// Messages that are none.
    pub(super) undecodable: Failures,
    /// Control messages that say nothing.
    pub(super) invalid: Failures,
}

impl Site {
    /// Logs what a peer has done, and ends its connection where it alone can have done it.
    pub(super) fn router_report(&mut self, output: Output) {
        let reports = &self.router_reports;
        match output {
            Output::WrongId { link, id } => self.close_impostor(link, &id),
            Output::Restarted { link, id } => {
                if let Some(others) = reports.restarts.note(clock::now()) {
                    let peer = self.peers.get(link).map(|p| p.addr.to_string());
                    let namespace = &self.spec.namespace;
                    tracing::info!(namespace, id, ?peer, others, "router has restarted");
                }
            }
            Output::WrongInstance { link, id } => {
                let what = "ignoring restart of a neighbour that it does not report itself";
                self.warn_ignored(&reports.ignored, link, &id, what);
            }
            Output::OverBudget { link, id } => {
                let what = "ignoring link state or addresses over the budget of a link";
                self.warn_ignored(&reports.over_budget, link, &id, what);
                // What it says of itself nobody else has said.
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
            "closing link: router speaks with another id"
        );
        let reason = CloseReason::WrongRouterId;
        self.peers.close(link, reason, &mut self.effects);
    }

    /// Logs that something of router `id` is ignored that came over this link.
    fn warn_ignored(&self, reports: &Failures, link: ConnKey, id: &str, what: &str) {
        if let Some(others) = reports.note(clock::now()) {
            let peer = self.peers.get(link).map(|p| p.addr.to_string());
            let namespace = &self.spec.namespace;
            tracing::warn!(namespace, id, ?peer, others, "{what}");
        }
    }
}
