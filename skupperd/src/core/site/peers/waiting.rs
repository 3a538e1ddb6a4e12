//! Data connections whose control connections have not come yet.

use super::GROUP_WAIT;
use crate::{
    link::handshake::{Established, RevokedCertificates},
    pki::CertificateIdentity,
    sys::clock,
    telemetry::Failures,
};
use std::time::Instant;

/// Data connections that wait for their control connection, of all peers and of one certificate.
const MAX_WAITING: usize = 256;
pub(super) const MAX_WAITING_OF_PEER: usize = 64;

/// A data connection whose control connection has not come yet.
struct WaitingData {
    since: Instant,
    correlator: String,
    established: Established,
}

/// Data connections, each of which waits for at most [`GROUP_WAIT`].
#[derive(Default)]
pub(super) struct WaitingConnections {
    connections: Vec<WaitingData>,
    /// Those that were closed.
    closed: Failures,
}

impl WaitingConnections {
    /// Keeps a data connection until its control connection comes.
    pub(super) fn add(&mut self, correlator: String, established: Established) {
        let own = |w: &&WaitingData| w.established.identity == established.identity;
        let of_peer = self.connections.iter().filter(own).count();
        if self.connections.len() >= MAX_WAITING || of_peer >= MAX_WAITING_OF_PEER {
            if let Some(suppressed) = self.closed.count_and_report(clock::now()) {
                let peer = established.peer;
                tracing::warn!(%peer, suppressed, "closing a data connection: too many connections wait for their links");
            }
            return;
        }
        self.connections.push(WaitingData {
            since: clock::now(),
            correlator,
            established,
        });
    }

    /// Takes the data connections that wait for a control connection with this certificate.
    pub(super) fn take(
        &mut self,
        correlator: Option<&str>,
        identity: Option<&CertificateIdentity>,
    ) -> Vec<Established> {
        let own = |w: &mut WaitingData| {
            let same = w.established.identity.as_ref() == identity;
            same && Some(w.correlator.as_str()) == correlator
        };
        let taken = self.connections.extract_if(.., own);
        taken.map(|waiting| waiting.established).collect()
    }

    /// Closes data connections that have waited too long.
    pub(super) fn drop_late(&mut self, now: Instant) {
        let closed = &self.closed;
        self.connections.retain(|waiting| {
            let keep = now.saturating_duration_since(waiting.since) < GROUP_WAIT;
            if !keep && let Some(suppressed) = closed.count_and_report(now) {
                let peer = waiting.established.peer;
                let identity = waiting.established.identity.as_ref();
                let subject = identity.map(|i| &i.subject);
                tracing::warn!(
                    %peer,
                    ?subject,
                    suppressed,
                    "closing a data connection without a link of the same certificate"
                );
            }
            keep
        });
    }

    /// Closes those with one of these certificates.
    pub(super) fn refuse(&mut self, refused: &RevokedCertificates) {
        self.connections.retain(|waiting| {
            let identity = waiting.established.identity.as_ref();
            identity.is_none_or(|i| !refused.contains(i))
        });
    }
}
