//! Where a command acts: at the running daemon, over D-Bus, or on the files of a namespace, which a
//! daemon reads when it runs. Verbs do not know which.

mod token;

pub(super) use token::Issued;

use super::{
    Failure,
    ask::{self, AskError},
    output::{self, Progress},
    wait,
};
use crate::{
    control::{self, Absent, Bus, Client, Daemon, Goal, Waited},
    model::{Key, Kind, Namespace},
    operate::{self, LinkWish, Revoked},
    store::{Layout, NamespaceDir},
};
use anyhow::anyhow;
use serde_json::Value;
use std::{
    cell::{Cell, OnceCell},
    path::{Path, PathBuf},
    time::Duration,
};

/// Whose sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The host's.
    System,
    /// The calling user's.
    User,
    /// Those below a directory.
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

enum Way {
    /// And why, where a bus was looked at.
    Files(Option<String>),
    Bus(Box<Client>),
}

/// A namespace, and how to get at it.
pub(super) struct Place {
    pub(super) layout: Layout,
    pub(super) scope: Scope,
    /// The bus that the daemon of this scope is on.
    pub(super) bus: Option<Bus>,
    dir: NamespaceDir,
    way: OnceCell<Way>,
    told: Cell<bool>,
}

impl From<control::Error> for Failure {
    fn from(error: control::Error) -> Self {
        let text = match error {
            control::Error::Invalid(text) => {
                return Self::Invalid(text.lines().map(ToOwned::to_owned).collect());
            }
            control::Error::AccessDenied(text) => format!(
                "not allowed: {text}\nThis is for administrators, members of the group skupper and \
                 whoever the namespace belongs to: try sudo, or --user for sites of your own"
            ),
            control::Error::ZBus(error) => format!("skupperd on D-Bus: {error}"),
            control::Error::NotFound(text)
            | control::Error::Failed(text)
            | control::Error::Timeout(text) => text,
        };
        Self::Failed(anyhow!(text))
    }
}

