//! What the resources of a namespace may have the daemon do with rights that their authors do not have.
//!
//! The daemon's user may connect to sockets that others may not, and its capabilities let it take
//! addresses and ports of the host and enter other network namespaces. A namespace that others than
//! root and the daemon can write to gets none of that; its resources say why in their statuses. Some
//! sockets may not be used by any resource: a client of them would act with the daemon's identity.

use super::error::ReconcileError;
use crate::{
    model::{ExtraPorts, ListenerSettings, ServicePrefix},
    store::{ForeignPath, NamespaceDir},
};
use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Ports below this one need CAP_NET_BIND_SERVICE.
const FIRST_PORT: u16 = 1024;
/// Where systemd, D-Bus and the helper for network namespaces are reached. They judge by user.
const SYSTEM_SOCKETS: [&str; 4] = [
    "/run/systemd",
    "/run/dbus",
    "/run/skupperd-netns.sock",
    "/var/run/dbus",
];
/// Runtime directories of users, and what of each is the user's bus and service manager.
const USERS: &str = "/run/user";
const USER_SOCKETS: [&str; 2] = ["bus", "systemd"];
/// Variables with the address of a message bus.
const BUS_ADDRESSES: [&str; 2] = ["DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS"];

/// The rights of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rights {
    /// Set when others than root and the daemon run the namespace.
    foreign: Option<ForeignPath>,
    /// Service addresses of other namespaces; empty for a namespace that may take them.
    taken: BTreeSet<ServicePrefix>,
}

impl Rights {
    pub(super) fn new(foreign: Option<ForeignPath>, taken: BTreeSet<ServicePrefix>) -> Self {
        let taken = if foreign.is_some() {
            taken
        } else {
            BTreeSet::new()
        };
        Self { foreign, taken }
    }

    /// An error if others control the namespace, with the path that allows it.
    pub(super) fn ensure(&self) -> Result<(), String> {
        match &self.foreign {
            None => Ok(()),
            Some(path) => Err(path.to_string()),
        }
    }

    fn ensure_port(&self, port: u16) -> Result<(), String> {
        if port >= FIRST_PORT {
            return Ok(());
        }
        let denied = |reason| format!("port {port} is below {FIRST_PORT}: {reason}");
        self.ensure().map_err(denied)
    }

    fn ensure_address(&self, address: IpAddr) -> Result<(), String> {
        let Some(prefix) = self.taken.iter().find(|prefix| prefix.contains(address)) else {
            return Ok(());
        };
        let denied = |reason| {
            format!("{address} is a service address of another namespace ({prefix}): {reason}")
        };
        self.ensure().map_err(denied)
    }

    /// Whether a port of all or one of the host's addresses may be opened.
    pub(super) fn ensure_open(&self, host: Option<IpAddr>, port: u16) -> Result<(), String> {
        self.ensure_port(port)?;
        host.map_or(Ok(()), |host| self.ensure_address(host))
    }

    /// Whether a listener may have these addresses and ports.
    pub(super) fn ensure_listener(
        &self,
        addrs: &[SocketAddr],
        settings: &ListenerSettings,
    ) -> Result<(), ReconcileError> {
        for addr in addrs {
            let port = self.ensure_port(addr.port());
            port.map_err(|reason| ReconcileError::field("port", reason))?;
            let address = self.ensure_address(addr.ip());
            address.map_err(|reason| ReconcileError::field("host", reason))?;
        }
        if settings.host_prefix.is_some() {
            let prefix = self.ensure();
            prefix.map_err(|reason| ReconcileError::setting("host-prefix", reason))?;
        }
        let ports = match &settings.ports {
            ExtraPorts::All => self.ensure(),
            ExtraPorts::Ranges(ranges) => {
                let mut firsts = ranges.iter().map(|(first, _)| *first);
                firsts.try_for_each(|first| self.ensure_port(first))
            }
        };
        ports.map_err(|reason| ReconcileError::setting("ports", reason))
    }

    /// Whether a connector may lead to a Unix socket, which sees the daemon's user.
    pub(super) fn ensure_socket(
        &self,
        namespace: &NamespaceDir,
        path: &Path,
    ) -> Result<(), String> {
        self.ensure()?;
        match own_socket(namespace.runtime(), path) {
            None => Ok(()),
            Some(of) => Err(format!(
                "{} is not for connectors: it would see the daemon as its client ({})",
                path.display(),
                of.display()
            )),
        }
    }
}

/// The directory or socket of the system's or the daemon's own that a path leads to.
fn own_socket(runtime: &Path, path: &Path) -> Option<PathBuf> {
    let mut own: Vec<PathBuf> = SYSTEM_SOCKETS.map(PathBuf::from).to_vec();
    own.push(runtime.to_owned());
    for variable in BUS_ADDRESSES {
        let addresses = std::env::var(variable).unwrap_or_default();
        own.extend(addresses.split(';').flat_map(bus_paths));
    }
    let real = resolved(path);
    let mut homes = Vec::from_iter(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
    if let Ok(below) = real.strip_prefix(USERS) {
        homes.extend(below.iter().next().map(|user| Path::new(USERS).join(user)));
    }
    own.extend(
        homes
            .iter()
            .flat_map(|home| USER_SOCKETS.map(|name| home.join(name))),
    );
    let leads_to = |own: &PathBuf| {
        path.starts_with(own) || real.starts_with(own) || real.starts_with(resolved(own))
    };
    let same_file = same_file(path);
    own.into_iter()
        .filter(|own| own.is_absolute())
        .find(|own| leads_to(own) || same_file.as_ref().is_some_and(|is_same| is_same(own)))
}

/// Paths in an address of D-Bus (`unix:path=/run/dbus/system_bus_socket,guid=..`).
fn bus_paths(address: &str) -> impl Iterator<Item = PathBuf> {
    let values = address.strip_prefix("unix:").unwrap_or_default().split(',');
    values.filter_map(|pair| match pair.split_once('=') {
        Some(("path" | "dir" | "tmpdir" | "runtime", value)) => Some(PathBuf::from(value)),
        _ => None,
    })
}

/// A path without links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    if let Ok(real) = fs::canonicalize(path) {
        return real;
    }
    match (path.parent(), path.file_name()) {
        (Some(above), Some(name)) => resolved(above).join(name),
        _ => path.to_owned(),
    }
}

