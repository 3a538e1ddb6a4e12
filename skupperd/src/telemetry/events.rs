//! IDs of the events that matter to operators, for `journalctl MESSAGE_ID=` and `journalctl -x`.
//!
//! An event is found by its message, which is stable. The texts that `journalctl -x` shows are in
//! `packaging/root/usr/lib/systemd/catalog/skupperd.catalog`. An ID never changes: filters and alerts of
//! operators use it.

/// Messages, and the IDs of their events. Messages of one event share an ID.
const EVENTS: [(&str, &str); 29] = [
    ("skupperd is ready", "edff1bbe93a245a394d08ebb16897238"),
    ("draining connections", "658bd2753b754acc9248c4043c72c430"),
    ("skupperd stopped", "ef6804f07fe54594911f8a495afebdd5"),
    (
        "drain deadline passed; closing connections",
        "e7188dc02c214bebbb12ab5686bc305d",
    ),
    ("link is up", "f354edb68dcf43028b76081989b6d0ba"),
    ("link is down", "350de35c8af74db79f062ef7d447e910"),
    ("link closed", "165288554e8c464996d1a8f006529cab"),
    ("link lost", "d7206f391a8a4092b67c46d5468c7409"),
    (
        "cannot accept link: handshake failed",
        "562ad50e770b4e13b1e3f87eb058d4ab",
    ),
    (
        "link refused: invalid router id",
        "562ad50e770b4e13b1e3f87eb058d4ab",
    ),
    (
        "link refused: it connects this router to itself",
        "562ad50e770b4e13b1e3f87eb058d4ab",
    ),
    (
        "link refused: its router id belongs to another certificate",
        "562ad50e770b4e13b1e3f87eb058d4ab",
    ),
    (
        "link refused: its certificate was revoked during the handshake",
        "562ad50e770b4e13b1e3f87eb058d4ab",
    ),
    ("listener is open", "4ba27d61738348488f382118af46cfa1"),
    ("listener is closed", "9246f721a3f947199540923daac4f0ea"),
    ("cannot open listener", "af6c6c98cf4c4b7f86568286a8cce952"),
    (
        "cannot connect to server",
        "d0d38a3f2aef4f34a394086ed44b8407",
    ),
    (
        "server fails its probes",
        "d0d38a3f2aef4f34a394086ed44b8407",
    ),
    (
        "client denied by policy",
        "12d314f3978d456a9c70eb1e6f70af31",
    ),
    ("site denied by policy", "12d314f3978d456a9c70eb1e6f70af31"),
    (
        "issued credentials for access token",
        "d1f60e97cc794266b56a19c8a15ba032",
    ),
    ("access token redeemed", "4ae4d9d6c7194d1db79c217bf90c00de"),
    (
        "access token not redeemed",
        "9c7ebf64f75c42a78329f06277b26328",
    ),
    ("invalid document", "20ff078f54bb40a0bb5102fdbce3a05f"),
    ("cannot apply resource", "023b8141345c45028c220ac486a14fe6"),
    (
        "CA replaced; give remote sites new credentials before the old CA's overlap ends",
        "4bafe8d8bde943d58dee643fc9fb7f46",
    ),
    (
        "clock is behind CA; keeping the CA: set the clock",
        "b8bed9a68a7e49f0b8232bc0ac3118fa",
    ),
    (
        "memory is short: refusing new connections",
        "2710b5336985445a8bd31a22cdeedf96",
    ),
    (
        "cannot write statuses; trying again",
        "76589a7afc644acc997df4f5732d0b1d",
    ),
];

/// The ID of the event with this message.
pub(super) fn message_id(message: &str) -> Option<&'static str> {
    let found = EVENTS.iter().find(|(text, _)| *text == message);
    found.map(|(_, id)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::BTreeSet,
        fs,
        path::{Path, PathBuf},
    };

    fn crate_dir() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
    }

    fn read_sources(path: &Path, into: &mut String) {
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                read_sources(&entry.unwrap().path(), into);
            }
        } else if !path.ends_with("telemetry/events.rs") {
            into.push_str(&fs::read_to_string(path).unwrap());
        }
    }

    fn ids() -> BTreeSet<&'static str> {
        EVENTS.iter().map(|(_, id)| *id).collect()
    }

    #[test]
    fn every_message_with_an_id_is_logged() {
        let mut sources = String::new();
        read_sources(&crate_dir().join("src"), &mut sources);
        let mut texts = BTreeSet::new();
        for (text, id) in EVENTS {
            assert!(sources.contains(&format!("\"{text}\"")), "{text}");
            assert!(texts.insert(text), "{text} occurs twice");
            assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
        }
        assert_eq!(message_id("skupperd is ready"), Some(EVENTS[0].1));
        assert_eq!(message_id("nothing of the kind"), None);
    }

    #[test]
    fn ids_are_those_of_the_catalog() {
        let catalog = "../packaging/root/usr/lib/systemd/catalog/skupperd.catalog";
        let catalog = fs::read_to_string(crate_dir().join(catalog)).unwrap();
        let mut entries = catalog.split("\n-- ");
        assert!(entries.next().unwrap().starts_with('#'));
        let mut explained = BTreeSet::new();
        for entry in entries {
            let (id, text) = entry.split_once('\n').unwrap();
            assert!(explained.insert(id), "{id} occurs twice");
            let (head, body) = text.split_once("\n\n").unwrap();
            let fields: Vec<_> = head.lines().filter_map(|l| l.split_once(": ")).collect();
            let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, ["Subject", "Defined-By", "Documentation"], "{id}");
            assert!(!body.trim().is_empty(), "{id}");
        }
        assert_eq!(explained, ids());
    }
}
