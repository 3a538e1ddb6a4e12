//! The query of a list, with the parameters of Skupper's network observer: page, order, time range,
//! state and filters by field.

use serde_json::{Value, json};
use std::cmp::Ordering;

/// Time range of a request that gives none: the last quarter of an hour, in microseconds.
const DEFAULT_RANGE: i64 = 15 * 60 * 1_000_000;

/// How the time of a record relates to the time range of the query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum TimeRelation {
    /// They overlap.
    #[default]
    Intersects,
    /// The record covers the whole range.
    Contains,
    /// The record is within the range.
    Within,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ListQuery {
    offset: usize,
    /// `None`: all.
    limit: Option<usize>,
    /// A field, and whether the order is descending.
    sort: Option<(String, bool)>,
    /// Microseconds since the epoch.
    start: Option<i64>,
    end: Option<i64>,
    relation: TimeRelation,
    /// Only records that are live (true) or that have ended (false).
    live: Option<bool>,
    /// Fields and prefixes of their values. Several prefixes of one field are alternatives.
    prefixes: Vec<(String, String)>,
}

/// Decodes `%xx` and `+`. What is not valid stays as it is.
pub(super) fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let digits = digits.filter(|two| two.bytes().all(|c| c.is_ascii_hexdigit()));
        match (first, digits.map(|two| u8::from_str_radix(two, 16))) {
            (b'%', Some(Ok(byte))) => {
                bytes.push(byte);
                rest = &after[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(*first),
        }
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl ListQuery {
    /// # Errors
    ///
    /// The parameter that is invalid, and why.
    pub(super) fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (percent_decode(name), percent_decode(value));
            let number = || {
                let number = value.parse::<i64>();
                number.map_err(|_| format!("{name}: {value:?} is not a number"))
            };
            let unknown = |words: &str| Err(format!("{name}: {value:?} is not {words}"));
            match name.as_str() {
                "offset" => parsed.offset = usize::try_from(number()?).unwrap_or(0),
                // A negative limit means all.
                "limit" => parsed.limit = usize::try_from(number()?).ok(),
                "sortBy" => {
                    parsed.sort = match value.rsplit_once('.') {
                        Some((field, "asc")) => Some((field.to_owned(), false)),
                        Some((field, "desc")) => Some((field.to_owned(), true)),
                        Some(_) => return unknown("<field>.asc or <field>.desc"),
                        None => Some((value, false)),
                    }
                }
                "timeRangeStart" => parsed.start = Some(number()?),
                "timeRangeEnd" => parsed.end = Some(number()?),
                "timeRangeOperation" => {
                    parsed.relation = match value.as_str() {
                        "intersects" => TimeRelation::Intersects,
                        "contains" => TimeRelation::Contains,
                        "within" => TimeRelation::Within,
                        _ => return unknown("intersects, contains or within"),
                    }
                }
                "state" => {
                    parsed.live = match value.as_str() {
                        "all" => None,
                        "active" => Some(true),
                        "terminated" => Some(false),
                        _ => return unknown("all, active or terminated"),
                    }
                }
                _ => parsed.prefixes.push((name, value)),
            }
        }
        Ok(parsed)
    }

    /// The page of the records that match. `now`: microseconds since the epoch.
    pub(super) fn select(&self, records: Vec<Value>, now: i64) -> Result<Value, String> {
        if let (Some((field, _)), Some(first)) = (&self.sort, records.first())
            && first.get(field).is_none()
        {
            return Err(format!("sortBy: there is no field {field:?}"));
        }
        let mut selected = records;
        selected.retain(|record| self.matches(record, now));
        let (field, descending) = match &self.sort {
            Some((field, descending)) => (field.as_str(), *descending),
            None => ("identity", false),
        };
        selected.sort_by(|a, b| {
            let order = compare(&a[field], &b[field]);
            let order = if descending { order.reverse() } else { order };
            order.then_with(|| compare(&a["identity"], &b["identity"]))
        });
        let all = selected.len();
        let part = selected.into_iter().skip(self.offset);
        let part: Vec<Value> = part.take(self.limit.unwrap_or(usize::MAX)).collect();
        Ok(json!({"count": part.len(), "timeRangeCount": all, "results": part}))
    }

    fn matches(&self, record: &Value, now: i64) -> bool {
        let time = |field: &str| record[field].as_i64().unwrap_or(0);
        let (begin, end) = (time("startTime"), time("endTime"));
        let live = end == 0;
        if self.live.is_some_and(|wanted| wanted != live) {
            return false;
        }
        let end = if live { i64::MAX } else { end };
        let (from, to) = (
            self.start.unwrap_or(now.saturating_sub(DEFAULT_RANGE)),
            self.end.unwrap_or(now),
        );
        let in_time = match self.relation {
            TimeRelation::Intersects => begin <= to && end >= from,
            TimeRelation::Contains => begin <= from && end >= to,
            TimeRelation::Within => begin >= from && end <= to,
        };
        in_time
            && self.prefixes.iter().all(|(field, _)| {
                let wanted = self.prefixes.iter().filter(|(other, _)| other == field);
                wanted
                    .map(|(_, value)| value)
                    .any(|value| has_prefix(&record[field.as_str()], value))
            })
    }
}

