//! Serial numbers of certificates.

use std::fmt;

/// Longest serial number in hexadecimal digits (RFC 5280, 4.1.2.2: 20 bytes).
const MAX_DIGITS: usize = 40;

/// The serial number of a certificate, in lower-case hexadecimal without leading zeros.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SerialNumber(String);

impl SerialNumber {
    /// Reads what people and programs write: case, colons and leading zeros do not count.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        let digits = digits.trim_start_matches('0').to_ascii_lowercase();
        let valid = !digits.is_empty()
            && digits.len() <= MAX_DIGITS
            && digits.bytes().all(|c| c.is_ascii_hexdigit());
        valid.then_some(Self(digits))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<SerialNumber> for String {
    fn from(serial: SerialNumber) -> Self {
        serial.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_read_as_people_write_them() {
        for text in ["00:AB:0c", "ab0c"] {
            assert_eq!(SerialNumber::parse(text).unwrap().as_str(), "ab0c");
        }
        for invalid in ["", "0", "xyz", "12 34", &"1".repeat(41)] {
            assert_eq!(SerialNumber::parse(invalid), None, "{invalid}");
        }
    }
}
