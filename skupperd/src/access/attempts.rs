//! How often clients may send a wrong code: counts per address and in total, in a window of a minute.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

const WINDOW: Duration = Duration::from_secs(60);
/// Wrong codes from one address in a window, after which it is blocked until the window ends.
const MAX_PER_ADDRESS: u32 = 10;
/// Wrong codes from all addresses in a window, after which the response to each further one is delayed.
const MAX_IN_ALL: u32 = 100;
const DELAY: Duration = Duration::from_secs(1);
/// Addresses that are remembered. Beyond that the oldest are forgotten; the total still counts them.
const MAX_ADDRESSES: usize = 10_000;

/// Wrong codes of the last minute. A right code from an address that did not guess is never delayed.
#[derive(Debug, Default)]
pub(super) struct FailedAttempts {
    by_address: HashMap<IpAddr, (Instant, u32)>,
    all: Option<(Instant, u32)>,
}

/// The address that is counted: an IPv6 host can use every address of its /64.
pub(super) fn counted_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => {
            let network = u128::from(ip) & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl FailedAttempts {
    pub(super) fn is_blocked(&self, address: IpAddr, now: Instant) -> bool {
        self.by_address
            .get(&counted_address(address))
            .is_some_and(|(since, count)| {
                *count >= MAX_PER_ADDRESS && now.saturating_duration_since(*since) < WINDOW
            })
    }

    /// Counts a wrong code. Returns the delay of its response.
    pub(super) fn record(&mut self, address: IpAddr, now: Instant) -> Duration {
        if self.by_address.len() >= MAX_ADDRESSES {
            self.by_address
                .retain(|_, (since, _)| now.saturating_duration_since(*since) < WINDOW);
        }
        if self.by_address.len() >= MAX_ADDRESSES {
            let oldest = self.by_address.iter().min_by_key(|(_, (since, _))| *since);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                self.by_address.remove(&oldest);
            }
        }
        let window = self
            .by_address
            .entry(counted_address(address))
            .or_insert((now, 0));
        count(window, now);
        let all = self.all.get_or_insert((now, 0));
        count(all, now);
        if all.1 > MAX_IN_ALL {
            DELAY
        } else {
            Duration::ZERO
        }
    }
}

fn count(window: &mut (Instant, u32), now: Instant) {
    if now.saturating_duration_since(window.0) >= WINDOW {
        *window = (now, 0);
    }
    window.1 = window.1.saturating_add(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_that_guesses_is_blocked_and_others_are_not() {
        let (mut attempts, begin) = (FailedAttempts::default(), Instant::now());
        let (bad, good) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for _ in 0..MAX_PER_ADDRESS {
            assert!(!attempts.is_blocked(bad, begin));
            attempts.record(bad, begin);
        }
        assert!(attempts.is_blocked(bad, begin));
        assert!(attempts.is_blocked(ip("::ffff:192.0.2.1"), begin));
        assert!(!attempts.is_blocked(good, begin));
        let last = begin + Duration::from_secs(59);
        assert!(attempts.is_blocked(bad, last));
        assert!(!attempts.is_blocked(bad, begin + WINDOW));
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address_and_many_addresses_are_delayed() {
        let (mut attempts, now) = (FailedAttempts::default(), Instant::now());
        for n in 0..MAX_PER_ADDRESS {
            attempts.record(ip(&format!("2001:db8::{n:x}")), now);
        }
        assert!(attempts.is_blocked(ip("2001:db8::ffff"), now));
        assert!(!attempts.is_blocked(ip("2001:db8:0:1::1"), now));
        let delays: Vec<Duration> = (0..=MAX_IN_ALL)
            .map(|n| attempts.record(ip(&format!("10.0.{n}.1")), now))
            .collect();
        assert_eq!(delays.first(), Some(&Duration::ZERO));
        assert_eq!(delays.last(), Some(&DELAY));
    }

    #[test]
    fn the_number_of_remembered_addresses_is_bounded() {
        let (mut attempts, now) = (FailedAttempts::default(), Instant::now());
        for n in 0..MAX_ADDRESSES as u32 + 500 {
            attempts.record(IpAddr::V4((0x0a00_0000 + n).into()), now);
        }
        assert_eq!(attempts.by_address.len(), MAX_ADDRESSES);
    }
}
