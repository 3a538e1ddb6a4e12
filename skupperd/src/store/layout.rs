//! Where a scope keeps things.

use super::StoreError;
use crate::model::check_namespace;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Base directories of a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    input: PathBuf,
    state: PathBuf,
}

impl Layout {
    /// The system's: input below `/etc/skupper`, state below `/var/lib/skupper`.
    pub fn system() -> Self {
        Self {
            input: "/etc/skupper".into(),
            state: "/var/lib/skupper".into(),
        }
    }

    /// A user's: both below `$XDG_DATA_HOME/skupper`, by default `~/.local/share/skupper`.
    pub fn user() -> Option<Self> {
        let data = std::env::var_os("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|p| p.is_absolute());
        let data = data.or_else(|| Some(std::env::home_dir()?.join(".local/share")))?;
        Some(Self::root(&data.join("skupper")))
    }

    /// Everything below one directory.
    pub fn root(dir: &Path) -> Self {
        Self {
            input: dir.to_owned(),
            state: dir.to_owned(),
        }
    }

    /// Directory of all namespaces' input.
    pub fn namespaces(&self) -> PathBuf {
        self.input.join("namespaces")
    }

    /// Lock of the one daemon of this scope.
    pub fn instance_lock(&self) -> PathBuf {
        self.state.join("namespaces/controller.lock")
    }

    /// A namespace; it need not exist.
    pub fn namespace(&self, name: &str) -> Namespace {
        Namespace {
            name: name.to_owned(),
            input: self.namespaces().join(name),
            state: self.state.join("namespaces").join(name),
        }
    }

    /// Namespaces that have a directory.
    pub fn list(&self) -> Result<Vec<Namespace>, StoreError> {
        let dir = self.namespaces();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(StoreError::new("reading directory", &dir)(e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(StoreError::new("reading directory", &dir))?;
            if let Some(name) = entry.file_name().to_str()
                && check_namespace(name).is_ok()
                && entry.path().is_dir()
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names
            .into_iter()
            .map(|name| self.namespace(&name))
            .collect())
    }
}

/// Directories of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    input: PathBuf,
    state: PathBuf,
}

impl Namespace {
    /// Manifests.
    pub fn input(&self) -> PathBuf {
        self.input.join("input/resources")
    }

    /// File of a resource that a command writes.
    pub fn resource_file(&self, kind: &str, name: &str) -> PathBuf {
        self.input().join(format!("{kind}-{name}.yaml"))
    }

    /// Resources with their status.
    pub fn resources(&self) -> PathBuf {
        self.state.join("runtime/resources")
    }

    /// Issued credentials.
    pub fn credentials(&self, name: &str) -> PathBuf {
        self.state.join("runtime/certs").join(name)
    }

    /// A CA.
    pub fn issuer(&self, name: &str) -> PathBuf {
        self.state.join("runtime/issuers").join(name)
    }

    /// What the daemon remembers of the namespace.
    pub fn memory(&self) -> PathBuf {
        self.state.join("internal/site.json")
    }

    /// Lock for changes by several commands at once.
    pub fn lock_file(&self) -> PathBuf {
        self.state.join("internal/lock")
    }
}
