//! The budgets of the peers of a site, by who they are.
//!
//! A peer that comes to us is the subject of its certificate, or a user of this host; a peer that we dial
//! is the link. So a peer has one budget, however many connections it has and whatever ids they claim.

use super::identities::CertificateOwner;
use crate::{
    link::{conn::ConnKey, handshake::Established, peer_budget::PeerBudget},
    router::OwnerId,
};
use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Weak},
};

/// Whose budget a connection counts for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum BudgetOwner {
    /// We dialled it, by this link.
    Link(String),
    Certificate(CertificateOwner),
    /// A user of this host.
    User(u32),
    /// Nobody knows whose connection it is.
    Connection(ConnKey),
}

impl BudgetOwner {
    pub(super) fn of(link: Option<&str>, established: &Established, key: ConnKey) -> Self {
        match (link, &established.identity, established.user) {
            (Some(link), ..) => Self::Link(link.to_owned()),
            (None, Some(identity), _) => Self::Certificate(CertificateOwner::of(identity)),
            (None, None, Some(user)) => Self::User(user),
            (None, None, None) => Self::Connection(key),
        }
    }
}

impl fmt::Display for BudgetOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(link) => write!(f, "link {link}"),
            Self::Certificate(
                CertificateOwner::Subject(name) | CertificateOwner::Unnamed(name, _),
            ) => {
                write!(f, "certificate {name}")
            }
            Self::User(user) => write!(f, "user {user}"),
            Self::Connection(key) => write!(f, "connection {key}"),
        }
    }
}

#[derive(Default)]
pub(super) struct PeerBudgets {
    by_owner: HashMap<BudgetOwner, Weak<PeerBudget>>,
    hasher: RandomState,
}

impl PeerBudgets {
    /// The budget of a peer. It is kept while the peer has a connection or a stream.
    pub(super) fn get(&mut self, owner: &BudgetOwner) -> Arc<PeerBudget> {
        if let Some(budget) = self.by_owner.get(owner).and_then(Weak::upgrade) {
            return budget;
        }
        let budget = PeerBudget::new(owner.to_string());
        self.by_owner.insert(owner.clone(), Arc::downgrade(&budget));
        budget
    }

    /// What the router knows a peer by: the same after the peer has connected again.
    pub(super) fn id(&self, owner: &BudgetOwner) -> OwnerId {
        self.hasher.hash_one(owner)
    }

    /// Forgets peers without connections.
    pub(super) fn expire(&mut self) {
        self.by_owner.retain(|_, budget| budget.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{peering::fixtures::established, pki::CertificateIdentity};

    fn identity(subject: &str, serial: &str) -> CertificateIdentity {
        CertificateIdentity {
            serial: serial.into(),
            subject: subject.into(),
            expires: jiff::Timestamp::UNIX_EPOCH,
            authority: "ca".into(),
        }
    }

    #[test]
    fn connections_of_one_subject_share_a_budget_and_others_have_their_own() {
        let mut budgets = PeerBudgets::default();
        let of = |remote: &str, subject: &str, serial: &str| {
            let established = established(remote, Some(identity(subject, serial)));
            BudgetOwner::of(None, &established, 0)
        };
        // Another router id, and another certificate of the subject.
        let (first, second) = (of("a", "mallory", "1"), of("b", "mallory", "2"));
        let budget = budgets.get(&first);
        assert!(Arc::ptr_eq(&budget, &budgets.get(&second)));
        assert_eq!(budgets.id(&first), budgets.id(&second));
        for other in [of("a", "honest", "3"), of("a", "", "1"), of("a", "", "2")] {
            assert!(!Arc::ptr_eq(&budget, &budgets.get(&other)));
            assert_ne!(budgets.id(&first), budgets.id(&other));
        }
        drop(budget);
        budgets.expire();
        assert!(budgets.by_owner.is_empty());
    }

    #[test]
    fn clients_of_a_user_share_a_budget_and_a_link_has_one() {
        let client = |user, key| {
            let established = Established {
                user,
                ..established("client", None)
            };
            BudgetOwner::of(None, &established, key)
        };
        assert_eq!(client(Some(7), 1), client(Some(7), 2));
        assert_ne!(client(Some(7), 1), client(Some(8), 1));
        assert_ne!(client(None, 1), client(None, 2));
        let shown = |serial: &str| established("hub", Some(identity("hub", serial)));
        let link = |serial| BudgetOwner::of(Some("to-hub"), &shown(serial), 1);
        assert_eq!(link("1"), link("2"));
        assert_ne!(link("1"), BudgetOwner::of(None, &shown("1"), 1));
    }
}
