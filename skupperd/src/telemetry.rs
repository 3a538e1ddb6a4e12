//! Logs, and errors in them.

use std::{collections::BTreeMap, error::Error, io::IsTerminal};
pub use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

/// What of the program is logged from which level on, by module.
pub type LogLevels = BTreeMap<&'static str, LevelFilter>;

/// Changes what is logged while the program runs.
#[derive(Debug)]
pub struct Logging {
    handle: reload::Handle<EnvFilter, Registry>,
    /// What was asked for at the start.
    base: String,
    levels: LogLevels,
}

impl Logging {
    /// Logs these beside, or in place of, what was asked for at the start.
    pub fn set(&mut self, levels: LogLevels) {
        if self.levels == levels {
            return;
        }
        let wanted = levels
            .iter()
            .map(|(module, level)| format!(",{module}={level}"));
        let filter = format!("{}{}", self.base, wanted.collect::<String>());
        // Said while either lets it through.
        tracing::info!(filter, "what is logged changes");
        if let Err(error) = self.handle.reload(EnvFilter::new(&filter)) {
            tracing::error!(%error, filter, "what is logged stays as it was");
        }
        self.levels = levels;
    }
}

/// An error with everything that caused it, on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Sets logging up: to the journal when it is what standard error goes to, else to standard error.
/// `SKUPPER_LOG` holds a filter such as `info,skupperd::link=debug`.
pub fn init() -> Logging {
    let base = std::env::var("SKUPPER_LOG").ok();
    let base = base.filter(|text| EnvFilter::try_new(text).is_ok());
    let base = base.unwrap_or_else(|| "info".to_owned());
    let (filter, handle) = reload::Layer::new(EnvFilter::new(&base));
    let logging = Logging {
        handle,
        base,
        levels: LogLevels::new(),
    };
    let registry = tracing_subscriber::registry().with(filter);
    if libsystemd::logging::connected_to_journal()
        && let Ok(journal) = tracing_journald::layer()
    {
        registry.with(journal.with_field_prefix(None)).init();
        return logging;
    }
    registry
        .with(
            tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(std::io::stderr().is_terminal())
                .with_target(false),
        )
        .init();
    logging
}
