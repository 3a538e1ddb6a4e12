//! Responses that may not have reached their clients.
//!
//! A redemption is counted before its response is sent. When the connection ends in between, its
//! credentials would be lost and the token used up. So the same client gets the same response when it
//! asks again soon; nothing is issued or counted anew.

use super::attempts::counted_address;
use aws_lc_rs::digest::{SHA256, digest};
use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

/// Time in which a client can ask again. A client gives up after 10 s and tries again 2 s later.
const KEPT: Duration = Duration::from_secs(60);

/// What a client asked for, and from where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RedemptionKey {
    address: IpAddr,
    /// Of the grant, the code, and the headers with name and subject.
    digest: [u8; 32],
}

impl RedemptionKey {
    pub(super) fn new(
        address: IpAddr,
        id: &str,
        code: &[u8],
        name: Option<&str>,
        subject: Option<&str>,
    ) -> Self {
        let mut text = Zeroizing::new(Vec::new());
        let headers = [name, subject].map(|part| part.unwrap_or_default().as_bytes());
        for part in [id.as_bytes(), code, headers[0], headers[1]] {
            text.extend((part.len() as u64).to_le_bytes());
            text.extend(part);
        }
        let mut key = Self {
            address: counted_address(address),
            digest: [0; 32],
        };
        key.digest.copy_from_slice(digest(&SHA256, &text).as_ref());
        key
    }
}

struct Response {
    documents: Zeroizing<String>,
    since: Instant,
    /// A connection sends it. Until that ends, no other client gets it: many may have one token.
    in_delivery: bool,
}

/// Responses of the last minute that were not delivered.
#[derive(Default)]
pub(super) struct Undelivered(HashMap<RedemptionKey, Response>);

impl Undelivered {
    pub(super) fn add(&mut self, key: RedemptionKey, documents: &str, now: Instant) {
        let is_recent = |since: Instant| now.saturating_duration_since(since) < KEPT;
        self.0.retain(|_, response| is_recent(response.since));
        let response = Response {
            documents: Zeroizing::new(documents.to_owned()),
            since: now,
            in_delivery: true,
        };
        self.0.insert(key, response);
    }

    /// The response for this client, if it was abandoned. It is in delivery again.
    pub(super) fn find(&mut self, key: &RedemptionKey, now: Instant) -> Option<String> {
        let response = self.0.get_mut(key)?;
        let is_recent = now.saturating_duration_since(response.since) < KEPT;
        let is_free = is_recent && !std::mem::replace(&mut response.in_delivery, true);
        is_free.then(|| response.documents.to_string())
    }

    /// The connection of the response has ended before it was delivered.
    pub(super) fn abandoned(&mut self, key: &RedemptionKey) {
        if let Some(response) = self.0.get_mut(key) {
            response.in_delivery = false;
        }
    }

    pub(super) fn delivered(&mut self, key: &RedemptionKey) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_client_gets_the_same_response_for_a_minute() {
        let (mut all, now) = (Undelivered::default(), Instant::now());
        let here: IpAddr = "192.0.2.1".parse().unwrap();
        let there: IpAddr = "192.0.2.2".parse().unwrap();
        let key = |address, code: &[u8]| RedemptionKey::new(address, "1", code, Some("t"), None);
        all.add(key(here, b"code"), "documents", now);
        // Its connection is open.
        assert_eq!(all.find(&key(here, b"code"), now), None);
        all.abandoned(&key(here, b"code"));
        assert_eq!(
            all.find(&key(here, b"code"), now).as_deref(),
            Some("documents")
        );
        for other in [
            key(there, b"code"),
            key(here, b"other"),
            RedemptionKey::new(here, "1", b"code", None, Some("t")),
            RedemptionKey::new(here, "1c", b"ode", Some("t"), None),
        ] {
            assert_eq!(all.find(&other, now), None);
        }
        all.abandoned(&key(here, b"code"));
        assert_eq!(all.find(&key(here, b"code"), now + KEPT), None);
        all.delivered(&key(here, b"code"));
        assert_eq!(all.find(&key(here, b"code"), now), None);
    }
}
