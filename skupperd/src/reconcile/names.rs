//! Names of service addresses: a listener whose host is a name has an address of the site's prefix by
//! that name, the same for as long as anybody can want it, and a hosts file says which.

use super::{addresses::of_setting, places::NETNS};
use crate::{
    model::{Host, Listener, Name},
    steer::routes::{Prefix, Routes},
    store::{NamespaceDir, PUBLIC, SHARED, read_text, write_file},
};
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    io,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
};

/// Domain of the names; `internal` is for private use (ICANN, 2024).
const DOMAIN: &str = "skupper.internal";
/// Addresses tried for a name, from a place on that the name gives.
const TRIES: u128 = 1 << 16;
/// Version of the record; a later one is not touched.
const VERSION: u32 = 1;

type Listeners = BTreeMap<Name, Listener>;

/// What is on disk, so that a name keeps its address.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    version: u32,
    addresses: BTreeMap<String, IpAddr>,
}

/// The names of one namespace.
pub(super) struct Names {
    namespace: NamespaceDir,
    /// Knows what other namespaces have.
    routes: Arc<Routes>,
    record: Option<Record>,
    /// What the hosts file says.
    said: Option<String>,
}

impl Names {
    pub(super) fn new(namespace: &NamespaceDir, routes: Arc<Routes>) -> Self {
        Self {
            namespace: namespace.clone(),
            routes,
            record: None,
            said: None,
        }
    }

    /// The address of a host of this prefix: its own, or one for its name. None: the prefix has
    /// nothing to do with it.
    pub(super) fn address(
        &mut self,
        prefix: Prefix,
        host: &Host,
        listeners: &Listeners,
    ) -> Result<Option<IpAddr>, String> {
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
        let ip = match self.free(prefix, host, listeners) {
            Some(ip) => ip,
            None => {
                self.reclaim(listeners);
                let free = self.free(prefix, host, listeners);
                free.ok_or_else(|| of_setting(format!("no address of {prefix} is left")))?
            }
        };
        let record = self.load()?;
        record.addresses.insert(host.to_string(), ip);
        let text = serde_json::to_string_pretty(record);
        let text = text.map_err(|e| of_setting(format!("encoding {}: {e}", path.display())))?;
        write_file(&path, text.as_bytes(), SHARED)
            .map_err(|e| of_setting(format!("writing {}: {e}", path.display())))?;
        Ok(Some(ip))
    }

    /// Writes the hosts file of these listeners.
    pub(super) fn publish(
        &mut self,
        prefix: Option<Prefix>,
        listeners: &Listeners,
    ) -> io::Result<()> {
        let mut lines: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
        let domain = format!("{}.{DOMAIN}", self.namespace.name());
        let here = |listener: &Listener| !listener.settings.contains_key(NETNS);
        for (name, listener) in listeners.iter().filter(|(_, listener)| here(listener)) {
            let recorded = |record: &Record| record.addresses.get(listener.host.as_str()).copied();
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
        if self.said.as_ref() == Some(&text) {
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
        self.said = Some(text);
        Ok(())
    }

    /// Removes the hosts file.
    pub(super) fn unpublish(&mut self) -> io::Result<()> {
        self.said = None;
        match fs::remove_file(self.namespace.hosts()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Lets other namespaces have the addresses.
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

    fn load(&mut self) -> Result<&mut Record, String> {
        if self.record.is_none() {
            let path = self.path();
            let bad =
                |e: &dyn std::fmt::Display| of_setting(format!("reading {}: {e}", path.display()));
            let record = match read_text(&path) {
                Ok(text) => serde_json::from_str::<Record>(&text).map_err(|e| bad(&e))?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => Record {
                    version: VERSION,
                    ..Record::default()
                },
                Err(e) => return Err(bad(&e)),
            };
            if record.version > VERSION {
                let version = record.version;
                return Err(bad(&format_args!(
                    "it is of version {version}, and this program knows {VERSION}"
                )));
            }
            self.record = Some(record);
        }
        self.record
            .as_mut()
            .ok_or_else(|| of_setting("no record of names"))
    }

    /// An address that no listener has, the same in the same circumstances.
    fn free(&self, prefix: Prefix, host: &Host, listeners: &Listeners) -> Option<IpAddr> {
        let claimant = self.claimant(host);
        let hash = digest(&SHA256, claimant.as_bytes());
        let start = hash.as_ref().iter().take(15);
        let start = start.fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte));
        let size = prefix.size();
        let candidates = (0..size.min(TRIES)).map(|n| prefix.nth((start + n) % size));
        let mut candidates = candidates.filter(|ip| {
            let explicit = listeners.values().any(|l| l.host.ip() == Some(*ip));
            let known = self.record.iter().flat_map(|r| r.addresses.values());
            !explicit && known.into_iter().all(|known| known != ip)
        });
        candidates.find(|ip| self.routes.claim(*ip, &claimant))
    }

    /// Takes back addresses of names that no listener has any more.
    fn reclaim(&mut self, listeners: &Listeners) {
        let wanted: BTreeSet<&str> = listeners.values().map(|l| l.host.as_str()).collect();
        let gone = |record: &Record| {
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

impl Drop for Names {
    fn drop(&mut self) {
        if let Err(error) = self.unpublish() {
            tracing::error!(namespace = %self.namespace.name(), %error, "names of service addresses");
        }
    }
}

/// Whether a name stands for this host itself on every system (RFC 6761).
fn is_this_host(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}
