//! Which of its routing keys a listener uses for the next connection.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

#[derive(Debug)]
pub enum RoutingKeys {
    /// In order of preference.
    Ordered(Vec<Arc<str>>),
    /// With their weights, each at least 1.
    Weighted(Vec<(Arc<str>, u32)>, AtomicU32),
}

impl RoutingKeys {
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

impl PartialEq for RoutingKeys {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ordered(a), Self::Ordered(b)) => a == b,
            (Self::Weighted(a, _), Self::Weighted(b, _)) => a == b,
            _ => false,
        }
    }
}

impl Eq for RoutingKeys {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn count(
        keys: &RoutingKeys,
        n: usize,
        usable: impl Fn(&str) -> bool,
    ) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for _ in 0..n {
            let key = keys.next(&usable).unwrap();
            *counts.entry(key.to_string()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn the_first_usable_key_gets_all_connections() {
        let keys = RoutingKeys::Ordered(vec!["p".into(), "b".into()]);
        assert_eq!(count(&keys, 9, |_| true), HashMap::from([("p".into(), 9)]));
        assert_eq!(
            count(&keys, 9, |k| k != "p"),
            HashMap::from([("b".into(), 9)])
        );
        assert!(keys.next(|_| false).is_none());
    }

    #[test]
    fn each_usable_key_gets_its_share_of_connections() {
        let weights = [("a", 3), ("b", 1), ("c", 4)];
        let weights = weights.map(|(key, weight)| (Arc::from(key), weight));
        let keys = RoutingKeys::Weighted(weights.to_vec(), AtomicU32::new(0));
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
        let huge = RoutingKeys::Weighted(
            vec![("a".into(), u32::MAX), ("b".into(), u32::MAX)],
            AtomicU32::new(0),
        );
        assert!(count(&huge, 100, |_| true)["b"] > 40);
    }
}
