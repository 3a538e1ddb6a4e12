//! Paths of everything that the daemon and the command read and write.

use super::{
    StoreError,
    files::{DirHandle, split},
};
use crate::model::{Key, Name, Namespace};
use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    io,
    path::{Path, PathBuf},
};

/// Base directories of a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    input: PathBuf,
    state: PathBuf,
    runtime: PathBuf,
    credentials: Option<PathBuf>,
}

impl Layout {
    /// The system scope: input below `/etc/skupper`, state below `/var/lib/skupper`, sockets in
    /// `/run/skupper`.
    pub fn system() -> Self {
        Self {
            input: "/etc/skupper".into(),
            state: "/var/lib/skupper".into(),
            runtime: "/run/skupper".into(),
            credentials: None,
        }
    }

    /// Sets the directory in which the service manager has put the service's credentials.
    #[must_use]
    pub fn with_credentials(self, dir: Option<PathBuf>) -> Self {
        Self {
            credentials: dir,
            ..self
        }
    }

    /// The scope of the calling user: input and state below `$XDG_DATA_HOME/skupper`, by default
    /// `~/.local/share/skupper`; sockets in `$XDG_RUNTIME_DIR/skupper` if that variable is set.
    pub fn user() -> Result<Self, StoreError> {
        let layout = Self::of_user(std::env::var_os("XDG_DATA_HOME"), std::env::home_dir())?;
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        Ok(match runtime.filter(|path| path.is_absolute()) {
            Some(runtime) => Self {
                runtime: runtime.join("skupper"),
                ..layout
            },
            None => layout,
        })
    }

    fn of_user(data: Option<OsString>, home: Option<PathBuf>) -> Result<Self, StoreError> {
        // The XDG specification ignores paths that are not absolute.
        let absolute = |path: &PathBuf| path.is_absolute();
        let data = data.map(PathBuf::from).filter(absolute);
        let home = || Some(home.filter(absolute)?.join(".local/share"));
        let data = data.or_else(home).ok_or(StoreError::NoHome)?;
        Ok(Self::root(&data.join("skupper")))
    }

    /// Input, state and sockets below one directory.
    pub fn root(dir: &Path) -> Self {
        Self {
            input: dir.to_owned(),
            state: dir.to_owned(),
            runtime: dir.join("run"),
            credentials: None,
        }
    }

    /// A name for the daemon of this layout that is unique on this host.
    pub fn instance(&self) -> String {
        if *self == Self::system() {
            return "system".to_owned();
        }
        let hash = BuildHasherDefault::<DefaultHasher>::new().hash_one(&self.state);
        format!("root-{hash:016x}")
    }

    /// Directory of the daemon's sockets; empty after a boot.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Directory of all namespaces' input.
    pub fn input_namespaces(&self) -> PathBuf {
        self.input.join("namespaces")
    }

    /// Directory of all namespaces' state: that of their input, except in the system scope.
    pub fn state_namespaces(&self) -> PathBuf {
        self.state.join("namespaces")
    }

    /// Directory of the daemon's own files.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The directories of a namespace, which need not exist.
    pub fn namespace(&self, name: &Namespace) -> NamespaceDir {
        let home = self.input_namespaces().join(name.as_str());
        let input = home.join("input");
        NamespaceDir {
            resources: input.join("resources"),
            input,
            home,
            state: self.state_namespaces().join(name.as_str()),
            hosts: self.runtime.join("hosts").join(name.as_str()),
            name: name.clone(),
            credentials: self.credentials.clone(),
        }
    }

    /// Namespaces that have a directory for input or state, in order of name. One that has state only was
    /// removed, and its state is still to be. Directories with invalid names are ignored.
    pub fn namespaces(&self) -> Result<Vec<NamespaceDir>, StoreError> {
        let mut names = BTreeSet::new();
        for dir in [self.input_namespaces(), self.state_namespaces()] {
            names.extend(directories(&dir)?);
        }
        Ok(names.iter().map(|name| self.namespace(name)).collect())
    }
}

fn directories(dir: &Path) -> Result<Vec<Namespace>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(StoreError::io("reading directory", dir)(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::io("reading directory", dir))?;
        let name = entry
            .file_name()
            .into_string()
            .ok()
            .and_then(|n| Namespace::new(n).ok());
        names.extend(name.filter(|_| entry.path().is_dir()));
    }
    Ok(names)
}

/// Kinds of credentials that a user supplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// A CA with its key.
    Issuer,
    /// A certificate with its key, and the CA of the other side.
    Certificate,
}

impl CredentialKind {
    /// As in the names of the input directories.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "issuers",
            Self::Certificate => "certs",
        }
    }
}