/// Compares files with the one of this path, which other names of it do not hide.
fn same_file(path: &Path) -> Option<impl Fn(&Path) -> bool> {
    let of = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let one = of(path)?;
    Some(move |other: &Path| {
        let buses = ["system_bus_socket", "bus", "metrics.sock"].map(|name| other.join(name));
        of(other) == Some(one) || buses.iter().any(|bus| of(bus) == Some(one))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Namespace, store::Layout};
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// The rights of a namespace that others can write to.
    fn foreign() -> Rights {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::root(root.path());
        let namespace = layout.namespace(&Namespace::default_namespace());
        let resources = namespace.input_resources();
        fs::create_dir_all(&resources).unwrap();
        let loaded = namespace.load().unwrap();
        assert_eq!(
            Rights::new(loaded.foreign, BTreeSet::new()),
            Rights::default()
        );
        fs::set_permissions(&resources, fs::Permissions::from_mode(0o777)).unwrap();
        let taken = BTreeSet::from(["198.18.7.0/24".parse().unwrap()]);
        Rights::new(namespace.load().unwrap().foreign, taken)
    }

    fn at(addr: &str) -> [SocketAddr; 1] {
        [addr.parse().unwrap()]
    }

    #[test]
    fn a_foreign_namespace_gets_what_any_user_of_the_host_has() {
        let (foreign, own) = (foreign(), Rights::default());
        let plain = ListenerSettings::default();
        let with = |prefix: Option<&str>, ports| ListenerSettings {
            host_prefix: prefix.map(|p| p.parse().unwrap()),
            ports,
            ..ListenerSettings::default()
        };
        let none = || ExtraPorts::default();
        for (addr, settings, denied) in [
            ("127.0.0.1:1024", plain.clone(), None),
            ("0.0.0.0:8080", plain.clone(), None),
            (
                "127.0.0.1:1023",
                plain.clone(),
                Some("spec.port: port 1023 is below 1024"),
            ),
            (
                "198.18.7.9:8080",
                plain.clone(),
                Some("spec.host: 198.18.7.9 is a service address"),
            ),
            (
                "127.0.0.1:8080",
                with(Some("10.0.0.0/8"), none()),
                Some("spec.settings[host-prefix]: not allowed while"),
            ),
            (
                "127.0.0.1:8080",
                with(None, ExtraPorts::All),
                Some("spec.settings[ports]: not allowed while"),
            ),
            (
                "127.0.0.1:8080",
                with(None, ExtraPorts::Ranges(vec![(22, 22)])),
                Some("spec.settings[ports]: port 22 is below"),
            ),
        ] {
            own.ensure_listener(&at(addr), &settings).unwrap();
            let result = foreign.ensure_listener(&at(addr), &settings);
            match denied {
                None => result.unwrap(),
                Some(why) => {
                    let text = result.unwrap_err().text();
                    assert!(text.starts_with(why), "{text}");
                }
            }
        }
    }

    #[test]
    fn sockets_that_know_the_daemon_are_for_nobody_under_any_name() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::root(root.path());
        let namespace = layout.namespace(&Namespace::default_namespace());
        let own = namespace.runtime().join("metrics.sock");
        fs::create_dir_all(namespace.runtime()).unwrap();
        fs::write(&own, "").unwrap();
        symlink(namespace.runtime(), root.path().join("link")).unwrap();
        fs::hard_link(&own, root.path().join("other")).unwrap();
        let (free, foreign) = (Rights::default(), foreign());
        for (path, denied) in [
            (root.path().join("link/metrics.sock"), true),
            (root.path().join("other"), true),
            (own, true),
            ("/run/dbus/system_bus_socket".into(), true),
            ("/var/run/dbus/system_bus_socket".into(), true),
            ("/run/../run/systemd/private".into(), true),
            ("/run/skupperd-netns.sock".into(), true),
            ("/run/user/4711/bus".into(), true),
            ("/run/user/4711/systemd/private".into(), true),
            ("/run/user/4711/app.sock".into(), false),
            ("/run/app/app.sock".into(), false),
            (root.path().join("app.sock"), false),
        ] {
            let result = free.ensure_socket(&namespace, &path);
            assert_eq!(result.is_err(), denied, "{path:?}: {result:?}");
            assert!(
                foreign.ensure_socket(&namespace, &path).is_err(),
                "{path:?}"
            );
        }
    }

    #[test]
    fn addresses_of_buses_name_sockets() {
        let of = |address| bus_paths(address).collect::<Vec<_>>();
        assert_eq!(of("unix:path=/a/bus,guid=1"), [PathBuf::from("/a/bus")]);
        assert_eq!(of("unix:abstract=/a"), [] as [PathBuf; 0]);
        assert_eq!(of("tcp:host=a"), [] as [PathBuf; 0]);
    }
}
