//! The table of settings, and everything that is made from it.
//!
//! A row of [`TABLE`] defines a setting: which kinds have it, its key, its values, its default, and
//! which field of `model/settings.rs` it fills. The rows are the source of the reader of manifests
//! ([`read`]), the notes on settings without effect ([`notes`]), the manual pages of section 5
//! ([`manual`]), shell completion, the reference page and the tables of the guide
//! (`tests/blackbox/contract`).
//!
//! To add a setting: a row in `table.rs`, a field in `model/settings.rs`, its use, a test; then write
//! the reference anew.

mod format;
pub mod manual;
mod table;

pub use table::{OTHER_PLATFORMS, TABLE};

use crate::model::{
    ConnectorSettings, Kind, LinkSettings, ListenerSettings, SettingTexts, Settings, SiteSettings,
};

/// A setting of some kinds.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub kinds: &'static [Kind],
    pub key: &'static str,
    /// Other spellings of the key, which takes precedence.
    pub aliases: &'static [&'static str],
    /// Syntax of the value, for people; empty where [`Self::words`] are all that is accepted.
    pub syntax: &'static str,
    /// Values that are words.
    pub words: &'static [&'static str],
    /// The value that means the same as no setting, where there is one.
    pub default: Option<&'static str>,
    /// One line, without a full stop.
    pub help: &'static str,
    /// Further sentences for the manual page and the reference, with code between backticks.
    pub details: &'static str,
    /// Skupper has it too.
    pub is_skupper_setting: bool,
    requires: Requires,
    invalid: Invalid,
    read: Read,
}

/// What else a resource needs for a setting to have an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Requires {
    Nothing,
    Tls,
    NoTls,
}

/// How a resource with an invalid value is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Invalid {
    /// The document is invalid.
    Refused,
    /// The setting has no effect, and a note in the status says so: a bad log level must not stop
    /// the services of a site.
    Ignored,
}

/// Fills the field of a setting from its text.
#[derive(Clone, Copy, Debug)]
enum Read {
    Site(fn(&mut SiteSettings, &str) -> Result<(), String>),
    Listener(fn(&mut ListenerSettings, &str) -> Result<(), String>),
    Connector(fn(&mut ConnectorSettings, &str) -> Result<(), String>),
    Link(fn(&mut LinkSettings, &str) -> Result<(), String>),
}

impl Setting {
    /// Its key and the other spellings of it.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.key).chain(self.aliases.iter().copied())
    }

    /// What it takes, for people: words between backticks, or a description.
    pub fn value_syntax(&self) -> String {
        match self.syntax {
            "" => {
                let words: Vec<String> = self.words.iter().map(|w| format!("`{w}`")).collect();
                words.join(", ")
            }
            syntax => syntax.to_owned(),
        }
    }

    /// Whether a document with an invalid value of it is invalid; else its status has a note.
    pub fn refuses_invalid(&self) -> bool {
        self.invalid == Invalid::Refused
    }

    /// The reason why a text is no value of it.
    fn check(&self, text: &str) -> Result<(), String> {
        match self.read {
            Read::Site(read) => read(&mut SiteSettings::default(), text),
            Read::Listener(read) => read(&mut ListenerSettings::default(), text),
            Read::Connector(read) => read(&mut ConnectorSettings::default(), text),
            Read::Link(read) => read(&mut LinkSettings::default(), text),
        }
    }
}

/// Settings that have an effect in a kind.
pub fn settings_of(kind: Kind) -> impl Iterator<Item = &'static Setting> {
    TABLE
        .iter()
        .filter(move |setting| setting.kinds.contains(&kind))
}

/// An invalid value of a setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.settings[{key}]: {reason}")]
pub struct SettingError {
    pub key: String,
    pub reason: String,
}

/// The settings of one or several kinds, as values.
pub trait TypedSettings: Default {
    /// Fills the field of a setting; does nothing where the setting is of another type.
    #[doc(hidden)]
    fn fill(&mut self, setting: &Setting, text: &str) -> Result<(), String>;
}