/// Directories of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceDir {
    name: Namespace,
    home: PathBuf,
    input: PathBuf,
    resources: PathBuf,
    state: PathBuf,
    hosts: PathBuf,
    credentials: Option<PathBuf>,
}

impl NamespaceDir {
    pub fn name(&self) -> &Namespace {
        &self.name
    }

    /// File with the names of the namespace's service addresses, in the form of `/etc/hosts`.
    pub fn hosts(&self) -> PathBuf {
        self.hosts.clone()
    }

    /// Directory that holds the input, whose owner may change the namespace.
    pub(super) fn home(&self) -> PathBuf {
        self.home.clone()
    }

    /// Directory of the daemon's sockets.
    pub fn runtime(&self) -> &Path {
        let runtime = self.hosts.ancestors().nth(2);
        runtime.unwrap_or(&self.hosts)
    }

    pub fn input(&self) -> PathBuf {
        self.input.clone()
    }

    /// The namespace with its input in another directory, which has manifests in `resources` or directly
    /// in it.
    #[must_use]
    pub fn with_input(&self, dir: &Path) -> Self {
        let resources = dir.join("resources");
        let resources = if resources.is_dir() {
            resources
        } else {
            dir.to_owned()
        };
        Self {
            input: dir.to_owned(),
            resources,
            ..self.clone()
        }
    }

    pub fn input_resources(&self) -> PathBuf {
        self.resources.clone()
    }

    pub fn input_certs(&self, name: &Name) -> PathBuf {
        self.input.join("certs").join(name.as_str())
    }

    pub fn input_issuer(&self, name: &Name) -> PathBuf {
        self.input.join("issuers").join(name.as_str())
    }

    /// Paths of one part of credentials, such as `tls.key`, among the credentials of the service:
    /// `skupper.<kind>.<namespace>.<name>.<part>` for one that is loaded by itself, and `_<part>` for
    /// one of a directory that systemd loads.
    pub fn service_credential(
        &self,
        kind: CredentialKind,
        name: &Name,
        part: &str,
    ) -> Vec<PathBuf> {
        let Some(dir) = &self.credentials else {
            return Vec::new();
        };
        let kind = kind.as_str();
        let base = format!("skupper.{kind}.{}.{}", self.name.as_str(), name.as_str());
        [".", "_"]
            .map(|mark| dir.join(format!("{base}{mark}{part}")))
            .into()
    }

    /// Directory of credentials of a kind that the user supplies.
    pub fn input_credentials(&self, kind: CredentialKind, name: &Name) -> PathBuf {
        match kind {
            CredentialKind::Issuer => self.input_issuer(name),
            CredentialKind::Certificate => self.input_certs(name),
        }
    }

    /// The file for a resource that is not in any file yet.
    pub fn resource_file(&self, key: &Key) -> PathBuf {
        self.input_resources().join(key.file_name())
    }

    /// Directory of status files.
    pub fn runtime_resources(&self) -> PathBuf {
        self.state.join("runtime/resources")
    }

    /// Directory of issued credentials.
    pub fn runtime_certs(&self, name: &Name) -> PathBuf {
        self.state.join("runtime/certs").join(name.as_str())
    }

    /// Directory of the site's own CAs.
    pub fn runtime_issuers(&self) -> PathBuf {
        self.state.join("runtime/issuers")
    }

    pub fn runtime_issuer(&self, name: &Name) -> PathBuf {
        self.runtime_issuers().join(name.as_str())
    }

    /// Directory of links made for other sites.
    pub fn runtime_links(&self) -> PathBuf {
        self.state.join("runtime/links")
    }

    /// Directory of the router's state.
    pub fn runtime_router(&self) -> PathBuf {
        self.state.join("runtime/router")
    }

    /// Directory of the daemon's own state and locks.
    pub fn internal(&self) -> PathBuf {
        self.state.join("internal")
    }

    /// Removes the namespace; false if there was none. The input goes first, so that the daemon stops the
    /// site and writes no more state.
    pub fn remove(&self) -> Result<bool, StoreError> {
        let dirs = [&self.input, &self.home, &self.state];
        if !dirs.iter().any(|dir| dir.exists()) {
            return Ok(false);
        }
        let _lock = self.lock()?;
        for dir in dirs {
            remove_all(dir).map_err(StoreError::io("removing", dir))?;
        }
        Ok(true)
    }
}

/// Removes a directory into which a daemon that stops may still be writing.
fn remove_all(dir: &Path) -> io::Result<()> {
    let (above, name) = split(dir)?;
    let above = match DirHandle::open(above) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let dir = above.join(name);
    let mut attempts = 0;
    loop {
        attempts += 1;
        match fs::remove_dir_all(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty && attempts < 100 => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests;
