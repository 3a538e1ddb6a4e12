//! The target of a command: a namespace, reached through the running daemon over D-Bus, or through its
//! files where no daemon is on the bus. Verbs do not know which of the two.
//!
//! The first use connects to the bus; the result is kept for the run of the command. Files are what the
//! daemon reads too, so a change made without it takes effect when it runs.

mod token;

pub(super) use token::{IssuedToken, POLL_INTERVAL};

use super::{
    Failure,
    daemon_http::{self, DaemonHttpError},
    output::{self, Progress},
};
use crate::{
    control::{self, Bus, BusConnectError, Daemon, DaemonClient, WaitGoal, WaitOutcome},
    manifest::ManifestError,
    model::{Key, Kind, Namespace},
    operate::{self, AppliedResource, Existing, LinkOptions, ParsedText, RevokedCertificate},
    store::{DaemonState, Layout, NamespaceDir},
};
use anyhow::anyhow;
use serde_json::Value;
use std::{
    cell::{Cell, OnceCell},
    path::{Path, PathBuf},
    time::Duration,
};

/// Printed instead of waiting.
const NO_SITE: &str =
    "There is no site in the namespace yet; the change takes effect when there is one.";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    System,
    User,
    /// `--root DIR`
    Root,
}

impl Scope {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Root => "directory",
        }
    }
}

/// How resources are deleted.
pub(super) enum Deletion<'a> {
    Files(operate::Deleter),
    Daemon(&'a DaemonClient, &'a Namespace),
}

impl Deletion<'_> {
    /// Deletes a resource. Returns it and what was deleted with it; empty if it does not exist.
    pub(super) fn delete(&mut self, kind: Kind, name: &str) -> Result<Vec<Key>, Failure> {
        Ok(match self {
            Self::Files(deleter) => deleter.delete(kind, name)?,
            Self::Daemon(client, namespace) => client.delete(namespace, kind, name)?,
        })
    }
}

enum Backend {
    /// With the reason, if there should be a daemon on a bus.
    Files(Option<String>),
    Daemon(Box<DaemonClient>),
}

pub(super) struct CommandTarget {
    pub(super) layout: Layout,
    pub(super) scope: Scope,
    /// The bus that the daemon of this scope is on.
    pub(super) bus: Option<Bus>,
    dir: NamespaceDir,
    backend: OnceCell<Backend>,
    notice_printed: Cell<bool>,
}

impl From<control::Error> for Failure {
    fn from(error: control::Error) -> Self {
        let text = match error {
            control::Error::Invalid(text) => {
                return Self::Invalid(text.lines().map(ToOwned::to_owned).collect());
            }
            control::Error::AccessDenied(text) => format!(
                "permission denied: {text}\nOnly administrators, members of the group skupper and the \
                 owner of the namespace may do this: try sudo, or --user for sites of your own"
            ),
            control::Error::ZBus(error) => format!("skupperd on D-Bus: {error}"),
            control::Error::NotFound(text)
            | control::Error::Failed(text)
            | control::Error::Timeout(text) => text,
        };
        Self::Failed(anyhow!(text))
    }
}

impl CommandTarget {
    pub(super) fn new(
        layout: Layout,
        scope: Scope,
        bus: Option<Bus>,
        namespace: &Namespace,
    ) -> Self {
        Self {
            dir: layout.namespace(namespace),
            layout,
            scope,
            bus,
            backend: OnceCell::new(),
            notice_printed: Cell::new(false),
        }
    }

    pub(super) fn name(&self) -> &Namespace {
        self.dir.name()
    }

    pub(super) fn resources(&self) -> PathBuf {
        self.dir.input_resources()
    }

    /// Connects to the daemon, or chooses the files. Once: later calls return the same.
    fn connect(&self) -> Result<&Backend, Failure> {
        if let Some(backend) = self.backend.get() {
            return Ok(backend);
        }
        let backend = match self.bus.map(|bus| (bus, DaemonClient::connect(bus))) {
            None => Backend::Files(None),
            Some((_, Ok(client))) => Backend::Daemon(Box::new(client)),
            // It runs without a bus, or the bus started after it.
            Some((bus, Err(BusConnectError::NoDaemon))) if self.layout.holder().is_some() => {
                Backend::Files(Some(format!("skupperd is not on the {bus} bus")))
            }
            Some((_, Err(BusConnectError::NoDaemon))) => {
                Backend::Files(Some("skupperd is not running".to_owned()))
            }
            Some((bus, Err(BusConnectError::Bus(error)))) => {
                Backend::Files(Some(format!("cannot reach the {bus} bus ({error})")))
            }
        };
        if matches!(backend, Backend::Files(_)) {
            self.layout.check_format()?;
        }
        Ok(self.backend.get_or_init(|| backend))
    }