fn has_prefix(field: &Value, prefix: &str) -> bool {
    match field {
        Value::String(text) => text.starts_with(prefix),
        Value::Null => false,
        Value::Array(list) => list.iter().any(|entry| has_prefix(entry, prefix)),
        other => other.to_string().starts_with(prefix),
    }
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a
                .as_f64()
                .partial_cmp(&b.as_f64())
                .unwrap_or(Ordering::Equal),
        },
        (Value::String(a), Value::String(b)) => a.cmp(b),
        // Unknown values come first.
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        _ => a.to_string().cmp(&b.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 10_000_000_000;

    fn names(query: &str) -> Vec<String> {
        let record = |name: &str, cost: i64, start: i64, end: i64| json!({"identity": name, "name": name, "cost": cost, "startTime": start, "endTime": end});
        let records = vec![
            record("c", 10, 0, 0),
            record("a", 2, NOW - 100, NOW - 50),
            record("b", 2, NOW - 3 * DEFAULT_RANGE, NOW - 2 * DEFAULT_RANGE),
            record("ab", 1, NOW - 10, 0),
        ];
        let query = ListQuery::parse(query).unwrap();
        let answer = query.select(records, NOW).unwrap();
        let results = answer["results"].as_array().unwrap();
        assert_eq!(answer["count"], results.len());
        let name = |record: &Value| record["name"].as_str().unwrap().to_owned();
        results.iter().map(name).collect()
    }

    #[test]
    fn lists_are_paged_sorted_and_filtered_by_time_state_and_fields() {
        assert_eq!(names(""), ["a", "ab", "c"]);
        assert_eq!(names("timeRangeStart=0"), ["a", "ab", "b", "c"]);
        assert_eq!(
            names("timeRangeStart=0&sortBy=cost.desc"),
            ["c", "a", "b", "ab"]
        );
        assert_eq!(names("sortBy=name.desc&limit=2&offset=1"), ["ab", "a"]);
        assert_eq!(names("limit=-1&state=active"), ["ab", "c"]);
        assert_eq!(names("state=terminated"), ["a"]);
        assert_eq!(names("name=a"), ["a", "ab"]);
        assert_eq!(names("name=ab&name=c"), ["ab", "c"]);
        assert_eq!(names("name=a&cost=1"), ["ab"]);
        assert_eq!(names("other=a"), [""; 0]);
        let at = |from: i64, to: i64, how: &str| {
            names(&format!(
                "timeRangeStart={from}&timeRangeEnd={to}&timeRangeOperation={how}"
            ))
        };
        assert_eq!(at(NOW - 90, NOW - 60, "contains"), ["a", "c"]);
        assert_eq!(at(NOW - 110, NOW - 20, "within"), ["a"]);
        assert_eq!(at(0, 1, "intersects"), ["c"]);
    }

    #[test]
    fn a_page_reports_the_number_of_all_matches() {
        let records = (0..5).map(|n| json!({"identity": n.to_string()})).collect();
        let query = ListQuery::parse("limit=2").unwrap();
        let answer = query.select(records, NOW).unwrap();
        assert_eq!(
            (&answer["count"], &answer["timeRangeCount"]),
            (&2.into(), &5.into())
        );
    }

    #[test]
    fn invalid_queries_are_refused() {
        for bad in [
            "limit=x",
            "state=old",
            "sortBy=name.up",
            "timeRangeOperation=near",
        ] {
            assert!(ListQuery::parse(bad).is_err(), "{bad}");
        }
        let query = ListQuery::parse("sortBy=colour").unwrap();
        let refused = query.select(vec![json!({"identity": "a"})], NOW);
        assert_eq!(refused.unwrap_err(), "sortBy: there is no field \"colour\"");
    }

    #[test]
    fn percent_encoding_is_decoded_and_invalid_parts_stay() {
        for (text, meant) in [
            ("a%2Fb", "a/b"),
            ("a+b", "a b"),
            ("%c3%a9", "\u{e9}"),
            ("100%", "100%"),
            ("%zz%+1", "%zz% 1"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(percent_decode(text), meant);
        }
    }
}
