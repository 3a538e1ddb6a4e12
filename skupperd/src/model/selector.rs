//! What a connector selects its servers by on a Linux host: a unit, a control group, an executable, a
//! user.

use super::SyntaxError;
use serde::{Serialize, Serializer};
use std::{fmt, str::FromStr};

/// Longest selector; `PATH_MAX` is the longest path.
const MAX: usize = 4096;
/// Suffix of slice names.
const SLICE: &str = ".slice";
/// Suffixes of unit names.
const UNITS: [&str; 4] = [".service", ".socket", ".scope", SLICE];

/// A selector: `unit=nginx.service`, and also `unit/nginx.service` and `unit:nginx.service`.
///
/// In names and paths `*` matches any text without a slash, `?` one character.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// Units of the system's manager, slices with all that is in them.
    Unit(String),
    /// Units of a user's manager: of the user, or of the daemon's own where none is named.
    UserUnit(Option<u32>, String),
    /// A control group by its path, with all that is below it.
    Cgroup(String),
    Executable(String),
    /// Sockets that a user has made.
    User(u32),
}

impl Selector {
    /// The control groups or units that it is about, as a person would name them.
    fn parts(&self) -> (&'static str, String) {
        match self {
            Self::Unit(name) => ("unit", name.clone()),
            Self::UserUnit(None, name) => ("user-unit", name.clone()),
            Self::UserUnit(Some(uid), name) => ("user-unit", format!("{uid}:{name}")),
            Self::Cgroup(path) => ("cgroup", path.clone()),
            Self::Executable(path) => ("exe", path.clone()),
            Self::User(uid) => ("uid", uid.to_string()),
        }
    }
}

/// A unit name; without a suffix it is a service.
fn unit(name: &str, suffix: &str) -> Option<String> {
    let fits = !name.is_empty() && !name.contains('/') && name.len() < 256;
    let whole = UNITS.iter().any(|suffix| name.ends_with(suffix));
    let name = if whole {
        name.to_owned()
    } else {
        format!("{name}{suffix}")
    };
    fits.then_some(name)
}

/// A path from the root on, whose slash may have been what set it apart.
fn path(text: &str) -> Option<String> {
    let inner = text.strip_prefix('/').unwrap_or(text);
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    inner.split('/').all(plain).then(|| format!("/{inner}"))
}

impl FromStr for Selector {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        if text.is_empty() {
            return Err(SyntaxError::Empty);
        }
        if text.len() > MAX {
            return Err(SyntaxError::TooLong(MAX));
        }
        let allowed = |c: u8| c.is_ascii_alphanumeric() || b"=:./-@_*?\\+~".contains(&c);
        if !text.bytes().all(allowed) {
            return Err(SyntaxError::Selector);
        }
        let (word, value) = text.split_once(['=', '/', ':']).unwrap_or((text, ""));
        let selector = match word {
            "unit" => unit(value, ".service").map(Self::Unit),
            "slice" => unit(value, SLICE)
                .filter(|name| name.ends_with(SLICE))
                .map(Self::Unit),
            "user-unit" => match value.split_once([':', '/']) {
                None => unit(value, ".service").map(|name| Self::UserUnit(None, name)),
                Some((uid, name)) => {
                    let uid = uid.parse().ok();
                    uid.and_then(|uid| Some(Self::UserUnit(Some(uid), unit(name, ".service")?)))
                }
            },
            "cgroup" => path(value).map(Self::Cgroup),
            "exe" => path(value).map(Self::Executable),
            "uid" => value.parse().ok().map(Self::User),
            _ => None,
        };
        selector.ok_or(SyntaxError::Selector)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, value) = self.parts();
        write!(f, "{word}={value}")
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Whether a text matches a pattern.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut seen) = (0, 0);
    // Where to go on from when what follows the last star does not fit.
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(c) if *c == text[seen] || (*c == b'?' && text[seen] != b'/') => {
                at += 1;
                seen += 1;
            }
            _ => match star {
                Some((from, eaten)) if text[eaten] != b'/' => {
                    star = Some((from, eaten + 1));
                    (at, seen) = (from + 1, eaten + 1);
                }
                _ => return false,
            },
        }
    }
    pattern[at.min(pattern.len())..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_and_written() {
        for (text, written) in [
            ("unit=nginx.service", "unit=nginx.service"),
            ("unit/nginx.service", "unit=nginx.service"),
            ("unit:nginx", "unit=nginx.service"),
            ("unit/web@*.service", "unit=web@*.service"),
            ("unit=app.socket", "unit=app.socket"),
            ("unit=batch.slice", "unit=batch.slice"),
            ("slice=batch", "unit=batch.slice"),
            ("user-unit=web", "user-unit=web.service"),
            ("user-unit/1000/web", "user-unit=1000:web.service"),
            ("user-unit=1000:web.service", "user-unit=1000:web.service"),
            (
                "cgroup=/machine.slice/a.scope",
                "cgroup=/machine.slice/a.scope",
            ),
            ("cgroup/machine.slice", "cgroup=/machine.slice"),
            ("exe=/usr/sbin/nginx", "exe=/usr/sbin/nginx"),
            ("exe:/opt/a=b", "exe=/opt/a=b"),
            ("uid=1000", "uid=1000"),
        ] {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.to_string(), written, "{text}");
            assert_eq!(written.parse(), Ok(selector));
        }
    }

    #[test]
    fn a_selector_without_a_meaning_on_a_host_is_rejected() {
        for bad in [
            "app=web",
            "unit",
            "unit=",
            "unit=a/b",
            "slice=a.service",
            "uid=-1",
            "uid=alice",
            "uid=",
            "cgroup=",
            "cgroup=/a/../b",
            "cgroup=/a//b",
            "exe=/a/",
            "user-unit=x:web",
            "a b=c",
            "unit=a,b",
            "unit=a b",
        ] {
            assert_eq!(bad.parse::<Selector>(), Err(SyntaxError::Selector), "{bad}");
        }
        assert_eq!("".parse::<Selector>(), Err(SyntaxError::Empty));
    }

    #[test]
    fn patterns_stay_within_a_part_of_a_path() {
        for (pattern, text, fits) in [
            ("web@*.service", "web@1.service", true),
            ("web@*.service", "web@.service", true),
            ("web@*.service", "web.service", false),
            ("*", "a", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b", "abc", false),
            ("/m/*/x", "/m/a/x", true),
            ("/m/*/x", "/m/a/b/x", false),
            ("/m/*", "/m/a/b", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }
}