    /// As [`Self::connect`], with a warning, once, where files are used in place of a daemon.
    fn backend(&self) -> Result<&Backend, Failure> {
        let backend = self.connect()?;
        if let Backend::Files(Some(reason)) = backend
            && !self.notice_printed.replace(true)
        {
            output::error(&format!(
                "{reason}: using the files of the namespace, which skupperd reads when it runs"
            ));
        }
        Ok(backend)
    }

    /// The daemon, if it is on the bus.
    pub(super) fn daemon(&self) -> Result<Option<Daemon>, Failure> {
        match self.connect()? {
            Backend::Files(_) => Ok(None),
            Backend::Daemon(client) => Ok(Some(client.daemon()?)),
        }
    }

    /// What the daemon does, on whose word statuses are.
    pub(super) fn daemon_state(&self) -> Result<DaemonState, Failure> {
        Ok(match self.connect()? {
            Backend::Daemon(client) => client.state()?,
            Backend::Files(_) => match self.layout.daemon_state() {
                DaemonState::Absent if self.answers() => DaemonState::Running,
                state => state,
            },
        })
    }

    /// Whether a daemon serves the socket of the runtime directory: its process may be in another PID
    /// namespace.
    fn answers(&self) -> bool {
        let answer = daemon_http::get(self.layout.runtime(), "/healthz");
        !matches!(answer, Err(DaemonHttpError::NotRunning(_)))
    }

    /// Fails after statuses were shown of a daemon that does not run.
    pub(super) fn ensure_running(&self) -> Result<(), Failure> {
        match self.daemon_state()? {
            DaemonState::Running => Ok(()),
            _ => Err(Failure::NotRunning),
        }
    }

    /// Makes the daemon read all resources again. False: no daemon is on the bus.
    pub(super) fn reload(&self) -> Result<bool, Failure> {
        match self.connect()? {
            Backend::Files(_) => Ok(false),
            Backend::Daemon(client) => Ok(client.reload().map(|()| true)?),
        }
    }

    pub(super) fn namespaces(&self) -> Result<Vec<Namespace>, Failure> {
        Ok(match self.connect()? {
            Backend::Files(_) => operate::namespaces(&self.layout)?,
            Backend::Daemon(client) => client.namespaces()?,
        })
    }

    /// The resources of a kind with their statuses.
    pub(super) fn documents(&self, kind: Kind) -> Result<Vec<Value>, Failure> {
        self.backend()?;
        self.documents_of(self.name(), kind)
    }

    /// As [`Self::documents`], of any namespace.
    pub(super) fn documents_of(
        &self,
        namespace: &Namespace,
        kind: Kind,
    ) -> Result<Vec<Value>, Failure> {
        Ok(match self.connect()? {
            Backend::Files(_) => {
                let namespace = self.layout.namespace(namespace);
                operate::documents(&namespace, kind, self.daemon_state()?)?
            }
            Backend::Daemon(client) => client.list(namespace, kind)?,
        })
    }

    /// Errors of the input files of a namespace.
    pub(super) fn input_errors(
        &self,
        namespace: &Namespace,
    ) -> Result<Vec<ManifestError>, Failure> {
        Ok(match self.connect()? {
            Backend::Files(_) => operate::input_errors(&self.layout.namespace(namespace))?,
            Backend::Daemon(client) => client.input_errors(namespace)?,
        })
    }

    /// Writes a whole resource. Returns its file.
    pub(super) fn create(&self, document: &Value, existing: Existing) -> Result<PathBuf, Failure> {
        Ok(match self.backend()? {
            Backend::Files(_) => operate::create(&self.dir, document, existing)?,
            Backend::Daemon(client) => {
                let text = operate::check(&self.dir, document)?;
                let written = client.apply(self.name(), &text, existing);
                let written = written.map_err(|error| match error {
                    control::Error::Failed(text) => {
                        control::Error::Failed(operate::without_positions(&text))
                    }
                    other => other,
                })?;
                written.into_iter().map(|applied| applied.file).collect()
            }
        })
    }

    /// Merges a change into a resource. Returns its file; none if the resource does not exist.
    pub(super) fn update(
        &self,
        kind: Kind,
        name: &str,
        change: &Value,
    ) -> Result<Option<String>, Failure> {
        Ok(match self.backend()? {
            Backend::Files(_) => {
                let path = operate::update(&self.dir, kind, name, change)?;
                path.map(|path| path.display().to_string())
            }
            Backend::Daemon(client) => client.update(self.name(), kind, name, change)?,
        })
    }

    /// Deletes a resource. Returns it and what was deleted with it; empty if it does not exist.
    pub(super) fn delete(&self, kind: Kind, name: &str) -> Result<Vec<Key>, Failure> {
        self.deletion()?.delete(kind, name)
    }