macro_rules! typed {
    ($($type:ident: $read:ident),*) => {$(
        impl TypedSettings for $type {
            fn fill(&mut self, setting: &Setting, text: &str) -> Result<(), String> {
                match setting.read {
                    Read::$read(read) => read(self, text),
                    _ => Ok(()),
                }
            }
        }
    )*};
}

typed!(SiteSettings: Site, ListenerSettings: Listener, ConnectorSettings: Connector, LinkSettings: Link);

/// Reads the settings of a resource of a kind. Of several spellings of a key the first that is there
/// counts.
pub fn read<T: TypedSettings>(
    kind: Kind,
    texts: SettingTexts,
) -> Result<Settings<T>, SettingError> {
    let mut values = T::default();
    if kind == Kind::MultiKeyListener && texts.contains_key(NETWORK_NAMESPACE) {
        return Err(SettingError {
            key: NETWORK_NAMESPACE.to_owned(),
            reason: "only a Listener can listen in another network namespace".to_owned(),
        });
    }
    for setting in settings_of(kind) {
        let found = setting.keys().find_map(|key| texts.get_key_value(key));
        let Some((key, text)) = found else { continue };
        match values.fill(setting, text) {
            Err(reason) if setting.invalid == Invalid::Refused => {
                let key = key.clone();
                return Err(SettingError { key, reason });
            }
            _ => {}
        }
    }
    Ok(Settings::new(texts, values))
}

/// Settings of a resource that have no effect, each with the reason. `tls`: the resource has
/// `spec.tlsCredentials`.
pub fn notes(kind: Kind, texts: &SettingTexts, tls: bool) -> Vec<String> {
    let note = |(key, text): (&String, &String)| {
        let elsewhere = OTHER_PLATFORMS.iter().find(|(_, known, _)| known == key);
        if let Some((_, _, reason)) = elsewhere {
            return Some(format!("spec.settings[{key}] has no effect {reason}"));
        }
        let mut settings = settings_of(kind);
        let Some(setting) = settings.find(|setting| setting.keys().any(|known| known == key))
        else {
            return Some(format!(
                "spec.settings[{key}] is not known and has no effect"
            ));
        };
        let reason = match setting.requires {
            Requires::Tls if !tls => "without spec.tlsCredentials",
            Requires::NoTls if tls => "with spec.tlsCredentials",
            _ => {
                let reason = setting.check(text).err()?;
                return Some(format!("spec.settings[{key}]: {reason}; it has no effect"));
            }
        };
        Some(format!("spec.settings[{key}] has no effect {reason}"))
    };
    texts.iter().filter_map(note).collect()
}

