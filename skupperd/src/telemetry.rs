//! Logging, and errors in log messages.
//!
//! [`Logging`] is made once, at the start. It writes lines to standard error, or to the journal with
//! fields where systemd reads it (`journal`). The reconcile loop changes levels while the daemon runs:
//! sites request them by module ([`LogModule`]), and the most verbose request counts for the process.
//!
//! Any thread logs. A message is a constant with fields; [`chain`] makes one text of an error and its
//! causes. What a peer can repeat is counted and logged at most once in ten seconds
//! ([`Failures`]), with the field `suppressed`.

mod events;
mod failures;
mod journal;

use crate::model::{LogLevel, LogModule, LogRule};
pub use failures::Failures;
use journal::JournalLayer;
use std::{collections::BTreeMap, error::Error, io::IsTerminal};
pub use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Registry, filter::Targets, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

pub type LogLevels = BTreeMap<&'static str, LevelFilter>;

/// The levels that the rules of a site ask for; where rules overlap, the more verbose one counts.
pub fn levels_of(rules: &[LogRule]) -> LogLevels {
    let mut levels = LogLevels::new();
    for rule in rules {
        let level = match rule.level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        };
        for target in targets_of(rule.module) {
            let wanted = levels.entry(target).or_insert(level);
            *wanted = level.max(*wanted);
        }
    }
    levels
}

/// Modules of this program that do what a module of Skupper's router does.
fn targets_of(module: LogModule) -> &'static [&'static str] {
    match module {
        LogModule::All => &["skupperd"],
        LogModule::Router => &["skupperd::router", "skupperd::core"],
        LogModule::Links => &[
            "skupperd::link",
            "skupperd::peering",
            "skupperd::core",
            "skupperd::worker",
            "skupperd::messages",
        ],
        // Policies are data of `service`; what they deny is logged where connections are.
        LogModule::Policy => &["skupperd::service", "skupperd::proxy"],
        LogModule::Protocol => &["skupperd::amqp", "skupperd::link::conn"],
        LogModule::Tcp => &[
            "skupperd::proxy",
            "skupperd::service",
            "skupperd::steer",
            "skupperd::core::site::services",
            "skupperd::worker::accept",
        ],
        LogModule::Flows => &["skupperd::flows", "skupperd::core::site::vanflow"],
        LogModule::Http => &["skupperd::observe", "skupperd::http_server"],
        LogModule::Agent => &["skupperd::control"],
        LogModule::Absent => &[],
    }
}

/// Changes the log levels while the program runs.
#[derive(Debug)]
pub struct Logging {
    handle: reload::Handle<Targets, Registry>,
    /// The filter of `SKUPPER_LOG`.
    base: Targets,
    levels: LogLevels,
}

impl Logging {
    /// Sets levels of modules, on top of the filter of `SKUPPER_LOG`.
    pub fn set_levels(&mut self, levels: LogLevels) {
        if self.levels == levels {
            return;
        }
        let wanted = levels.iter().map(|(module, level)| (*module, *level));
        let filter = self.base.clone().with_targets(wanted);
        // Before the reload: the new filter may hide it.
        tracing::info!(%filter, "changing log levels");
        if let Err(error) = self.handle.reload(filter) {
            tracing::error!(%error, "cannot change log levels");
        }
        self.levels = levels;
    }
}

/// An error with all its causes, on one line.
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

/// Starts logging: to the journal when standard error is connected to it, else to standard error.
/// `SKUPPER_LOG` is a filter such as `info,skupperd::link=debug`; an invalid one is ignored, because an
/// invalid log level must not stop the sites.
pub fn init() -> Logging {
    let base = std::env::var("SKUPPER_LOG").ok();
    let base = base.filter(|text| !text.is_empty());
    let base = base.and_then(|text| text.parse::<Targets>().ok());
    let base = base.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let (filter, handle) = reload::Layer::new(base.clone());
    let logging = Logging {
        handle,
        base,
        levels: LogLevels::new(),
    };
    let registry = tracing_subscriber::registry().with(filter);
    if libsystemd::logging::connected_to_journal() {
        let identifier = "skupperd";
        registry.with(JournalLayer { identifier }).init();
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::BTreeSet,
        fs,
        path::{Path, PathBuf},
    };

    const MODULES: [LogModule; 10] = [
        LogModule::All,
        LogModule::Router,
        LogModule::Links,
        LogModule::Policy,
        LogModule::Protocol,
        LogModule::Tcp,
        LogModule::Flows,
        LogModule::Http,
        LogModule::Agent,
        LogModule::Absent,
    ];
    /// Modules whose job Skupper's router does not have: its controller or the system does it there.
    /// A rule without a module is for them too.
    const NOT_OF_A_ROUTER: [&str; 11] = [
        "access",
        "daemon",
        "manifest",
        "netlink",
        "pki",
        "reconcile",
        "simulation",
        "store",
        "sys",
        "telemetry",
        "workload",
    ];

    fn sources() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
    }

    fn logs(path: &Path) -> bool {
        if path.is_dir() {
            let mut entries = fs::read_dir(path).unwrap();
            return entries.any(|entry| logs(&entry.unwrap().path()));
        }
        let text = fs::read_to_string(path).unwrap();
        ["trace", "debug", "info", "warn", "error"]
            .iter()
            .any(|level| text.contains(&format!("tracing::{level}!")))
    }

    /// Top-level modules that log, by name.
    fn logging_modules() -> BTreeSet<String> {
        let entries = fs::read_dir(sources()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let names = paths.filter(|path| logs(path)).map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap();
            name.to_owned()
        });
        // Programs are crates of their own.
        names.filter(|name| name != "bin").collect()
    }

    #[test]
    fn log_rules_reach_every_module_that_logs() {
        let of_a_router: BTreeSet<&str> = MODULES
            .iter()
            .flat_map(|module| targets_of(*module))
            .filter_map(|target| target.split("::").nth(1))
            .collect();
        let logging = logging_modules();
        for module in &logging {
            let module = module.as_str();
            assert!(
                of_a_router.contains(module) != NOT_OF_A_ROUTER.contains(&module),
                "{module} belongs in targets_of or in NOT_OF_A_ROUTER"
            );
        }
        for module in NOT_OF_A_ROUTER {
            assert!(logging.contains(module), "{module} does not log");
        }
    }

    #[test]
    fn log_targets_are_modules() {
        for target in MODULES.iter().flat_map(|module| targets_of(*module)) {
            let path = target.split("::").skip(1).collect::<PathBuf>();
            let path = sources().join(path);
            let file = path.with_extension("rs");
            assert!(path.is_dir() || file.is_file(), "{target} is no module");
        }
    }

    #[test]
    fn overlapping_log_rules_take_the_more_verbose_level() {
        let rule = |module, level| LogRule { module, level };
        let levels = levels_of(&[
            rule(LogModule::Tcp, LogLevel::Trace),
            rule(LogModule::Policy, LogLevel::Warn),
            rule(LogModule::Flows, LogLevel::Debug),
        ]);
        assert_eq!(levels["skupperd::proxy"], LevelFilter::TRACE);
        assert_eq!(levels["skupperd::service"], LevelFilter::TRACE);
        assert_eq!(levels["skupperd::flows"], LevelFilter::DEBUG);
        assert!(!levels.contains_key("skupperd::router"));
    }
}
