//! Types of plain scalars, by the core schema of YAML 1.2 (10.3.2 of its specification).
//!
//! `NO`, `yes`, `0123`, `1_000` and `12:30` are strings, unlike in YAML 1.1: Kubernetes' tools quote
//! them for readers of either version. `0b11` is an integer beside the schema's `0o17` and `0x1f`.

use super::node::YamlValue;
use zeroize::Zeroizing;

/// The value of a scalar without quotes and without a tag.
pub(super) fn resolve(text: &str) -> YamlValue {
    if text.is_empty() || is_null(text) {
        return YamlValue::Null;
    }
    boolean(text)
        .or_else(|| integer(text))
        .or_else(|| float(text))
        .unwrap_or_else(|| YamlValue::Text(Zeroizing::new(text.to_owned())))
}

/// The value of a scalar with the tag `!!int`, `!!bool`, `!!float` or `!!null`; `None` when the text
/// is none of that type.
pub(super) fn resolve_as(suffix: &str, text: &str) -> Option<YamlValue> {
    match suffix {
        "bool" => boolean(text),
        "int" => integer(text),
        "float" => match float(text)? {
            value @ YamlValue::Float(_) => Some(value),
            _ => None,
        },
        "null" => is_null(text).then_some(YamlValue::Null),
        _ => Some(YamlValue::Text(Zeroizing::new(text.to_owned()))),
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "null" | "Null" | "NULL" | "~")
}

fn boolean(text: &str) -> Option<YamlValue> {
    match text {
        "true" | "True" | "TRUE" => Some(YamlValue::Bool(true)),
        "false" | "False" | "FALSE" => Some(YamlValue::Bool(false)),
        _ => None,
    }
}

fn integer(text: &str) -> Option<YamlValue> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefixes = [("0x", 16), ("0o", 8), ("0b", 2)];
    let with_prefix = prefixes
        .into_iter()
        .find_map(|(prefix, radix)| Some((digits.strip_prefix(prefix)?, radix)));
    let (digits, radix) = match with_prefix {
        Some(found) => found,
        None if has_leading_zero(digits) => return None,
        None => (digits, 10),
    };
    // What follows may have no second sign, which `from_str_radix` would take.
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -magnitude } else { magnitude };
    Some(match (u64::try_from(value), i64::try_from(value)) {
        (Ok(value), _) if !negative => YamlValue::Unsigned(value),
        (_, Ok(value)) => YamlValue::Signed(value),
        _ => YamlValue::Huge(Zeroizing::new(value.to_string())),
    })
}

fn float(text: &str) -> Option<YamlValue> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if text.starts_with('+') && unsigned.starts_with(['+', '-']) {
        return None;
    }
    let value = match unsigned {
        ".inf" | ".Inf" | ".INF" => f64::INFINITY,
        "-.inf" | "-.Inf" | "-.INF" => f64::NEG_INFINITY,
        ".nan" | ".NaN" | ".NAN" if text == unsigned => f64::NAN,
        _ if has_leading_zero(unsigned.strip_prefix('-').unwrap_or(unsigned)) => return None,
        // Rust reads words such as `inf` and `nan`, which are none of YAML's.
        _ => unsigned.parse().ok().filter(|n: &f64| n.is_finite())?,
    };
    Some(YamlValue::Float(value))
}

/// `0123` is no number: YAML 1.1 has it as an octal one, YAML 1.2 as a decimal one.
fn has_leading_zero(digits: &str) -> bool {
    digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_the_bases_of_yaml_1_2() {
        for (text, number) in [
            ("80", 80),
            ("+80", 80),
            ("0x50", 80),
            ("0o120", 80),
            ("0b11", 3),
        ] {
            assert_eq!(resolve(text), YamlValue::Unsigned(number), "{text}");
        }
        assert_eq!(resolve("-1"), YamlValue::Signed(-1));
        assert_eq!(resolve("-0x10"), YamlValue::Signed(-16));
        let huge = "99999999999999999999";
        assert_eq!(
            resolve(huge),
            YamlValue::Huge(Zeroizing::new(huge.to_owned()))
        );
    }

    #[test]
    fn words_and_digits_of_yaml_1_1_are_strings() {
        for text in [
            "NO",
            "no",
            "yes",
            "on",
            "Off",
            "y",
            "0123",
            "-012",
            "1_000",
            "12:30",
            "0x",
            "0o8",
            "--1",
            "+-1",
            "0x-1",
            "inf",
            "nan",
            "1.2.3",
            "2026-01-01",
            "tRue",
            "nULL",
            ".",
        ] {
            let value = YamlValue::Text(Zeroizing::new(text.to_owned()));
            assert_eq!(resolve(text), value, "{text}");
        }
    }

    #[test]
    fn floats_nulls_and_booleans() {
        assert_eq!(resolve("80.5"), YamlValue::Float(80.5));
        assert_eq!(resolve("1e3"), YamlValue::Float(1000.0));
        assert_eq!(resolve("-.inf"), YamlValue::Float(f64::NEG_INFINITY));
        for text in ["", "~", "null", "Null", "NULL"] {
            assert_eq!(resolve(text), YamlValue::Null, "{text}");
        }
        assert_eq!(resolve("True"), YamlValue::Bool(true));
        assert_eq!(resolve_as("int", "x"), None);
        assert_eq!(resolve_as("bool", "true"), Some(YamlValue::Bool(true)));
    }
}
