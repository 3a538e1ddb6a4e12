//! What a request asks of a list, as upstream's network observer has it: which part of it, in which
//! order, of which time, with which fields.

use serde_json::{Value, json};
use std::cmp::Ordering;

/// What is looked at when a request says no time: the last quarter of an hour, in microseconds.
const WINDOW: i64 = 15 * 60 * 1_000_000;

/// How the time of a record has to lie to the time asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Relation {
    /// They have a moment in common.
    #[default]
    Intersects,
    /// The record's is all of the time asked for, or more.
    Contains,
    /// The record's is all within the time asked for.
    Within,
}

/// What is asked of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    offset: usize,
    /// None: all.
    limit: Option<usize>,
    /// A field, and whether the largest come first.
    sort: Option<(String, bool)>,
    /// Microseconds since the epoch.
    start: Option<i64>,
    end: Option<i64>,
    relation: Relation,
    /// Whether it has to be live, or over.
    live: Option<bool>,
    /// Fields with what their values have to begin with, any of them.
    fields: Vec<(String, String)>,
}

/// The text that a part of an address stands for.
pub(super) fn decoded(text: &str) -> String {
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

impl Asked {
    /// Reads the query of a request.
    pub(super) fn read(query: &str) -> Result<Self, String> {
        let mut asked = Self::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decoded(name), decoded(value));
            let number = || {
                let number = value.parse::<i64>();
                number.map_err(|_| format!("{name}: {value:?} is not a number"))
            };
            let unknown = |words: &str| Err(format!("{name}: {value:?} is not {words}"));
            match name.as_str() {
                "offset" => asked.offset = usize::try_from(number()?).unwrap_or(0),
                // A negative one is for all.
                "limit" => asked.limit = usize::try_from(number()?).ok(),
                "sortBy" => {
                    asked.sort = match value.rsplit_once('.') {
                        Some((field, "asc")) => Some((field.to_owned(), false)),
                        Some((field, "desc")) => Some((field.to_owned(), true)),
                        Some(_) => return unknown("<field>.asc or <field>.desc"),
                        None => Some((value, false)),
                    }
                }
                "timeRangeStart" => asked.start = Some(number()?),
                "timeRangeEnd" => asked.end = Some(number()?),
                "timeRangeOperation" => {
                    asked.relation = match value.as_str() {
                        "intersects" => Relation::Intersects,
                        "contains" => Relation::Contains,
                        "within" => Relation::Within,
                        _ => return unknown("intersects, contains or within"),
                    }
                }
                "state" => {
                    asked.live = match value.as_str() {
                        "all" => None,
                        "active" => Some(true),
                        "terminated" => Some(false),
                        _ => return unknown("all, active or terminated"),
                    }
                }
                _ => asked.fields.push((name, value)),
            }
        }
        Ok(asked)
    }

    /// The part of the records that is asked for. `now`: microseconds since the epoch.
    pub(super) fn answer(&self, records: Vec<Value>, now: i64) -> Result<Value, String> {
        if let (Some((field, _)), Some(first)) = (&self.sort, records.first())
            && first.get(field).is_none()
        {
            return Err(format!("sortBy: there is no field {field:?}"));
        }
        let mut chosen = records;
        chosen.retain(|record| self.is_meant(record, now));
        let (field, down) = match &self.sort {
            Some((field, down)) => (field.as_str(), *down),
            None => ("identity", false),
        };
        chosen.sort_by(|a, b| {
            let order = compare(&a[field], &b[field]);
            let order = if down { order.reverse() } else { order };
            order.then_with(|| compare(&a["identity"], &b["identity"]))
        });
        let all = chosen.len();
        let part = chosen.into_iter().skip(self.offset);
        let part: Vec<Value> = part.take(self.limit.unwrap_or(usize::MAX)).collect();
        Ok(json!({"count": part.len(), "timeRangeCount": all, "results": part}))
    }

    fn is_meant(&self, record: &Value, now: i64) -> bool {
        let time = |field: &str| record[field].as_i64().unwrap_or(0);
        let (begin, end) = (time("startTime"), time("endTime"));
        let live = end == 0;
        if self.live.is_some_and(|wanted| wanted != live) {
            return false;
        }
        let end = if live { i64::MAX } else { end };
        let (from, to) = (
            self.start.unwrap_or(now.saturating_sub(WINDOW)),
            self.end.unwrap_or(now),
        );
        let in_time = match self.relation {
            Relation::Intersects => begin <= to && end >= from,
            Relation::Contains => begin <= from && end >= to,
            Relation::Within => begin >= from && end <= to,
        };
        in_time
            && self.fields.iter().all(|(field, _)| {
                let wanted = self.fields.iter().filter(|(other, _)| other == field);
                wanted
                    .map(|(_, value)| value)
                    .any(|value| begins(&record[field.as_str()], value))
            })
    }
}

fn begins(field: &Value, with: &str) -> bool {
    match field {
        Value::String(text) => text.starts_with(with),
        Value::Null => false,
        Value::Array(list) => list.iter().any(|entry| begins(entry, with)),
        other => other.to_string().starts_with(with),
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
        // What is not known comes first.
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
            record("b", 2, NOW - 3 * WINDOW, NOW - 2 * WINDOW),
            record("ab", 1, NOW - 10, 0),
        ];
        let asked = Asked::read(query).unwrap();
        let answer = asked.answer(records, NOW).unwrap();
        let results = answer["results"].as_array().unwrap();
        assert_eq!(answer["count"], results.len());
        let name = |record: &Value| record["name"].as_str().unwrap().to_owned();
        results.iter().map(name).collect()
    }

    #[test]
    fn o6_lists_are_paged_sorted_and_filtered_by_time_state_and_fields() {
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
    fn o6_a_page_says_how_many_there_are() {
        let records = (0..5).map(|n| json!({"identity": n.to_string()})).collect();
        let asked = Asked::read("limit=2").unwrap();
        let answer = asked.answer(records, NOW).unwrap();
        assert_eq!(
            (&answer["count"], &answer["timeRangeCount"]),
            (&2.into(), &5.into())
        );
    }

    #[test]
    fn o6_what_makes_no_sense_is_refused() {
        for bad in [
            "limit=x",
            "state=old",
            "sortBy=name.up",
            "timeRangeOperation=near",
        ] {
            assert!(Asked::read(bad).is_err(), "{bad}");
        }
        let asked = Asked::read("sortBy=colour").unwrap();
        let refused = asked.answer(vec![json!({"identity": "a"})], NOW);
        assert_eq!(refused.unwrap_err(), "sortBy: there is no field \"colour\"");
    }

    #[test]
    fn parts_of_addresses_are_decoded() {
        for (text, meant) in [
            ("a%2Fb", "a/b"),
            ("a+b", "a b"),
            ("%c3%a9", "\u{e9}"),
            ("100%", "100%"),
            ("%zz%+1", "%zz% 1"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(decoded(text), meant);
        }
    }
}
