//! Users and sites that may use a listener or a connector.

use crate::service::failures::Failures;
use std::borrow::Borrow;

/// Users whose programs a listener admits, by ID. Clients of other hosts have no user.
pub type AllowedUsers = AllowList<u32>;
/// Sites whose clients a connector serves, by name.
pub type AllowedSites = AllowList<String>;

#[derive(Debug)]
pub struct AllowList<T> {
    /// Sorted.
    who: Vec<T>,
    /// Connections that were denied.
    pub denied: Failures,
}

impl<T: Ord> AllowList<T> {
    pub fn new(mut who: Vec<T>) -> Self {
        who.sort_unstable();
        who.dedup();
        let denied = Failures::default();
        Self { who, denied }
    }

    /// Whether a user or site is on the list; `None`, an unknown one, is not.
    pub fn may<Q: Ord + ?Sized>(&self, who: Option<&Q>) -> bool
    where
        T: Borrow<Q>,
    {
        let found = |who: &Q| self.who.binary_search_by(|one| one.borrow().cmp(who));
        who.is_some_and(|who| found(who).is_ok())
    }
}

impl<T: PartialEq> PartialEq for AllowList<T> {
    fn eq(&self, other: &Self) -> bool {
        self.who == other.who
    }
}

impl<T: Eq> Eq for AllowList<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unlisted_and_unknown_clients_are_denied() {
        let users = AllowedUsers::new(vec![1000, 0]);
        assert!(users.may(Some(&0)) && users.may(Some(&1000)));
        assert!(!users.may(Some(&1001)) && !users.may(None));
        let sites = AllowedSites::new(vec!["west".to_owned(), "east".to_owned()]);
        assert!(sites.may(Some("east")) && sites.may(Some("west")));
        assert!(!sites.may(Some("eas")) && !sites.may(Some("")) && !sites.may::<str>(None));
    }
}