    /// Deletes several resources. No other writer has the files until it is dropped.
    pub(super) fn deletion(&self) -> Result<Deletion<'_>, Failure> {
        Ok(match self.backend()? {
            Backend::Files(_) => Deletion::Files(operate::Deleter::new(&self.dir)?),
            Backend::Daemon(client) => Deletion::Daemon(client, self.name()),
        })
    }

    /// Applies the resources of a text: all of them, or none.
    pub(super) fn apply(&self, path: &Path, text: &str) -> Result<Vec<AppliedResource>, Failure> {
        let replace = Existing::Replace;
        let backend = self.backend()?;
        // Errors of the text itself are found here, with the name of the file.
        let parsed = self.parse(path, text)?;
        match backend {
            Backend::Files(_) => Ok(operate::apply(&self.dir, path, text, replace)?),
            Backend::Daemon(client) => {
                let applied = client.apply(self.name(), &parsed.text, replace);
                Ok(applied.map_err(|e| with_file_name(e, path))?)
            }
        }
    }

    /// The resources that a text names.
    pub(super) fn keys_in(&self, path: &Path, text: &str) -> Result<Vec<Key>, Failure> {
        let named = self.parse(path, text)?.resources;
        Ok(named.iter().map(|located| located.resource.key()).collect())
    }

    /// The resources of a text, with a warning for each document that is none of ours.
    fn parse<'a>(&self, path: &Path, text: &'a str) -> Result<ParsedText<'a>, Failure> {
        let parsed = operate::parse_documents(&self.dir, path, text)?;
        for ignored in &parsed.ignored {
            output::error(&format!("ignored {ignored}"));
        }
        Ok(parsed)
    }

    /// Removes the namespace. False: it does not exist.
    pub(super) fn remove_namespace(&self) -> Result<bool, Failure> {
        Ok(match self.backend()? {
            Backend::Files(_) => operate::remove_namespace(&self.dir)?,
            Backend::Daemon(client) => client.delete_namespace(self.name())?,
        })
    }

    /// A Link and its Secret for another site.
    pub(super) fn generate_link(&self, options: LinkOptions) -> Result<String, Failure> {
        Ok(match self.backend()? {
            Backend::Files(_) => operate::generate_link(&self.dir, options)?,
            Backend::Daemon(client) => client.generate_link(self.name(), &options)?,
        })
    }

    /// Revokes the certificates of a remote site.
    pub(super) fn revoke_link(&self, name: &str) -> Result<Vec<RevokedCertificate>, Failure> {
        Ok(match self.backend()? {
            Backend::Files(_) => operate::revoke(&self.dir, name)?,
            Backend::Daemon(client) => client.revoke_link(self.name(), name)?,
        })
    }

    pub(super) fn rotate_issuers(&self, overlap: Option<&str>) -> Result<(), Failure> {
        match self.backend()? {
            Backend::Files(_) => operate::rotate(&self.dir, overlap)?,
            Backend::Daemon(client) => client.rotate_issuers(self.name(), overlap)?,
        }
        Ok(())
    }

    pub(super) fn issuers(&self) -> Result<Vec<Value>, Failure> {
        Ok(match self.backend()? {
            Backend::Files(_) => operate::issuers(&self.dir)?,
            Backend::Daemon(client) => client.issuers(self.name())?,
        })
    }

    /// The daemon's list of steered addresses; none if it does not run.
    pub(super) fn steering(&self) -> Result<Option<Value>, Failure> {
        if let Backend::Daemon(client) = self.connect()? {
            return Ok(Some(client.steering()?));
        }
        let answer = match daemon_http::get(self.layout.runtime(), "/steering") {
            Ok(answer) => answer.body().map_err(|e| anyhow!(e))?,
            Err(DaemonHttpError::NotRunning(_)) => return Ok(None),
            Err(error) => return Err(anyhow!(error).into()),
        };
        let listing = serde_json::from_str(&answer);
        Ok(Some(listing.map_err(|e| anyhow!("steering: {e}"))?))
    }

    /// Waits for the effect of a change. None without a daemon on the bus, and without a site, which the
    /// change would have an effect on.
    pub(super) fn wait(
        &self,
        key: &Key,
        goal: WaitGoal<'_>,
        timeout: Duration,
    ) -> Result<Option<WaitOutcome>, Failure> {
        let Backend::Daemon(client) = self.backend()? else {
            return Ok(None);
        };
        let applied = matches!(goal, WaitGoal::Applied { .. });
        if applied && key.kind != Kind::Site && self.documents(Kind::Site)?.is_empty() {
            output::print(NO_SITE)?;
            return Ok(None);
        }
        let _progress = Progress::new(&format!("Waiting for {key}"));
        Ok(Some(client.wait(self.name(), key, goal, timeout)?))
    }
}

/// The daemon got the text of a file without its name: puts the name into its errors.
fn with_file_name(error: control::Error, path: &Path) -> control::Error {
    let lines = |text: String| {
        let lines = text.lines().map(|line| match line.strip_prefix("-:") {
            Some(rest) => format!("{}:{rest}", path.display()),
            None => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    match error {
        control::Error::Invalid(text) => control::Error::Invalid(lines(text)),
        control::Error::Failed(text) => control::Error::Failed(lines(text)),
        other => other,
    }
}
