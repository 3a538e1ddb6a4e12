//! Names of service addresses: a listener whose host is a name gets an address of the site's prefix by that
//! name, the same one as long as the record on disk lasts, and a hosts file tells both to the host.

use super::{desired::DesiredState, error::ReconcileError};
use crate::{
    model::{Host, Listener, ServicePrefix},
    netlink::local_routes::LocalRoutes,
    store::{NamespaceDir, PUBLIC, SHARED, read_text, write_file},
};
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs::{self, Permissions},
    io,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
};

/// Domain of the names; `internal` is for private use (ICANN, 2024).
const DOMAIN: &str = "skupper.internal";
/// Addresses tried for a name, beginning at a hash of the name.
const TRIES: u128 = 1 << 16;
/// Version of the record; a later one is left alone.
const VERSION: u32 = 1;

/// What is on disk, so that a name keeps its address.
#[derive(Debug, Default, Serialize, Deserialize)]
struct NamesFile {
    version: u32,
    addresses: BTreeMap<String, IpAddr>,
}

/// The names of one namespace.
pub(super) struct ServiceNames {
    namespace: NamespaceDir,
    /// Knows the addresses of other namespaces.
    routes: Arc<LocalRoutes>,
    /// Read on first need.
    record: Option<NamesFile>,
    /// Contents of the hosts file, as it was written.
    published: Option<String>,
}

impl ServiceNames {
    pub(super) fn new(namespace: &NamespaceDir, routes: Arc<LocalRoutes>) -> Self {
        Self {
            namespace: namespace.clone(),
            routes,
            record: None,
            published: None,
        }
    }

    /// The address of a host: its own, or one for its name. `None` when it is not in the prefix.
    pub(super) fn address(
        &mut self,
        prefix: ServicePrefix,
        host: &Host,
        desired: &DesiredState,
    ) -> Result<Option<IpAddr>, ReconcileError> {
        if let Some(ip) = host.ip() {
            return Ok(prefix.contains(ip).then_some(ip));
        }
        if is_this_host(host) {
            return Ok(None);
        }
        let path = self.path();
        let record = self.load()?;
        if let Some(ip) = record.addresses.get(host.as_str()).copied()
            && prefix.contains(ip)
            && self.routes.claim(ip, &self.claimant(host))
        {
            return Ok(Some(ip));
        }
        let ip = match self.free(prefix, host, desired) {
            Some(ip) => ip,
            None => {
                self.reclaim(desired);
                let free = self.free(prefix, host, desired);
                free.ok_or_else(|| setting(format!("no address of {prefix} is left")))?
            }
        };
        let record = self.load()?;
        record.addresses.insert(host.to_string(), ip);
        let text = serde_json::to_string_pretty(record);
        let text = text.map_err(ReconcileError::file("encode", &path));
        let text = text.map_err(setting)?;
        write_file(&path, text.as_bytes(), SHARED)
            .map_err(ReconcileError::file("write", &path))
            .map_err(setting)?;
        Ok(Some(ip))
    }

