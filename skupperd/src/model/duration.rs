//! Durations as Skupper's resources and flags write them: `15m`, `1h30m`, `1.5h`, `90s`.

use std::time::Duration;

/// Units of the notation, those that begin like another one first.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("μs", 1e-6),
    ("ms", 1e-3),
    ("h", 3600.0),
    ("m", 60.0),
    ("s", 1.0),
];
/// Longest duration taken: a hundred years, so that adding one to a time of day stays a time.
const MAX_SECONDS: f64 = 100.0 * 365.0 * 86_400.0;

/// Reads a duration: numbers, each with its unit, without a sign.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let number: f64 = number.parse().ok()?;
        let (unit, factor) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit))?;
        seconds += number * factor;
        rest = tail.get(unit.len()..)?;
    }
    let taken = !text.is_empty() && seconds <= MAX_SECONDS;
    taken.then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units_add_up() {
        let seconds = |text| parse_duration(text).map(|d| d.as_secs_f64());
        assert_eq!(seconds("15m"), Some(900.0));
        assert_eq!(seconds("15m0s"), Some(900.0));
        assert_eq!(seconds("1h30m"), Some(5400.0));
        assert_eq!(seconds("1.5h"), Some(5400.0));
        assert_eq!(seconds("250ms"), Some(0.25));
        assert_eq!(seconds("0"), Some(0.0));
    }

    #[test]
    fn other_texts_are_not_durations() {
        for text in [
            "",
            "15",
            "m",
            "-5m",
            "5 m",
            "1.2.3s",
            "5x",
            "9999999999h",
            "1e3s",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
