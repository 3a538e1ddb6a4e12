//! Owners of the ids of routers and edges: the certificate that the first connection presented.
//!
//! A connection with another certificate and the same id is refused while that one lives, and for a minute
//! afterwards, in which its owner comes back. Certificates of one subject count as one, so that their
//! owner can renew them: a trusted CA has verified the subject.
//!
//! Links that this site dials and links that it accepts have separate owners: two sites may link to each other,
//! and then each shows the other a server's certificate on one link and a client's on the other, with
//! nothing in common. With one owner for both, each of them could keep the id for the link that it dials
//! and refuse the other's for ever.

use crate::{pki::CertificateIdentity, telemetry::Failures};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How long an id stays with its owner after its last connection.
const GRACE: Duration = Duration::from_secs(60);
/// Ids without a connection that are kept for one owner.
const MAX_IDLE_IDS: usize = 64;

/// Whose certificate it is. Certificates of one subject are one peer's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum CertificateOwner {
    Subject(String),
    /// Without a subject: serial number and CA.
    Unnamed(String, String),
}

impl CertificateOwner {
    pub(super) fn of(identity: &CertificateIdentity) -> Self {
        match identity.subject.is_empty() {
            true => Self::Unnamed(identity.serial.clone(), identity.authority.clone()),
            false => Self::Subject(identity.subject.clone()),
        }
    }
}

/// A peer that has shown a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IdOwner {
    /// The peer came to us with a certificate.
    Accepted(CertificateOwner),
    /// We dialled it, by this link, and it has shown a certificate with this subject of this CA.
    Dialled {
        link: String,
        subject: String,
        authority: String,
    },
    /// No certificate: only of tests, which have no TLS.
    Anonymous,
}

impl IdOwner {
    fn is_dialled(&self) -> bool {
        matches!(self, Self::Dialled { .. })
    }

    pub(super) fn of(link: Option<&str>, identity: Option<&CertificateIdentity>) -> Self {
        match (link, identity) {
            (Some(link), identity) => Self::Dialled {
                link: link.to_owned(),
                subject: identity.map(|i| i.subject.clone()).unwrap_or_default(),
                authority: identity.map(|i| i.authority.clone()).unwrap_or_default(),
            },
            (None, None) => Self::Anonymous,
            (None, Some(identity)) => Self::Accepted(CertificateOwner::of(identity)),
        }
    }
}

impl IdOwner {
    /// Dialled, a site is the same over the same link, with whatever certificate its CA gives it, and
    /// over another link with the same certificate.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Dialled {
                    link,
                    subject,
                    authority,
                },
                Self::Dialled {
                    link: other_link,
                    subject: other_subject,
                    authority: other_authority,
                },
            ) => {
                let certificate = (subject, authority) == (other_subject, other_authority);
                link == other_link || (certificate && !authority.is_empty())
            }
            _ => self == other,
        }
    }
}

#[derive(Debug)]
struct IdClaim {
    owner: IdOwner,
    connections: usize,
    /// Since when there is none.
    free_since: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct IdOwners {
    /// By id, and whether this site dialled.
    by_id: HashMap<(String, bool), IdClaim>,
    refusals: Failures,
}

impl IdOwners {
    /// Counts a connection with this id. Returns false if the id has another owner.
    pub(super) fn claim(&mut self, id: &str, owner: IdOwner, now: Instant) -> bool {
        let key = (id.to_owned(), owner.is_dialled());
        if let Some(claimed) = self.by_id.get_mut(&key) {
            let is_held = claimed.free_since.is_none_or(|since| now < since + GRACE);
            if claimed.owner.is_same(&owner) {
                claimed.connections += 1;
                claimed.free_since = None;
                return true;
            }
            if is_held {
                return false;
            }
        }
        let claimed = IdClaim {
            owner,
            connections: 1,
            free_since: None,
        };
        self.by_id.insert(key, claimed);
        true
    }

    /// A connection that was counted has ended.
    pub(super) fn release(&mut self, id: &str, owner: &IdOwner, now: Instant) {
        let key = (id.to_owned(), owner.is_dialled());
        let claimed = self.by_id.get_mut(&key);
        let Some(claimed) = claimed.filter(|h| h.owner.is_same(owner)) else {
            return;
        };
        claimed.connections = claimed.connections.saturating_sub(1);
        if claimed.connections > 0 {
            return;
        }
        claimed.free_since = Some(now);
        let held = self.by_id.iter().filter(|(_, h)| h.owner.is_same(owner));
        let held: Vec<(Instant, &(String, bool))> = held
            .filter_map(|(id, h)| Some((h.free_since?, id)))
            .collect();
        if held.len() > MAX_IDLE_IDS
            && let Some(oldest) = held.into_iter().min().map(|(_, id)| id.clone())
        {
            self.by_id.remove(&oldest);
        }
    }

