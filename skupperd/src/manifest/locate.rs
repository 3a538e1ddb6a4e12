//! Where in a document a field stands.
//!
//! The parser tells places only of errors. So the way to the field is walked, and an error is raised
//! on arrival: exact in block style, flow style and JSON alike. It costs a parse, for what is
//! reported to a person.

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Message of the error that is raised on arrival.
const HERE: &str = "here";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// Line, from 0, of a field such as `spec.roles[1].name`; of its nearest parent when it is not there.
pub(super) fn line_of(text: &str, field: &str) -> Option<usize> {
    let steps = steps(field);
    (1..=steps.len())
        .rev()
        .find_map(|n| seek(text, steps.get(..n)?))
}

/// Lines before the first that has anything but a comment on it.
pub(super) fn blank_lines(text: &str) -> usize {
    let blank = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
    let count = text.lines().take_while(blank).count();
    if text.lines().all(|line| blank(&line)) {
        0
    } else {
        count
    }
}

/// A key with dots in it ends a path: `data.tls.key`, `metadata.labels.app.kubernetes.io/name`.
fn steps(field: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut rest = field;
    while !rest.is_empty() {
        let open_map = matches!(steps.as_slice(), [Step::Key("data" | "stringData")])
            || matches!(
                steps.as_slice(),
                [_, Step::Key("labels" | "annotations" | "settings")]
            );
        if open_map {
            steps.push(Step::Key(rest));
            break;
        }
        let (part, after) = rest.split_once('.').unwrap_or((rest, ""));
        rest = after;
        let (key, index) = match part.split_once('[') {
            Some((key, index)) => (key, index.trim_end_matches(']').parse().ok()),
            None => (part, None),
        };
        steps.push(Step::Key(key));
        steps.extend(index.map(Step::Index));
    }
    steps
}

fn seek(text: &str, steps: &[Step<'_>]) -> Option<usize> {
    let error = Walk(steps)
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .err()?;
    // Any other error came first: then the field was not reached.
    let arrived = error.to_string().contains(HERE);
    let place = error.location().filter(|_| arrived)?;
    Some(place.line().saturating_sub(1))
}

struct Walk<'a>(&'a [Step<'a>]);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.0 {
            [] => deserializer.deserialize_any(Arrive),
            _ => deserializer.deserialize_any(self),
        }
    }
}

macro_rules! nothing_here {
    ($($name:ident: $ty:ty),*) => {
        $(fn $name<E: de::Error>(self, _: $ty) -> Result<(), E> { Ok(()) })*
    };
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    nothing_here! {
        visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str,
        visit_i128: i128, visit_u128: u128
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let (wanted, rest) = match self.0 {
            [Step::Index(n), rest @ ..] => (Some(*n), rest),
            _ => (None, self.0),
        };
        let mut at = 0;
        loop {
            let more = if wanted == Some(at) {
                access.next_element_seed(Walk(rest))?.is_some()
            } else {
                access.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                return Ok(());
            }
            at += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let (wanted, rest) = match self.0 {
            [Step::Key(key), rest @ ..] => (Some(*key), rest),
            _ => (None, self.0),
        };
        while let Some(found) = access.next_key_seed(Key {
            wanted,
            last: rest.is_empty(),
        })? {
            if found {
                access.next_value_seed(Walk(rest))?;
            } else {
                access.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Key<'a> {
    wanted: Option<&'a str>,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<bool, E> {
        let found = self.wanted == Some(key);
        if found && self.last {
            Err(E::custom(HERE))
        } else {
            Ok(found)
        }
    }
}

struct Arrive;

macro_rules! here {
    ($($name:ident: $ty:ty),*) => {
        $(fn $name<E: de::Error>(self, _: $ty) -> Result<(), E> { Err(E::custom(HERE)) })*
    };
}

impl<'de> Visitor<'de> for Arrive {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HERE)
    }

    here! {
        visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str,
        visit_i128: i128, visit_u128: u128
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Err(E::custom(HERE))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(de::Error::custom(HERE))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(de::Error::custom(HERE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &str = "# comment\nkind: X\nmetadata:\n  name: a\n  labels:\n    app.io/x: y\nspec:\n  \
                         roles:\n  - name: edge\n    port: 1\n  -\n    name: foo\n  other: |\n    roles:\n  \
                         last: 1\ndata:\n  tls.key: k\n";

    fn at(field: &str) -> Option<usize> {
        line_of(BLOCK, field)
    }

    #[test]
    fn block_style() {
        assert_eq!(at("kind"), Some(1));
        assert_eq!(at("metadata.name"), Some(3));
        assert_eq!(at("metadata.labels.app.io/x"), Some(5));
        assert_eq!(at("spec.roles"), Some(7));
        assert_eq!(at("spec.roles[0]"), Some(8));
        assert_eq!(at("spec.roles[0].port"), Some(9));
        assert_eq!(at("spec.roles[1].name"), Some(11));
        assert_eq!(at("spec.last"), Some(14));
        assert_eq!(at("data.tls.key"), Some(16));
    }

    #[test]
    fn nearest_parent_of_what_is_missing() {
        assert_eq!(at("spec.roles[1].port"), Some(11));
        assert_eq!(at("spec.roles[7].port"), Some(7));
        assert_eq!(at("spec.host"), Some(6));
        assert_eq!(at("status.x"), None);
    }

    #[test]
    fn flow_style_and_json() {
        let text = "{\"metadata\": {\"name\": \"a\"},\n \"spec\": {\n  \"endpoints\": [{\"name\": \"edge\"},\n   \
                    {\"name\": \"x\",\n \"port\": 1}]}}";
        assert_eq!(line_of(text, "spec.endpoints[0].name"), Some(2));
        assert_eq!(line_of(text, "spec.endpoints[1].port"), Some(4));
    }

    #[test]
    fn blanks_before_a_document() {
        assert_eq!(blank_lines("\n# x\n\na: 1\n"), 3);
        assert_eq!(blank_lines("a: 1\n"), 0);
        assert_eq!(blank_lines("\n\n"), 0);
    }
}