    /// Writes the hosts file of these listeners.
    pub(super) fn publish(
        &mut self,
        prefix: Option<ServicePrefix>,
        desired: &DesiredState,
    ) -> io::Result<()> {
        let mut lines: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
        let domain = format!("{}.{DOMAIN}", self.namespace.name());
        let here = |listener: &Listener| listener.settings.network_namespace.is_none();
        for (name, listener) in desired.listeners().filter(|(_, listener)| here(listener)) {
            let recorded =
                |record: &NamesFile| record.addresses.get(listener.host.as_str()).copied();
            let named = listener.host.ip().is_none();
            let ip = match listener.host.ip() {
                None if is_this_host(&listener.host) => None,
                None => self.record.as_ref().and_then(recorded),
                ip => ip,
            };
            let Some(ip) = ip.filter(|ip| prefix.is_some_and(|prefix| prefix.contains(*ip))) else {
                continue;
            };
            let names = lines.entry(ip).or_default();
            if named {
                names.insert(listener.host.to_string());
                names.insert(format!("{}.{domain}", listener.host));
            } else {
                names.insert(format!("{name}.{domain}"));
            }
        }
        let line = |(ip, names): (IpAddr, BTreeSet<String>)| {
            let names: Vec<String> = names.into_iter().collect();
            format!("{ip}\t{}\n", names.join(" "))
        };
        let text: String = lines.into_iter().map(line).collect();
        if self.published.as_ref() == Some(&text) {
            return Ok(());
        }
        let path = self.namespace.hosts();
        if text.is_empty() {
            self.unpublish()?;
        } else {
            // The names are for every program of this host.
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir)?;
                fs::set_permissions(dir, Permissions::from_mode(0o755))?;
            }
            write_file(&path, text.as_bytes(), PUBLIC)?;
        }
        self.published = Some(text);
        Ok(())
    }

    /// Removes the hosts file.
    pub(super) fn unpublish(&mut self) -> io::Result<()> {
        self.published = None;
        match fs::remove_file(self.namespace.hosts()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Frees the addresses for other namespaces.
    pub(super) fn release(&mut self) {
        for (host, ip) in self.record.iter().flat_map(|record| &record.addresses) {
            self.routes.release(*ip, &self.claimant(host));
        }
    }

    fn claimant(&self, host: &str) -> String {
        format!("{}/{host}", self.namespace.name())
    }

    fn path(&self) -> PathBuf {
        self.namespace.internal().join("service-names.json")
    }

    fn load(&mut self) -> Result<&mut NamesFile, ReconcileError> {
        let record = match self.record.take() {
            Some(record) => record,
            None => self.read().map_err(setting)?,
        };
        Ok(self.record.insert(record))
    }

    fn read(&self) -> Result<NamesFile, ReconcileError> {
        let path = self.path();
        let record = match read_text(&path) {
            Ok(text) => serde_json::from_str::<NamesFile>(&text)
                .map_err(ReconcileError::file("read", &path))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => NamesFile {
                version: VERSION,
                ..NamesFile::default()
            },
            Err(e) => return Err(ReconcileError::file("read", &path)(e)),
        };
        if record.version > VERSION {
            let version = record.version;
            let text = format!("it has version {version}, and this daemon reads version {VERSION}");
            return Err(ReconcileError::file("read", &path)(text));
        }
        Ok(record)
    }

    /// An address that no listener has; with the same listeners always the same one.
    fn free(&self, prefix: ServicePrefix, host: &Host, desired: &DesiredState) -> Option<IpAddr> {
        let claimant = self.claimant(host);
        let hash = digest(&SHA256, claimant.as_bytes());
        let start = hash.as_ref().iter().take(15);
        let start = start.fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte));
        let size = prefix.size();
        let candidates = (0..size.min(TRIES)).map(|n| prefix.nth((start + n) % size));
        let mut candidates = candidates.filter(|ip| {
            let explicit = desired.listeners().any(|(_, l)| l.host.ip() == Some(*ip));
            let known = self.record.iter().flat_map(|r| r.addresses.values());
            !explicit && known.into_iter().all(|known| known != ip)
        });
        candidates.find(|ip| self.routes.claim(*ip, &claimant))
    }

    /// Frees addresses of names that no listener has any more.
    fn reclaim(&mut self, desired: &DesiredState) {
        let wanted: BTreeSet<&str> = desired.listeners().map(|(_, l)| l.host.as_str()).collect();
        let gone = |record: &NamesFile| {
            let names = record.addresses.keys();
            let gone = names.filter(|name| !wanted.contains(name.as_str()));
            gone.cloned().collect::<Vec<_>>()
        };
        for name in self.record.as_ref().map(gone).unwrap_or_default() {
            let claimant = self.claimant(&name);
            let removed = self.record.as_mut().and_then(|r| r.addresses.remove(&name));
            if let Some(ip) = removed {
                self.routes.release(ip, &claimant);
            }
        }
    }
}

impl Drop for ServiceNames {
    fn drop(&mut self) {
        if let Err(error) = self.unpublish() {
            tracing::error!(namespace = %self.namespace.name(), %error, "cannot remove names of service addresses");
        }
    }
}

/// An error of the setting that asks for service addresses.
pub(super) fn setting(error: impl Into<Box<dyn Error + Send + Sync>>) -> ReconcileError {
    ReconcileError::setting("service-addresses", error)
}

/// Whether a name resolves to this host itself on every system (RFC 6761).
fn is_this_host(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}
