//! Log events as entries of the systemd journal.
//!
//! `journalctl`, `systemctl status` and log shippers show nothing but `MESSAGE`, so it has everything: the
//! message, the fields, and the error at the end. The fields are also entries of their own, with the
//! prefix `SKUPPER_`, to filter by: `journalctl SKUPPER_LISTENER=web`. Events that matter to operators
//! have a `MESSAGE_ID` too (`events`).

use libsystemd::logging::{Priority, journal_send};
use std::fmt::{self, Write as _};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

/// A layer that sends each event to the journal.
#[derive(Debug)]
pub(super) struct JournalLayer {
    /// What `journalctl --identifier` filters by: the name of the program.
    pub(super) identifier: &'static str,
}

impl<S: Subscriber> Layer<S> for JournalLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut entry = JournalRecord::default();
        event.record(&mut entry);
        let metadata = event.metadata();
        let line = metadata.line().unwrap_or_default().to_string();
        let own = [
            ("SYSLOG_IDENTIFIER", self.identifier),
            ("SKUPPER_MODULE", metadata.target()),
            ("CODE_FILE", metadata.file().unwrap_or_default()),
            ("CODE_LINE", &line),
        ];
        let message = entry.message();
        let fields = entry.fields.iter();
        let fields = fields.map(|(name, value)| (journal_name(name), value.as_str()));
        let id = super::events::message_id(&entry.text);
        let id = id.map(|id| ("MESSAGE_ID", id));
        let all = own
            .into_iter()
            .chain(id)
            .map(|(name, value)| (name.to_owned(), value))
            .chain(fields);
        if let Err(error) = journal_send(priority(*metadata.level()), &message, all) {
            // The journal does not answer; the service's standard error may lead elsewhere.
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("{message} (cannot write to the journal: {error})\n"),
            );
        }
    }
}

fn priority(level: Level) -> Priority {
    match level {
        Level::ERROR => Priority::Error,
        Level::WARN => Priority::Warning,
        Level::INFO => Priority::Info,
        _ => Priority::Debug,
    }
}

/// `routing_key` is `SKUPPER_ROUTING_KEY`. The journal allows letters, digits and `_`, 64 bytes in all.
fn journal_name(field: &str) -> String {
    let letters = field.chars().map(|c| match c {
        c if c.is_ascii_alphanumeric() => c.to_ascii_uppercase(),
        _ => '_',
    });
    "SKUPPER_".chars().chain(letters).take(64).collect()
}

/// An event as it is read, field by field.
#[derive(Default)]
struct JournalRecord {
    text: String,
    error: Option<String>,
    fields: Vec<(&'static str, String)>,
}

impl JournalRecord {
    fn add(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.text = value,
            name => {
                if name == "error" {
                    self.error = Some(value.clone());
                }
                self.fields.push((name, value));
            }
        }
    }

    /// `cannot listen namespace=default listener=web: address in use`, on one line.
    fn message(&self) -> String {
        let mut message = self.text.clone();
        for (name, value) in &self.fields {
            if *name == "error" {
                continue;
            }
            // Writing to a String does not fail.
            let _ = if value.is_empty() || value.contains([' ', '"', '=', '\n']) {
                write!(message, " {name}={value:?}")
            } else {
                write!(message, " {name}={value}")
            };
        }
        if let Some(error) = &self.error {
            let _ = write!(message, ": {error}");
        }
        // An entry of several lines could pass for several entries.
        message
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    }
}

impl Visit for JournalRecord {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, super::chain(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::SubscriberExt;

    /// A message, and the journal's names of its fields.
    type JournalEntry = (String, Vec<String>);

    #[derive(Clone, Default)]
    struct Entries(Arc<Mutex<Vec<JournalEntry>>>);

    impl<S: Subscriber> Layer<S> for Entries {
        fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
            let mut entry = JournalRecord::default();
            event.record(&mut entry);
            let names = entry.fields.iter().map(|(name, _)| journal_name(name));
            let names = names.collect();
            self.0.lock().unwrap().push((entry.message(), names));
        }
    }

    #[test]
    fn the_message_has_the_fields_and_ends_with_the_error() {
        let entries = Entries::default();
        let subscriber = tracing_subscriber::registry().with(entries.clone());
        tracing::subscriber::with_default(subscriber, || {
            let error = "tls.key is missing";
            tracing::error!(namespace = %"default", resource = "Link east", error, "cannot apply resource");
            tracing::info!(listener = %"web", routing_key = "web", port = 80, "listening");
            tracing::warn!(peer = "a\nlink established", "cannot accept");
            tracing::info!("skupperd is ready");
        });
        let entries = entries.0.lock().unwrap();
        let messages: Vec<_> = entries
            .iter()
            .map(|(message, _)| message.as_str())
            .collect();
        assert_eq!(
            messages,
            [
                "cannot apply resource namespace=default resource=\"Link east\": tls.key is missing",
                "listening listener=web routing_key=web port=80",
                "cannot accept peer=\"a\\nlink established\"",
                "skupperd is ready",
            ]
        );
        assert_eq!(
            entries[0].1,
            ["SKUPPER_NAMESPACE", "SKUPPER_RESOURCE", "SKUPPER_ERROR"]
        );
        assert_eq!(entries[1].1[1], "SKUPPER_ROUTING_KEY");
    }

    #[test]
    fn names_of_fields_are_names_of_the_journal() {
        assert_eq!(journal_name("r#type"), "SKUPPER_R_TYPE");
        assert_eq!(journal_name(&"x".repeat(100)).len(), 64);
    }
}
