//! What was measured: values by metric, peer and round, their medians, and ratios between peers.

use crate::options::Group;
use std::collections::BTreeMap;

/// Which values are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// What a value says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    pub(crate) group: Group,
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
}

/// All values of a run.
pub(crate) struct Samples {
    /// Their names; skupperd is the first.
    pub(crate) peers: Vec<String>,
    /// In the order of their first values.
    pub(crate) metrics: Vec<Metric>,
    /// By metric, peer and round.
    pub(crate) values: BTreeMap<(usize, usize), BTreeMap<u32, f64>>,
}

/// The median of several rounds, with the lowest and the highest value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) lowest: f64,
    pub(crate) median: f64,
    pub(crate) highest: f64,
}

impl Samples {
    pub(crate) fn new(peers: Vec<String>) -> Self {
        Self {
            peers,
            metrics: Vec::new(),
            values: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, metric: Metric, peer: usize, round: u32, value: f64) {
        let known = self.metrics.iter().position(|known| *known == metric);
        let index = known.unwrap_or(self.metrics.len());
        if known.is_none() {
            self.metrics.push(metric);
        }
        let rounds = self.values.entry((index, peer)).or_default();
        rounds.insert(round, value);
    }

    pub(crate) fn summary(&self, metric: usize, peer: usize) -> Option<Summary> {
        Summary::of(self.values.get(&(metric, peer))?.values().copied())
    }

    /// How much better the first peer is than another, paired by round: above 1 is better.
    pub(crate) fn ratio(&self, metric: usize, other: usize) -> Option<Summary> {
        let better = self.metrics.get(metric)?.better;
        let ours = self.values.get(&(metric, 0))?;
        let theirs = self.values.get(&(metric, other))?;
        let pairs = ours
            .iter()
            .filter_map(|(round, ours)| Some((*ours, *theirs.get(round)?)));
        let ratios = pairs.map(|(ours, theirs)| match better {
            Better::Higher => ours / theirs,
            Better::Lower => theirs / ours,
        });
        // A value of 0 has no ratio.
        Summary::of(ratios.filter(|ratio| ratio.is_finite() && *ratio > 0.0))
    }
}

impl Summary {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let (lowest, highest) = (*values.first()?, *values.last()?);
        let upper = *values.get(middle)?;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(*values.get(middle - 1)?, upper)
        } else {
            upper
        };
        Some(Self {
            lowest,
            median,
            highest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(better: Better) -> Metric {
        Metric {
            group: Group::Pp,
            name: format!("{better:?}"),
            unit: "us",
            better,
        }
    }

    fn samples(better: Better, ours: &[f64], theirs: &[f64]) -> Samples {
        let mut samples = Samples::new(vec!["skupperd".to_owned(), "floor".to_owned()]);
        for (peer, values) in [ours, theirs].into_iter().enumerate() {
            for (round, value) in (0..).zip(values) {
                samples.add(metric(better), peer, round, *value);
            }
        }
        samples
    }

    fn summary(lowest: f64, median: f64, highest: f64) -> Option<Summary> {
        Some(Summary {
            lowest,
            median,
            highest,
        })
    }

    #[test]
    fn ratios_above_one_are_better_whatever_the_unit() {
        let rates = samples(Better::Higher, &[20.0, 30.0], &[10.0, 10.0]);
        assert_eq!(rates.ratio(0, 1), summary(2.0, 2.5, 3.0));
        let times = samples(Better::Lower, &[10.0, 10.0, 10.0], &[30.0, 5.0, 20.0]);
        assert_eq!(times.ratio(0, 1), summary(0.5, 2.0, 3.0));
        assert_eq!(times.summary(0, 1), summary(5.0, 20.0, 30.0));
    }

    #[test]
    fn only_rounds_with_both_values_have_a_ratio() {
        let short = samples(Better::Higher, &[10.0, 90.0], &[10.0]);
        assert_eq!(short.ratio(0, 1), summary(1.0, 1.0, 1.0));
        let none = samples(Better::Lower, &[0.0], &[1.0]);
        assert_eq!(none.ratio(0, 1), None);
        assert_eq!(none.summary(0, 2), None);
    }
}
