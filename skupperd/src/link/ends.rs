//! What listeners and connectors do to connections beside carrying them: TLS, a choice of routing
//! keys, a word about the client to the server.

use super::policy::Users;
use crate::pki::{EndClient, EndServer};
use arc_swap::ArcSwap;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Failures of one kind are told of once in this time.
const QUIET: Duration = Duration::from_secs(10);

/// A listener that does more than carry bytes to one routing key.
#[derive(Debug, PartialEq, Eq)]
pub struct Front {
    /// Its routing keys.
    pub keys: Keys,
    /// How it speaks TLS.
    pub tls: Option<Arc<FrontTls>>,
    /// Whom it lets in; none for everybody.
    pub users: Option<Users>,
}

/// Routing keys of a listener.
#[derive(Debug)]
pub enum Keys {
    /// In order of preference.
    Ordered(Vec<Arc<str>>),
    /// With their weights, each at least 1.
    Weighted(Vec<(Arc<str>, u32)>, AtomicU32),
}

impl Keys {
    /// All of them.
    pub fn all(&self) -> Vec<Arc<str>> {
        match self {
            Self::Ordered(keys) => keys.clone(),
            Self::Weighted(keys, _) => keys.iter().map(|(key, _)| key.clone()).collect(),
        }
    }

    /// The key of the next connection, of those for which `usable` holds.
    pub fn next(&self, usable: impl Fn(&str) -> bool) -> Option<Arc<str>> {
        match self {
            Self::Ordered(keys) => keys.iter().find(|key| usable(key)).cloned(),
            Self::Weighted(keys, turn) => {
                let usable: Vec<&(Arc<str>, u32)> =
                    keys.iter().filter(|(key, _)| usable(key)).collect();
                let total: u64 = usable.iter().map(|(_, weight)| u64::from(*weight)).sum();
                // Steps of the golden ratio go round evenly: of any few connections in a row each
                // key gets its share, which chance would give in the long run only.
                let turn = turn.fetch_add(1, Ordering::Relaxed);
                let point = u64::from(turn.wrapping_mul(0x9e37_79b9));
                let mut at = ((u128::from(point) * u128::from(total)) >> 32) as u64;
                for (key, weight) in usable {
                    match at.checked_sub(u64::from(*weight)) {
                        Some(rest) => at = rest,
                        None => return Some(key.clone()),
                    }
                }
                None
            }
        }
    }
}

impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ordered(a), Self::Ordered(b)) => a == b,
            (Self::Weighted(a, _), Self::Weighted(b, _)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Keys {}

/// How a listener speaks TLS.
#[derive(Debug)]
pub struct FrontTls {
    /// For connections from now on.
    pub config: ArcSwap<EndServer>,
    /// Handshakes that failed.
    pub failures: Failures,
}

/// How a connector speaks TLS.
#[derive(Debug)]
pub struct BackTls {
    /// For connections from now on.
    pub config: ArcSwap<EndClient>,
}

macro_rules! same_when_identical {
    ($($name:ident),*) => {$(
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                std::ptr::eq(self, other)
            }
        }

        impl Eq for $name {}
    )*};
}

// Credentials change inside; another one is another end.
same_when_identical!(FrontTls, BackTls);

/// Version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Counts failures, and says when one is to be told of.
#[derive(Debug, Default)]
pub struct Failures {
    count: AtomicU64,
    said: Mutex<Option<(Instant, u64)>>,
}

impl Failures {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts one. Gives, when it is to be told of, how many before it were not.
    pub fn note(&self, now: Instant) -> Option<u64> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match *said {
            Some((at, _)) if now.saturating_duration_since(at) < QUIET => return None,
            Some((_, before)) => before,
            None => 0,
        };
        *said = Some((now, count));
        Some(count - before - 1)
    }
}

/// The last failure of something, until it succeeds.
#[derive(Debug, Default)]
pub struct Trouble {
    /// There is one: successes look no further.
    any: AtomicBool,
    text: Mutex<String>,
}

