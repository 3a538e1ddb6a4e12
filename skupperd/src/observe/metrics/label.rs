//! Label values. The encoder writes a text as it is, so that a name with a quote or a new line in it
//! would break the exposition or add series of its own; other sites choose some of the names.

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use std::fmt::{self, Write};

/// A text as a label value. Label sets have this type in place of `String`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Label(String);

impl<T: ToString + ?Sized> From<&T> for Label {
    fn from(value: &T) -> Self {
        Self(value.to_string())
    }
}

impl EncodeLabelValue for Label {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        for c in self.0.chars() {
            match c {
                '\\' => encoder.write_str("\\\\")?,
                '"' => encoder.write_str("\\\"")?,
                '\n' => encoder.write_str("\\n")?,
                // Parsers disagree about what ends a line.
                c if c.is_control() => encoder.write_char(char::REPLACEMENT_CHARACTER)?,
                c => encoder.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::{
        encoding::{EncodeLabelSet, text::encode},
        metrics::{family::Family, gauge::Gauge},
        registry::Registry,
    };
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct TwoLabels {
        first: Label,
        second: Label,
    }

    /// The labels of a sample, by the grammar of OpenMetrics.
    fn labels(sample: &str) -> Option<Vec<(String, String)>> {
        let (_, rest) = sample.split_once('{')?;
        let (mut labels, mut rest) = (Vec::new(), rest);
        loop {
            let (name, after) = rest.split_once("=\"")?;
            let (mut value, mut chars) = (String::new(), after.chars());
            loop {
                match chars.next()? {
                    '"' => break,
                    '\\' => value.push(match chars.next()? {
                        'n' => '\n',
                        c @ ('\\' | '"') => c,
                        _ => return None,
                    }),
                    c => value.push(c),
                }
            }
            labels.push((name.to_owned(), value));
            rest = match chars.as_str().strip_prefix(',') {
                Some(more) => more,
                None => return (chars.as_str() == "} 1").then_some(labels),
            };
        }
    }

    fn shown(text: &str) -> String {
        let visible = |c: char| match c {
            '\n' => c,
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        };
        text.chars().map(visible).collect()
    }

    fn is_read_back(first: &str, second: &str) -> bool {
        let family = Family::<TwoLabels, Gauge>::default();
        let of = TwoLabels {
            first: first.into(),
            second: second.into(),
        };
        family.get_or_create(&of).set(1);
        let mut registry = Registry::default();
        registry.register("metric", "help", family);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let samples: Vec<&str> = text.split('\n').filter(|l| !l.starts_with('#')).collect();
        let [sample, ""] = samples[..] else {
            return false;
        };
        let expected = [("first", first), ("second", second)];
        let expected = expected.map(|(name, value)| (name.to_owned(), shown(value)));
        labels(sample) == Some(expected.to_vec())
    }

    #[test]
    fn names_that_would_forge_a_series_are_values() {
        for name in [
            "x\",kind=\"Site\"} 1 #",
            "x\"} 1\nforged{a=\"b\"} 2",
            "\\",
            "\\\"",
            "a\rb\u{85}c\u{1b}[2J",
            "",
        ] {
            assert!(is_read_back(name, "other"), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn every_text_is_read_back(first in "\\PC*|[\"\\\\\n\r,{}=]*", second in any::<String>()) {
            prop_assert!(is_read_back(&first, &second));
        }
    }
}
