//! Pauses between attempts to dial.

use std::time::Duration;

/// First and longest pause between attempts. Skupper's router waits 2 to 5 s; a link that is back
/// sooner cuts the outage of every service on it.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Doubles with each failure. Each pause is varied by up to 25 % at random, so that sites that lose a
/// peer together do not return together.
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(BACKOFF_MIN)
    }

    pub(super) fn next_pause(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
        pause.mul_f64(0.75 + 0.5 * random_fraction())
    }
}

/// A number from 0 to 1.
fn random_fraction() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let n = RandomState::new().hash_one(0u8);
    (n >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_differ() {
        let mut backoff = Backoff::new();
        let pauses: Vec<Duration> = (0..12).map(|_| backoff.next_pause()).collect();
        let longest = BACKOFF_MAX.mul_f64(1.25);
        assert!(
            pauses
                .iter()
                .all(|p| *p >= BACKOFF_MIN.mul_f64(0.75) && *p <= longest)
        );
        assert!(pauses[0] <= BACKOFF_MIN.mul_f64(1.25));
        assert!(pauses[11] >= BACKOFF_MAX.mul_f64(0.75));
        assert!(pauses.windows(2).any(|p| p[0] != p[1]));
    }
}
