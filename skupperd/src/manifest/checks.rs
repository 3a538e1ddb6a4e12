//! Checks of single fields that several kinds share, and the errors they report.

use super::{
    field_error::FieldError,
    raw::{Text, Texts},
    settings::{TypedSettings, read as read_settings},
};
use crate::model::{Kind, MAX_LINK_COST, ObserverMode, Settings, SyntaxError, parse_port};

pub(super) enum Problem {
    /// A field is unknown or has the wrong type.
    Raw(FieldError),
    /// Path and reason.
    Field(String, String),
}

impl From<FieldError> for Problem {
    fn from(e: FieldError) -> Self {
        Self::Raw(e)
    }
}

pub(super) fn field(path: &str, reason: impl Into<String>) -> Problem {
    Problem::Field(path.to_owned(), reason.into())
}

pub(super) type CheckResult<T> = Result<T, Problem>;

pub(super) fn invalid_value(path: &str, value: &str, error: &SyntaxError) -> Problem {
    // The beginning of a long value is enough.
    let shown: String = value.chars().take(64).collect();
    let dots = if shown.len() < value.len() { ".." } else { "" };
    field(path, format!("{shown:?}{dots}: {error}"))
}

pub(super) fn required<T>(value: Option<T>, path: &str) -> CheckResult<T> {
    value.ok_or_else(|| field(path, "is required"))
}

/// A text that must be there, of a type that checks it.
pub(super) fn checked<T: std::str::FromStr<Err = SyntaxError>>(
    value: Option<Text>,
    path: &str,
) -> CheckResult<T> {
    let value = required(value.filter(|v| !v.is_empty()), path)?;
    value.parse().map_err(|e| invalid_value(path, &value, &e))
}

/// A text that may be missing or empty.
pub(super) fn optional<T: std::str::FromStr<Err = SyntaxError>>(
    value: Option<Text>,
    path: &str,
) -> CheckResult<Option<T>> {
    let value = value.filter(|v| !v.is_empty());
    value.map(|v| checked(Some(v), path)).transpose()
}

pub(super) fn port(value: Option<i64>, path: &str) -> CheckResult<u16> {
    parse_port(required(value, path)?).map_err(|e| field(path, e.to_string()))
}

/// Settings of a kind that has some.
pub(super) fn settings<T: TypedSettings>(
    kind: Kind,
    texts: Option<Texts>,
) -> CheckResult<Settings<T>> {
    read_settings(kind, texts.unwrap_or_default().0)
        .map_err(|e| field(&format!("spec.settings[{}]", e.key), e.reason))
}

pub(super) fn one_of(value: &str, allowed: &[&str], path: &str) -> Problem {
    let allowed = allowed.join(" ");
    let text =
        format!("value {value:?} not allowed. It should be one of this options: [{allowed}]");
    field(path, text)
}

pub(super) fn tcp(kind: Option<&str>) -> CheckResult<()> {
    match kind {
        None | Some("" | "tcp") => Ok(()),
        Some(other) => Err(one_of(other, &["tcp"], "spec.type")),
    }
}

pub(super) fn observer(text: Option<&str>) -> CheckResult<ObserverMode> {
    match text {
        None | Some("") => Ok(ObserverMode::default()),
        Some(text) => ObserverMode::ALL
            .into_iter()
            .find(|o| o.as_str() == text)
            .ok_or_else(|| {
                one_of(
                    text,
                    &ObserverMode::ALL.map(ObserverMode::as_str),
                    "spec.observer",
                )
            }),
    }
}

/// As in Skupper, a cost below the minimum is the minimum.
pub(super) fn link_cost(cost: Option<i64>) -> Result<u32, String> {
    let cost = cost.unwrap_or(1).max(1);
    let valid = u32::try_from(cost).ok().filter(|c| *c <= MAX_LINK_COST);
    valid.ok_or_else(|| format!("{cost} is too large (at most {MAX_LINK_COST})"))
}