impl Place {
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
            way: OnceCell::new(),
            told: Cell::new(false),
        }
    }

    /// The namespace's name.
    pub(super) fn name(&self) -> &Namespace {
        self.dir.name()
    }

    /// Directory of the namespace's resources.
    pub(super) fn resources(&self) -> PathBuf {
        self.dir.input_resources()
    }

    /// Finds out how, once.
    fn find(&self) -> Result<&Way, Failure> {
        if let Some(way) = self.way.get() {
            return Ok(way);
        }
        let way = match self.bus.map(|bus| (bus, Client::connect(bus))) {
            None => Way::Files(None),
            Some((_, Ok(client))) => Way::Bus(Box::new(client)),
            // It may have been told to stay away from the bus, or have come before it.
            Some((bus, Err(Absent::Daemon))) if self.layout.holder().is_some() => {
                Way::Files(Some(format!("skupperd is not on the {bus} bus")))
            }
            Some((_, Err(Absent::Daemon))) => {
                Way::Files(Some("skupperd is not running".to_owned()))
            }
            Some((bus, Err(Absent::Bus(error)))) => {
                Way::Files(Some(format!("the {bus} bus can not be reached ({error})")))
            }
        };
        if matches!(way, Way::Files(_)) {
            self.layout.check_format()?;
        }
        Ok(self.way.get_or_init(|| way))
    }

    /// Finds out how; says so, once, where nobody on the bus acts.
    fn way(&self) -> Result<&Way, Failure> {
        let way = self.find()?;
        if let Way::Files(Some(why)) = way
            && !self.told.replace(true)
        {
            output::error(&format!(
                "{why}: files are used, and take effect when skupperd runs"
            ));
        }
        Ok(way)
    }

    /// The daemon, where it is on the bus.
    pub(super) fn daemon(&self) -> Result<Option<Daemon>, Failure> {
        match self.find()? {
            Way::Files(_) => Ok(None),
            Way::Bus(client) => Ok(Some(client.daemon()?)),
        }
    }

    /// Has the daemon read everything again. False: none is on the bus.
    pub(super) fn reload(&self) -> Result<bool, Failure> {
        match self.find()? {
            Way::Files(_) => Ok(false),
            Way::Bus(client) => Ok(client.reload().map(|()| true)?),
        }
    }

    /// Namespaces that there are.
    pub(super) fn namespaces(&self) -> Result<Vec<Namespace>, Failure> {
        Ok(match self.find()? {
            Way::Files(_) => operate::namespaces(&self.layout)?,
            Way::Bus(client) => client.namespaces()?,
        })
    }

    /// Resources of a kind with their statuses.
    pub(super) fn documents(&self, kind: Kind) -> Result<Vec<Value>, Failure> {
        self.way()?;
        self.documents_of(self.name(), kind)
    }

    /// The same of any namespace.
    pub(super) fn documents_of(
        &self,
        namespace: &Namespace,
        kind: Kind,
    ) -> Result<Vec<Value>, Failure> {
        Ok(match self.find()? {
            Way::Files(_) => operate::documents(&self.layout.namespace(namespace), kind)?,
            Way::Bus(client) => client.list(namespace, kind)?,
        })
    }

    /// Writes a resource whole. Gives the file.
    pub(super) fn create(&self, document: &Value) -> Result<String, Failure> {
        Ok(match self.way()? {
            Way::Files(_) => operate::create(&self.dir, document)?.display().to_string(),
            Way::Bus(client) => {
                let text = operate::check(&self.dir, document)?;
                let written = client.apply(self.name(), &text)?;
                written.into_iter().map(|(_, path)| path).collect()
            }
        })
    }

    /// Merges a change into a resource. Gives the file; nothing where there is no such resource.
    pub(super) fn update(
        &self,
        kind: Kind,
        name: &str,
        change: &Value,
    ) -> Result<Option<String>, Failure> {
        Ok(match self.way()? {
            Way::Files(_) => {
                let path = operate::update(&self.dir, kind, name, change)?;
                path.map(|path| path.display().to_string())
            }
            Way::Bus(client) => client.update(self.name(), kind, name, change)?,
        })
    }

    /// Deletes a resource. Gives it and what went with it; nothing where there is no such resource.
    pub(super) fn delete(&self, kind: Kind, name: &str) -> Result<Vec<Key>, Failure> {
        Ok(match self.way()? {
            Way::Files(_) => operate::delete(&self.dir, kind, name)?,
            Way::Bus(client) => client.delete(self.name(), kind, name)?,
        })
    }

    /// Applies the resources of a text: all of them, or none. Gives each with its file.
    pub(super) fn apply(&self, path: &Path, text: &str) -> Result<Vec<(Key, String)>, Failure> {
        match self.way()? {
            Way::Files(_) => {
                let applied = operate::apply(&self.dir, path, text)?.into_iter();
                let applied = applied.map(|(key, path)| (key, path.display().to_string()));
                Ok(applied.collect())
            }
            Way::Bus(client) => {
                // What is wrong with the text itself, the daemon need not be told.
                operate::applied(&self.dir, path, text)?;
                let applied = client.apply(self.name(), text);
                Ok(applied.map_err(|e| of_file(e, path))?)
            }
        }
    }

    /// The resources that a text names.
    pub(super) fn named(&self, path: &Path, text: &str) -> Result<Vec<Key>, Failure> {
        let named = operate::applied(&self.dir, path, text)?;
        Ok(named.iter().map(|located| located.resource.key()).collect())
    }

    /// Removes the namespace. False: there is none.
    pub(super) fn remove(&self) -> Result<bool, Failure> {
        Ok(match self.way()? {
            Way::Files(_) => operate::remove_namespace(&self.dir)?,
            Way::Bus(client) => client.delete_namespace(self.name())?,
        })
    }

    /// A link for another site.
    pub(super) fn generate_link(&self, wish: LinkWish) -> Result<String, Failure> {
        Ok(match self.way()? {
            Way::Files(_) => operate::generate_link(&self.dir, wish)?,
            Way::Bus(client) => client.generate_link(self.name(), &wish)?,
        })
    }

    /// Takes back what a remote site was given.
    pub(super) fn revoke(&self, name: &str) -> Result<Vec<Revoked>, Failure> {
        Ok(match self.way()? {
            Way::Files(_) => operate::revoke(&self.dir, name)?,
            Way::Bus(client) => client.revoke_link(self.name(), name)?,
        })
    }

    /// Replaces the site's own CAs.
    pub(super) fn rotate(&self, overlap: Option<&str>) -> Result<(), Failure> {
        match self.way()? {
            Way::Files(_) => operate::rotate(&self.dir, overlap)?,
            Way::Bus(client) => client.rotate_issuers(self.name(), overlap)?,
        }
        Ok(())
    }

    /// The CAs of the site's own.
    pub(super) fn issuers(&self) -> Result<Vec<Value>, Failure> {
        Ok(match self.way()? {
            Way::Files(_) => operate::issuers(&self.dir)?,
            Way::Bus(client) => client.issuers(self.name())?,
        })
    }

    /// What the kernel steers where, as the daemon says; none: it does not run.
    pub(super) fn steering(&self) -> Result<Option<Value>, Failure> {
        if let Way::Bus(client) = self.find()? {
            return Ok(Some(client.steering()?));
        }
        let answer = match ask::get(self.layout.runtime(), "/steering") {
            Ok(answer) => answer.body().map_err(|e| anyhow!(e))?,
            Err(AskError::Absent(_)) => return Ok(None),
            Err(error) => return Err(anyhow!(error).into()),
        };
        let listing = serde_json::from_str(&answer);
        Ok(Some(listing.map_err(|e| anyhow!("steering: {e}"))?))
    }

    /// Waits for the effect of a change, where a daemon says when. Nothing where none does, or where
    /// there is no site that it could have an effect on.
    pub(super) fn wait(
        &self,
        key: &Key,
        goal: Goal<'_>,
        most: Duration,
    ) -> Result<Option<Waited>, Failure> {
        let Way::Bus(client) = self.way()? else {
            return Ok(None);
        };
        let applied = matches!(goal, Goal::Applied { .. });
        if applied && key.kind != Kind::Site && self.documents(Kind::Site)?.is_empty() {
            output::print(wait::NO_SITE)?;
            return Ok(None);
        }
        let _waiting = Progress::new(&format!("Waiting for {key}"));
        Ok(Some(client.wait(self.name(), key, goal, most)?))
    }
}

/// The daemon has a file's text from this command, and knows no name for it.
fn of_file(error: control::Error, path: &Path) -> control::Error {
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
