//! How often strangers may guess.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Time in which wrong codes are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Wrong codes from one address in that time, after which it has to wait.
const PER_ADDRESS: u32 = 10;
/// Wrong codes from everywhere in that time, after which each further one is answered late.
const IN_ALL: u32 = 100;
/// How late.
const LATE: Duration = Duration::from_secs(1);
/// Addresses remembered; beyond that the oldest are forgotten, and the total still counts.
const MAX_ADDRESSES: usize = 10_000;

/// Wrong codes of the last minute. A right code from an address that has not guessed is never held up.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    by_address: HashMap<IpAddr, (Instant, u32)>,
    all: Option<(Instant, u32)>,
}

/// An IPv6 host has a whole /64 to come from.
fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => {
            let network = u128::from(ip) & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Attempts {
    /// How long this address has to wait; none when it may try.
    pub(super) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let (since, count) = self.by_address.get(&block(address))?;
        let passed = now.saturating_duration_since(*since);
        let left = WINDOW.checked_sub(passed).filter(|left| !left.is_zero())?;
        (*count >= PER_ADDRESS).then_some(left)
    }

    /// Counts a wrong code; gives how long its answer is held back.
    pub(super) fn wrong(&mut self, address: IpAddr, now: Instant) -> Duration {
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
        let place = self.by_address.entry(block(address)).or_insert((now, 0));
        count(place, now);
        let all = self.all.get_or_insert((now, 0));
        count(all, now);
        if all.1 > IN_ALL { LATE } else { Duration::ZERO }
    }
}

fn count(place: &mut (Instant, u32), now: Instant) {
    if now.saturating_duration_since(place.0) >= WINDOW {
        *place = (now, 0);
    }
    place.1 = place.1.saturating_add(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_that_guesses_waits_and_others_do_not() {
        let (mut attempts, begin) = (Attempts::default(), Instant::now());
        let (bad, good) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for _ in 0..PER_ADDRESS {
            assert_eq!(attempts.wait(bad, begin), None);
            attempts.wrong(bad, begin);
        }
        assert_eq!(attempts.wait(bad, begin), Some(WINDOW));
        assert_eq!(attempts.wait(ip("::ffff:192.0.2.1"), begin), Some(WINDOW));
        assert_eq!(attempts.wait(good, begin), None);
        assert_eq!(attempts.wait(bad, begin + WINDOW), None);
    }

    #[test]
    fn a_network_of_ipv6_is_one_guesser_and_many_guessers_are_slowed() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for n in 0..PER_ADDRESS {
            attempts.wrong(ip(&format!("2001:db8::{n:x}")), now);
        }
        assert!(attempts.wait(ip("2001:db8::ffff"), now).is_some());
        assert!(attempts.wait(ip("2001:db8:0:1::1"), now).is_none());
        let late: Vec<Duration> = (0..=IN_ALL)
            .map(|n| attempts.wrong(ip(&format!("10.0.{n}.1")), now))
            .collect();
        assert_eq!(late.first(), Some(&Duration::ZERO));
        assert_eq!(late.last(), Some(&LATE));
    }

    #[test]
    fn memory_of_guessers_is_bounded() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for n in 0..MAX_ADDRESSES as u32 + 500 {
            attempts.wrong(IpAddr::V4((0x0a00_0000 + n).into()), now);
        }
        assert_eq!(attempts.by_address.len(), MAX_ADDRESSES);
    }
}
