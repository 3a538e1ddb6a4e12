//! Who may use a listener or a connector, where not everybody may.

use super::ends::Failures;
use std::time::Instant;

/// Users whose programs a listener lets in. Those of this host only: nobody else has a user here.
#[derive(Debug)]
pub struct Users {
    /// By number, in order.
    pub allowed: Vec<u32>,
    /// Clients that were denied.
    pub denied: Failures,
}

impl Users {
    /// These.
    pub fn new(mut allowed: Vec<u32>) -> Self {
        allowed.sort_unstable();
        allowed.dedup();
        let denied = Failures::default();
        Self { allowed, denied }
    }

    /// Whether a client of this user is let in.
    pub fn lets_in(&self, user: Option<u32>) -> bool {
        user.is_some_and(|user| self.allowed.binary_search(&user).is_ok())
    }
}

impl PartialEq for Users {
    fn eq(&self, other: &Self) -> bool {
        self.allowed == other.allowed
    }
}

impl Eq for Users {}

/// Sites whose clients a connector serves.
#[derive(Debug)]
pub struct Sites {
    /// By name, in order.
    pub allowed: Vec<String>,
    /// Connections that were denied.
    pub denied: Failures,
}

impl Sites {
    /// These.
    pub fn new(mut allowed: Vec<String>) -> Self {
        allowed.sort_unstable();
        allowed.dedup();
        let denied = Failures::default();
        Self { allowed, denied }
    }

    /// Whether clients of this site are served.
    pub fn serve(&self, site: Option<&str>) -> bool {
        site.is_some_and(|site| self.allowed.iter().any(|allowed| allowed == site))
    }

    /// Notes one that is denied. Gives, when it is to be told of, how many before it were not.
    pub fn deny(&self) -> Option<u64> {
        self.denied.note(Instant::now())
    }
}

impl PartialEq for Sites {
    fn eq(&self, other: &Self) -> bool {
        self.allowed == other.allowed
    }
}

impl Eq for Sites {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r18_who_is_not_named_and_who_is_not_known_is_denied() {
        let users = Users::new(vec![1000, 0]);
        assert!(users.lets_in(Some(0)) && users.lets_in(Some(1000)));
        assert!(!users.lets_in(Some(1001)) && !users.lets_in(None));
        let sites = Sites::new(vec!["west".to_owned(), "east".to_owned()]);
        assert!(sites.serve(Some("east")) && sites.serve(Some("west")));
        assert!(!sites.serve(Some("eas")) && !sites.serve(Some("")) && !sites.serve(None));
    }
}