    /// The owner leaves the id for good: if it has no other connection, the id is free at once.
    pub(super) fn give_up(&mut self, id: &str, owner: &IdOwner) {
        let key = (id.to_owned(), owner.is_dialled());
        let is_free = |h: &IdClaim| h.connections == 0 && h.owner.is_same(owner);
        if self.by_id.get(&key).is_some_and(is_free) {
            self.by_id.remove(&key);
        }
    }

    /// Forgets ids that have been without a connection for long enough.
    pub(super) fn expire(&mut self, now: Instant) {
        self.by_id
            .retain(|_, h| h.free_since.is_none_or(|since| now < since + GRACE));
    }

    /// Counts a refusal. Returns the number of unlogged ones before it if the caller must log this one.
    pub(super) fn note_refusal(&self, now: Instant) -> Option<u64> {
        self.refusals.count_and_report(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(subject: &str) -> IdOwner {
        IdOwner::Accepted(CertificateOwner::Subject(subject.to_owned()))
    }

    #[test]
    fn an_id_belongs_to_its_first_certificate_for_a_minute_after_its_last_connection() {
        let (mut owners, start) = (IdOwners::default(), Instant::now());
        assert!(owners.claim("edge", owner("victim"), start));
        assert!(!owners.claim("edge", owner("mallory"), start));
        // A second connection, with a renewed certificate.
        assert!(owners.claim("edge", owner("victim"), start));
        owners.release("edge", &owner("victim"), start);
        assert!(!owners.claim("edge", owner("mallory"), start + GRACE * 2));
        let end = start + GRACE * 2;
        owners.release("edge", &owner("victim"), end);
        assert!(!owners.claim("edge", owner("mallory"), end + GRACE / 2));
        owners.expire(end + GRACE / 2);
        assert!(owners.claim("edge", owner("victim"), end + GRACE / 2));
        owners.release("edge", &owner("victim"), end + GRACE / 2);
        assert!(owners.claim("edge", owner("mallory"), end + GRACE * 2));
    }

    #[test]
    fn an_id_that_its_owner_gives_up_is_free_at_once() {
        let (mut owners, now) = (IdOwners::default(), Instant::now());
        assert!(owners.claim("site", owner("first"), now));
        assert!(owners.claim("site", owner("first"), now));
        owners.release("site", &owner("first"), now);
        owners.give_up("site", &owner("first"));
        assert!(!owners.claim("site", owner("second"), now));
        owners.release("site", &owner("first"), now);
        owners.give_up("site", &owner("second"));
        assert!(!owners.claim("site", owner("second"), now));
        owners.give_up("site", &owner("first"));
        assert!(owners.claim("site", owner("second"), now));
    }

    #[test]
    fn links_that_we_dial_and_links_that_come_are_kept_apart() {
        let identity = CertificateIdentity {
            serial: "1".into(),
            subject: "s".into(),
            expires: jiff::Timestamp::UNIX_EPOCH,
            authority: "a".into(),
        };
        let dialled = IdOwner::of(Some("to-hub"), Some(&identity));
        let accepted = IdOwner::of(None, Some(&identity));
        let (mut owners, now) = (IdOwners::default(), Instant::now());
        assert!(owners.claim("hub", dialled.clone(), now));
        // The same site links to us as well, with a certificate that our CA issued.
        assert!(owners.claim("hub", accepted.clone(), now));
        assert!(!owners.claim("hub", owner("mallory"), now));
        assert!(owners.claim("hub", dialled, now));
        owners.release("hub", &accepted, now);
        assert!(!owners.claim("hub", owner("mallory"), now));
        // A second link to the same site; a second site that says it is the first.
        assert!(owners.claim("hub", IdOwner::of(Some("spare"), Some(&identity)), now));
        let other = CertificateIdentity {
            authority: "b".into(),
            ..identity
        };
        assert!(!owners.claim("hub", IdOwner::of(Some("to-mallory"), Some(&other)), now));
        assert!(owners.claim("hub", IdOwner::of(Some("to-hub"), Some(&other)), now));
    }

    #[test]
    fn ids_that_one_owner_has_left_are_bounded() {
        let (mut owners, start) = (IdOwners::default(), Instant::now());
        for n in 0..1000 {
            let (id, now) = (format!("id{n}"), start + Duration::from_millis(n));
            assert!(owners.claim(&id, owner("mallory"), now));
            owners.release(&id, &owner("mallory"), now);
        }
        assert_eq!(owners.by_id.len(), MAX_IDLE_IDS);
        owners.expire(start + GRACE * 2);
        assert!(owners.by_id.is_empty());
    }
}
