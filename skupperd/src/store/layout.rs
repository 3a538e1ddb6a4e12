//! Where a scope keeps things.

use super::StoreError;
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
    /// The system's: input below `/etc/skupper`, state below `/var/lib/skupper`, sockets in
    /// `/run/skupper`.
    pub fn system() -> Self {
        Self {
            input: "/etc/skupper".into(),
            state: "/var/lib/skupper".into(),
            runtime: "/run/skupper".into(),
            credentials: None,
        }
    }

    /// With credentials that the service manager has put into this directory.
    #[must_use]
    pub fn with_credentials(self, dir: Option<PathBuf>) -> Self {
        Self {
            credentials: dir,
            ..self
        }
    }

    /// The calling user's: both below `$XDG_DATA_HOME/skupper`, by default `~/.local/share/skupper`;
    /// sockets in `$XDG_RUNTIME_DIR/skupper` where there is such a directory.
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
        // As the XDG specification has it, a path that is not absolute counts as none.
        let absolute = |path: &PathBuf| path.is_absolute();
        let data = data.map(PathBuf::from).filter(absolute);
        let home = || Some(home.filter(absolute)?.join(".local/share"));
        let data = data.or_else(home).ok_or(StoreError::NoHome)?;
        Ok(Self::root(&data.join("skupper")))
    }

    /// Everything below one directory.
    pub fn root(dir: &Path) -> Self {
        Self {
            input: dir.to_owned(),
            state: dir.to_owned(),
            runtime: dir.join("run"),
            credentials: None,
        }
    }

    /// A name for the daemon of these directories among those of this host.
    pub fn instance(&self) -> String {
        if *self == Self::system() {
            return "system".to_owned();
        }
        let hash = BuildHasherDefault::<DefaultHasher>::new().hash_one(&self.state);
        format!("root-{hash:016x}")
    }

    /// Directory of the daemon's sockets, which a restart of the host empties.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Directory of all namespaces' input.
    pub fn input_namespaces(&self) -> PathBuf {
        self.input.join("namespaces")
    }

    /// Directory of all namespaces' state; the same as that of the input except for the system.
    pub fn state_namespaces(&self) -> PathBuf {
        self.state.join("namespaces")
    }

    /// Directory of the daemon's own files.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// A namespace; it need not exist.
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

    /// Namespaces that have a directory for input or for state, in order of name. One that has only
    /// state is gone, and what is left of it waits for being removed. Directories whose names are
    /// not namespaces' are none.
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
pub enum Given {
    /// A CA with its key.
    Issuer,
    /// A certificate with its key, and the CA of the other side.
    Certificate,
}

impl Given {
    /// The word for it in names, as in those of the input's directories.
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
    /// Its name.
    pub fn name(&self) -> &Namespace {
        &self.name
    }

    /// Names of its service addresses, in the form of `/etc/hosts`, for every program of the host.
    pub fn hosts(&self) -> PathBuf {
        self.hosts.clone()
    }

    /// Directory for input.
    pub fn input(&self) -> PathBuf {
        self.input.clone()
    }

    /// The same namespace with its input elsewhere: in a directory like its own, or one that has
    /// manifests right in it.
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

    /// Manifests.
    pub fn input_resources(&self) -> PathBuf {
        self.resources.clone()
    }

    /// Credentials supplied by the user.
    pub fn input_certs(&self, name: &Name) -> PathBuf {
        self.input.join("certs").join(name.as_str())
    }

    /// A CA supplied by the user.
    pub fn input_issuer(&self, name: &Name) -> PathBuf {
        self.input.join("issuers").join(name.as_str())
    }

    /// Where one part of credentials (`tls.key` and the like) is when the service manager has it: a
    /// credential of the service, `skupper.<kind>.<namespace>.<name>` and the part. The first is what
    /// one names it; the second is what systemd makes of a directory.
    pub fn service_credential(&self, kind: Given, name: &Name, part: &str) -> Vec<PathBuf> {
        let Some(dir) = &self.credentials else {
            return Vec::new();
        };
        let kind = kind.as_str();
        let base = format!("skupper.{kind}.{}.{}", self.name.as_str(), name.as_str());
        [".", "_"]
            .map(|mark| dir.join(format!("{base}{mark}{part}")))
            .into()
    }

    /// Where a user puts credentials of a kind.
    pub fn given(&self, kind: Given, name: &Name) -> PathBuf {
        match kind {
            Given::Issuer => self.input_issuer(name),
            Given::Certificate => self.input_certs(name),
        }
    }

    /// The file of its own that a resource is written to.
    pub fn resource_file(&self, key: &Key) -> PathBuf {
        self.input_resources().join(key.file_name())
    }

    /// Resources with their status.
    pub fn runtime_resources(&self) -> PathBuf {
        self.state.join("runtime/resources")
    }

