//! Latencies of a measurement.

use std::time::Duration;

/// All latencies, sorted. In nanoseconds; longer than 4 s counts as 4 s.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    pub(super) fn new(mut all: Vec<u32>) -> Self {
        all.sort_unstable();
        Self(all)
    }

    pub(super) fn encode(latency: Duration) -> u32 {
        u32::try_from(latency.as_nanos()).unwrap_or(u32::MAX)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The latency in microseconds that this part of all does not exceed.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let rank = (self.0.len() as f64 * part).ceil() as usize;
        let index = rank.saturating_sub(1);
        self.0.get(index).map_or(0.0, |ns| f64::from(*ns) / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_latencies() {
        let latencies = Latencies::new((1..=100).rev().map(|us| us * 1000).collect());
        let quantiles = [0.0, 0.5, 0.99, 1.0].map(|part| latencies.quantile(part));
        assert_eq!(format!("{quantiles:?}"), "[1.0, 50.0, 99.0, 100.0]");
        assert_eq!(Latencies::encode(Duration::from_secs(5)), u32::MAX);
    }
}
