//! Users and sites that may use a listener or a connector.

use crate::telemetry::Failures;
use std::borrow::Borrow;

/// Users whose programs a listener admits, by ID. Clients of other hosts have no user.
pub type AllowedUsers = AllowList<u32>;
/// Sites whose clients a connector serves, by name.
pub type AllowedSites = AllowList<String>;

#[derive(Debug)]
pub struct AllowList<T> {
    /// Sorted.
    names: Vec<T>,
    /// Connections that were denied.
    pub denied: Failures,
}

impl<T: Ord> AllowList<T> {
    pub fn new(mut names: Vec<T>) -> Self {
        names.sort_unstable();
        names.dedup();
        let denied = Failures::default();
        Self { names, denied }
    }

    /// Whether a user or site is on the list; `None`, an unknown one, is not.
    pub fn allows<Q: Ord + ?Sized>(&self, name: Option<&Q>) -> bool
    where
        T: Borrow<Q>,
    {
        let found = |name: &Q| self.names.binary_search_by(|one| one.borrow().cmp(name));
        name.is_some_and(|name| found(name).is_ok())
    }
}

impl<T: PartialEq> PartialEq for AllowList<T> {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names
    }
}

impl<T: Eq> Eq for AllowList<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unlisted_and_unknown_clients_are_denied() {
        let users = AllowedUsers::new(vec![1000, 0]);
        assert!(users.allows(Some(&0)) && users.allows(Some(&1000)));
        assert!(!users.allows(Some(&1001)) && !users.allows(None));
        let sites = AllowedSites::new(vec!["west".to_owned(), "east".to_owned()]);
        assert!(sites.allows(Some("east")) && sites.allows(Some("west")));
        assert!(
            !sites.allows(Some("eas")) && !sites.allows(Some("")) && !sites.allows::<str>(None)
        );
    }
}