const NETWORK_NAMESPACE: &str = "network-namespace";
/// Hosts by which others reach a site; `skupper site create --host` writes it.
pub const LINK_ACCESS_HOSTS: &str = "link-access-hosts";
/// Serial numbers of certificates that are not accepted; `skupper link revoke` writes it.
pub const REVOKED_CERTIFICATES: &str = "revoked-certificates";
/// CAs from before this time are replaced; `skupper issuer rotate` writes it.
pub const ROTATE_ISSUERS_BEFORE: &str = "rotate-issuers-before";
/// How long a replaced CA stays trusted; `skupper issuer rotate` writes it.
pub const ISSUER_OVERLAP: &str = "issuer-overlap";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;

    fn texts(pairs: &[(&str, &str)]) -> SettingTexts {
        let pairs = pairs.iter();
        pairs
            .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
            .collect()
    }

    #[test]
    fn defaults_of_the_table_are_those_of_the_types() {
        fn holds<T: TypedSettings + PartialEq + std::fmt::Debug>(setting: &Setting, text: &str) {
            let mut values = T::default();
            values.fill(setting, text).unwrap();
            assert_eq!(values, T::default(), "{}", setting.key);
        }
        for setting in TABLE {
            let Some(text) = setting.default else {
                continue;
            };
            match setting.read {
                Read::Site(_) => holds::<SiteSettings>(setting, text),
                Read::Listener(_) => holds::<ListenerSettings>(setting, text),
                Read::Connector(_) => holds::<ConnectorSettings>(setting, text),
                Read::Link(_) => holds::<LinkSettings>(setting, text),
            }
        }
    }

    #[test]
    fn rows_are_in_order_and_words_are_values() {
        for kind in Kind::ALL {
            let mut keys: Vec<&str> = settings_of(kind).flat_map(Setting::keys).collect();
            let count = keys.len();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), count, "{kind}: a key is there twice");
        }
        for setting in TABLE {
            assert!(!setting.value_syntax().is_empty(), "{}", setting.key);
            assert!(
                !setting.help.ends_with('.') && setting.help.len() < 120,
                "{}",
                setting.key
            );
            for word in setting.words {
                assert_eq!(setting.check(word), Ok(()), "{} {word}", setting.key);
            }
        }
        for key in [
            LINK_ACCESS_HOSTS,
            REVOKED_CERTIFICATES,
            ROTATE_ISSUERS_BEFORE,
            ISSUER_OVERLAP,
        ] {
            assert!(settings_of(Kind::Site).any(|s| s.key == key), "{key}");
        }
        assert!(settings_of(Kind::Listener).any(|s| s.key == NETWORK_NAMESPACE));
    }

    #[test]
    fn settings_become_values_and_stay_as_they_were_written() {
        let written = texts(&[
            ("health-check-interval", "1m30s"),
            ("allow-sites", "west, east"),
            ("other", "x"),
        ]);
        let read: Settings<ConnectorSettings> = read(Kind::Connector, written.clone()).unwrap();
        assert_eq!(read.health_check_interval.as_secs(), 90);
        assert_eq!(read.health_check_failures, 2);
        let sites: Vec<&str> = read
            .allow_sites
            .iter()
            .flatten()
            .map(Name::as_str)
            .collect();
        assert_eq!(sites, ["east", "west"]);
        assert_eq!(*read.texts(), written);
    }

    #[test]
    fn both_spellings_count_and_the_first_wins() {
        let count = |pairs: &[(&str, &str)]| {
            let read: Settings<SiteSettings> = read(Kind::Site, texts(pairs)).unwrap();
            read.data_connections
        };
        let (key, alias) = ("router-data-connection-count", "routerDataConnections");
        assert_eq!(count(&[(key, "3")]), Some(3));
        assert_eq!(count(&[(alias, "3")]), Some(3));
        assert_eq!(count(&[(alias, "3"), (key, "auto")]), None);
        // A site runs without it; the note says so.
        for key in [key, alias, "router-logging"] {
            assert_eq!(count(&[(key, "many")]), None);
            let notes = notes(Kind::Site, &texts(&[(key, "many")]), false);
            assert!(
                notes[0].contains(key) && notes[0].ends_with("has no effect"),
                "{notes:?}"
            );
        }
    }

    #[test]
    fn an_invalid_value_is_an_error_with_its_key() {
        let error = read::<ConnectorSettings>(Kind::Connector, texts(&[("health-check", "icmp")]));
        assert_eq!(
            error.unwrap_err().to_string(),
            "spec.settings[health-check]: \"icmp\" is not one of none, tcp, http"
        );
        let error = read::<ListenerSettings>(
            Kind::MultiKeyListener,
            texts(&[("network-namespace", "pid:1")]),
        );
        assert_eq!(error.unwrap_err().key, "network-namespace");
    }

    #[test]
    fn settings_without_effect_are_noted() {
        let noted = |kind, key, tls| notes(kind, &texts(&[(key, "auto")]), tls);
        assert_eq!(
            noted(Kind::Link, "x", false),
            ["spec.settings[x] is not known and has no effect"]
        );
        assert_eq!(
            noted(Kind::Site, "size", false),
            ["spec.settings[size] has no effect on a host"]
        );
        assert_eq!(
            noted(Kind::Listener, "alpn", false),
            ["spec.settings[alpn] has no effect without spec.tlsCredentials"]
        );
        assert!(noted(Kind::Listener, "alpn", true).is_empty());
        assert_eq!(
            noted(Kind::Connector, "acceleration", true),
            ["spec.settings[acceleration] has no effect with spec.tlsCredentials"]
        );
    }
}