    /// Issued credentials.
    pub fn runtime_certs(&self, name: &Name) -> PathBuf {
        self.state.join("runtime/certs").join(name.as_str())
    }

    /// All CAs of our own.
    pub fn runtime_issuers(&self) -> PathBuf {
        self.state.join("runtime/issuers")
    }

    /// A CA of our own.
    pub fn runtime_issuer(&self, name: &Name) -> PathBuf {
        self.runtime_issuers().join(name.as_str())
    }

    /// Links for other sites.
    pub fn runtime_links(&self) -> PathBuf {
        self.state.join("runtime/links")
    }

    /// What the router keeps.
    pub fn runtime_router(&self) -> PathBuf {
        self.state.join("runtime/router")
    }

    /// What the daemon remembers.
    pub fn internal(&self) -> PathBuf {
        self.state.join("internal")
    }

    /// Removes everything of the namespace. False: there is nothing. What is wanted goes first, so
    /// that the daemon ends the site and writes nothing more.
    pub fn remove(&self) -> Result<bool, StoreError> {
        let dirs = [&self.input, &self.home, &self.state];
        if !dirs.iter().any(|dir| dir.exists()) {
            return Ok(false);
        }
        let _turn = self.lock()?;
        for dir in dirs {
            remove_all(dir).map_err(StoreError::io("removing", dir))?;
        }
        Ok(true)
    }
}

/// Removes a directory, into which a daemon may still be writing its last words.
fn remove_all(dir: &Path) -> io::Result<()> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match fs::remove_dir_all(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty && attempts < 100 => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn system_keeps_input_and_state_apart() {
        let dir = Layout::system().namespace(&Namespace::new("east").unwrap());
        let base = Path::new("/etc/skupper/namespaces/east/input");
        assert_eq!(dir.input_resources(), base.join("resources"));
        assert_eq!(dir.input_certs(&name("a")), base.join("certs/a"));
        assert_eq!(dir.input_issuer(&name("a")), base.join("issuers/a"));
        let base = Path::new("/var/lib/skupper/namespaces/east");
        assert_eq!(dir.runtime_resources(), base.join("runtime/resources"));
        assert_eq!(dir.runtime_certs(&name("a")), base.join("runtime/certs/a"));
        assert_eq!(
            dir.runtime_issuer(&name("a")),
            base.join("runtime/issuers/a")
        );
        assert_eq!(dir.runtime_links(), base.join("runtime/links"));
        assert_eq!(dir.runtime_router(), base.join("runtime/router"));
        assert_eq!(dir.internal(), base.join("internal"));
    }

    #[test]
    fn credentials_of_the_service_have_the_namespace_in_their_names() {
        let layout = Layout::system();
        let space = Namespace::new("east").unwrap();
        let find = |layout: &Layout| {
            let dir = layout.namespace(&space);
            dir.service_credential(Given::Issuer, &name("my.ca"), "tls.key")
        };
        assert!(find(&layout).is_empty());
        let layout = layout.with_credentials(Some("/run/credentials/skupperd.service".into()));
        let base = "/run/credentials/skupperd.service/skupper.issuers.east.my.ca";
        let expected = [".tls.key", "_tls.key"].map(|part| PathBuf::from(format!("{base}{part}")));
        assert_eq!(find(&layout), expected);
    }

    #[test]
    fn r1_user_directories_are_upstreams() {
        let dir = |data: Option<&str>, home: Option<&str>| {
            let layout = Layout::of_user(data.map(Into::into), home.map(Into::into)).ok()?;
            Some(
                layout
                    .namespace(&Namespace::default_namespace())
                    .input_resources(),
            )
        };
        let below =
            |base: &str| Some(Path::new(base).join("skupper/namespaces/default/input/resources"));
        assert_eq!(dir(Some("/data"), Some("/home/u")), below("/data"));
        assert_eq!(dir(None, Some("/home/u")), below("/home/u/.local/share"));
        assert_eq!(
            dir(Some("relative"), Some("/home/u")),
            below("/home/u/.local/share")
        );
        assert_eq!(
            dir(Some(""), Some("/home/u")),
            below("/home/u/.local/share")
        );
        assert_eq!(dir(None, None), None);
    }

    #[test]
    fn namespaces_are_directories_with_fitting_names() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout {
            input: root.path().join("in"),
            state: root.path().join("state"),
            runtime: root.path().join("run"),
            credentials: None,
        };
        assert!(layout.namespaces().unwrap().is_empty());
        for dir in [
            "in/namespaces/west",
            "in/namespaces/Bad_Name",
            "state/namespaces/gone",
        ] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        fs::write(root.path().join("in/namespaces/file"), "").unwrap();
        let found = layout.namespaces().unwrap();
        let names: Vec<&str> = found.iter().map(|n| n.name().as_str()).collect();
        assert_eq!(names, ["gone", "west"]);
    }
}
