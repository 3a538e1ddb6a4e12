//! Grants, and the tokens that are redeemed for them.

use super::{Name, SettingTexts};
use std::{fmt, time::Duration};
use zeroize::Zeroizing;

/// A secret text: never shown, compared in constant time, wiped when dropped.
#[derive(Clone)]
pub struct Code(Zeroizing<String>);

impl Code {
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text, for code that sends or stores it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The same as these bytes. The time it takes depends on the lengths and on nothing else.
    pub fn matches(&self, other: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differ = own.iter().zip(other).fold(0, |d, (a, b)| d | (a ^ b));
        std::hint::black_box(differ) == 0 && own.len() == other.len()
    }
}

impl PartialEq for Code {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.0.as_bytes())
    }
}

impl Eq for Code {}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

/// Permission for remote sites to fetch credentials for a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessGrant {
    /// Successful redemptions that it is good for, at least 1.
    pub redemptions_allowed: u32,
    /// Time it is good for, from when it is first seen.
    pub expiration_window: Duration,
    /// Code given by the user; one is made when there is none.
    pub code: Option<Code>,
    /// Issuer of the credentials; the site's when it names none.
    pub issuer: Option<Name>,
    /// Advanced options.
    pub settings: SettingTexts,
}

/// What a remote site fetches its credentials with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// Where: `https://host:port/path`.
    pub url: String,
    /// Code of the grant.
    pub code: Code,
    /// CA of the server there, and of nothing else (PEM).
    pub ca: String,
    /// Cost of the link that comes of it.
    pub link_cost: u32,
    /// Advanced options.
    pub settings: SettingTexts,
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn codes_match_in_full_and_show_nothing() {
        let code = Code::new("abcdef");
        assert!(code.matches(b"abcdef"));
        for other in [&b""[..], b"abcde", b"abcdefg", b"abcdeF", b"Abcdef"] {
            assert!(!code.matches(other), "{other:?}");
        }
        assert_eq!(format!("{code:?}"), "hidden");
    }
}