impl Trouble {
    /// It has failed. True: not in this way so far.
    pub fn failed(&self, why: &str) -> bool {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        self.any.store(true, Ordering::Release);
        if *text == why {
            return false;
        }
        why.clone_into(&mut text);
        true
    }

    /// It has succeeded. True: after a failure.
    pub fn over(&self) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.clear();
        self.any.swap(false, Ordering::AcqRel)
    }

    /// Why it failed; empty when it did not.
    pub fn text(&self) -> String {
        self.text
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Fronts of listeners, as the core knows them and workers find them: by listener, without a lock.
/// Most listeners have none.
#[derive(Clone, Debug, Default)]
pub struct Fronts(Arc<ArcSwap<HashMap<u64, Arc<Front>>>>);

impl Fronts {
    /// That of a listener.
    pub fn get(&self, listener: u64) -> Option<Arc<Front>> {
        let fronts = self.0.load();
        // The common case takes no look-up.
        if fronts.is_empty() {
            return None;
        }
        fronts.get(&listener).cloned()
    }

    /// Gives a listener a front, before it opens.
    pub(super) fn set(&self, listener: u64, front: Arc<Front>) {
        let mut fronts = HashMap::clone(&self.0.load());
        fronts.insert(listener, front);
        self.0.store(Arc::new(fronts));
    }

    /// Forgets the front of a listener.
    pub(super) fn remove(&self, listener: u64) {
        let known = self.0.load();
        if known.contains_key(&listener) {
            let mut fronts = HashMap::clone(&known);
            fronts.remove(&listener);
            self.0.store(Arc::new(fronts));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(keys: &Keys, n: usize, usable: impl Fn(&str) -> bool) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for _ in 0..n {
            let key = keys.next(&usable).unwrap();
            *counts.entry(key.to_string()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn v31_the_first_usable_key_gets_all() {
        let keys = Keys::Ordered(vec!["p".into(), "b".into()]);
        assert_eq!(count(&keys, 9, |_| true), HashMap::from([("p".into(), 9)]));
        assert_eq!(
            count(&keys, 9, |k| k != "p"),
            HashMap::from([("b".into(), 9)])
        );
        assert!(keys.next(|_| false).is_none());
    }

    #[test]
    fn v32_each_usable_key_gets_its_share_of_any_few() {
        let weights = [("a", 3), ("b", 1), ("c", 4)];
        let weights = weights.map(|(key, weight)| (Arc::from(key), weight));
        let keys = Keys::Weighted(weights.to_vec(), AtomicU32::new(0));
        for n in [8, 80, 400] {
            let counts = count(&keys, n, |_| true);
            for (key, weight) in &weights {
                let share = counts[&**key] as f64 / n as f64;
                assert!(
                    (share - f64::from(*weight) / 8.0).abs() <= 1.5 / 8.0,
                    "{counts:?}"
                );
            }
        }
        let counts = count(&keys, 400, |k| k != "c");
        assert!((295..=305).contains(&counts["a"]), "{counts:?}");
        assert!(keys.next(|_| false).is_none());
        let huge = Keys::Weighted(
            vec![("a".into(), u32::MAX), ("b".into(), u32::MAX)],
            AtomicU32::new(0),
        );
        assert!(count(&huge, 100, |_| true)["b"] > 40);
    }

    #[test]
    fn failures_are_counted_and_told_of_now_and_then() {
        let failures = Failures::default();
        let start = Instant::now();
        assert_eq!(failures.note(start), Some(0));
        assert_eq!(failures.note(start + QUIET / 2), None);
        assert_eq!(failures.note(start + QUIET / 2), None);
        assert_eq!(failures.note(start + QUIET), Some(2));
        assert_eq!(failures.count(), 4);
    }

    #[test]
    fn trouble_lasts_until_success() {
        let trouble = Trouble::default();
        assert!(!trouble.over());
        assert!(trouble.failed("a") && !trouble.failed("a") && trouble.failed("b"));
        assert_eq!(trouble.text(), "b");
        assert!(trouble.over() && !trouble.over());
        assert_eq!(trouble.text(), "");
    }
}
