//! Test counts from the output of the runners.

use std::{fmt, ops::Add};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
}

impl Counts {
    /// Reads nextest's line `Summary [ 1.2s] 9 tests run: 7 passed (1 slow), 2 failed, 3 skipped`.
    pub(super) fn of_nextest(line: &str) -> Option<Self> {
        let (_, rest) = line
            .trim_start()
            .strip_prefix("Summary [")?
            .split_once(']')?;
        let (run, results) = rest.split_once(" run:")?;
        let mut counts = Self::default();
        for (number, word) in results_of(results) {
            match word {
                "passed" => counts.passed += number,
                "skipped" => counts.skipped += number,
                // Failed, timed out, or not started.
                _ => counts.failed += number,
            }
        }
        // `3/9 tests`: interrupted.
        let run = run.split_whitespace().next()?;
        if let Some((done, all)) = run.split_once('/') {
            counts.failed += all.parse::<usize>().ok()?.checked_sub(done.parse().ok()?)?;
        }
        Some(counts)
    }

    /// Moves tests that skipped themselves from passed to skipped.
    pub(super) fn skip_of_passed(&mut self, number: usize) {
        let number = number.min(self.passed);
        self.passed -= number;
        self.skipped += number;
    }
}

/// The numbers and the words after them in `7 passed (1 slow), 2 failed`.
fn results_of(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut depth = 0usize;
    let parts = text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.filter_map(|part| {
        let mut words = part.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?))
    })
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    fn counts(passed: usize, failed: usize, skipped: usize) -> Option<Counts> {
        Some(Counts {
            passed,
            failed,
            skipped,
        })
    }

    #[test]
    fn reads_nextest() {
        let of = Counts::of_nextest;
        let line = "     Summary [   0.022s] 6 tests run: 6 passed, 0 skipped";
        assert_eq!(of(line), counts(6, 0, 0));
        let line = "Summary [ 12.0s] 9 tests run: 6 passed (1 slow, 2 leaky), 2 failed, \
            1 timed out, 3 skipped";
        assert_eq!(of(line), counts(6, 3, 3));
        assert_eq!(
            of("Summary [ 1.2s] 1 test run: 1 exec failed, 0 skipped"),
            counts(0, 1, 0)
        );
        assert_eq!(
            of("Summary [ 1.2s] 3/9 tests run: 3 passed, 0 skipped"),
            counts(3, 6, 0)
        );
        assert_eq!(of("    Starting 6 tests across 2 binaries"), None);
        assert_eq!(of("Summary of what was done"), None);
    }

    #[test]
    fn a_test_that_skipped_itself_has_not_passed() {
        let mut counts = Counts {
            passed: 5,
            failed: 1,
            skipped: 1,
        };
        counts.skip_of_passed(2);
        assert_eq!(counts.to_string(), "3 passed, 1 failed, 3 skipped");
    }
}
