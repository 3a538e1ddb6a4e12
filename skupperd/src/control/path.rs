//! Paths of the D-Bus objects of resources.

use super::PATH;
use crate::model::{Key, Namespace};
use std::fmt::Write;

pub(super) fn path(namespace: &Namespace, key: &Key) -> String {
    let (namespace, name) = (escape(namespace.as_str()), escape(&key.name));
    format!("{PATH}/{namespace}/{}/{name}", key.kind)
}

/// Escapes a text for an element of a path as systemd does: all but letters and digits become `_` and
/// two hexadecimal digits.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(out, "_{byte:02x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, Name};

    #[test]
    fn a_path_escapes_the_name_of_the_resource() {
        let key = Key::new(Kind::Link, Name::new("to-a.b").unwrap());
        let found = path(&Namespace::new("my-ns").unwrap(), &key);
        assert_eq!(found, "/io/skupper/Skupper1/my_2dns/Link/to_2da_2eb");
    }
}
