//! Service addresses of a site: the prefix that its settings name, and what is on disk of it for a
//! daemon that does not live to take it back.

use super::{
    names::Names,
    settings::{SERVICE_ADDRESSES, service_addresses},
};
use crate::{
    model::{Host, Listener, Name, Settings},
    steer::routes::{Prefix, Routes},
    store::{NamespaceDir, SHARED, read_text, write_file},
    sys,
};
use std::{collections::BTreeMap, fmt::Display, fs, io, net::IpAddr, path::PathBuf, sync::Arc};

/// The service addresses of one namespace.
pub(super) struct Addresses {
    /// All of the daemon's.
    routes: Arc<Routes>,
    /// Names the prefix that may have a route of ours.
    record: PathBuf,
    held: Option<Prefix>,
    names: Names,
}

impl Addresses {
    pub(super) fn new(namespace: &NamespaceDir, routes: Arc<Routes>) -> Self {
        Self {
            names: Names::new(namespace, routes.clone()),
            routes,
            record: namespace.internal().join("service-addresses"),
            held: None,
        }
    }

    /// Makes the addresses that the settings name this host's own, and what an earlier life has
    /// left or other settings have named nobody's.
    pub(super) fn set(&mut self, settings: &Settings) -> Result<(), String> {
        let wanted = service_addresses(settings)?;
        if wanted.is_some() && wanted == self.held {
            return Ok(());
        }
        self.clear()?;
        let Some(prefix) = wanted else { return Ok(()) };
        if let Some(ip) = sys::interface_addresses().find(|ip| prefix.contains(*ip)) {
            return Err(of_setting(format!(
                "{prefix} has {ip}, which an interface of this host has"
            )));
        }
        // On disk before there is a route: a next life knows of it then.
        let text = format!("{prefix}\n");
        let written = write_file(&self.record, text.as_bytes(), SHARED);
        written.map_err(|e| of_setting(format!("writing {}: {e}", self.record.display())))?;
        if let Err(error) = self.routes.add(prefix) {
            // It may be another's, which a next life is not to remove.
            self.forget()?;
            return Err(of_setting(error));
        }
        tracing::info!(%prefix, "service addresses");
        self.held = Some(prefix);
        Ok(())
    }

    /// The address that a listener's host has of these; none for a host that they are not for.
    pub(super) fn of(
        &mut self,
        host: &Host,
        listeners: &BTreeMap<Name, Listener>,
    ) -> Result<Option<IpAddr>, String> {
        match self.held {
            Some(prefix) => self.names.address(prefix, host, listeners),
            None => Ok(None),
        }
    }

    /// Says the names of these listeners to the host.
    pub(super) fn publish(&mut self, listeners: &BTreeMap<Name, Listener>) -> io::Result<()> {
        self.names.publish(self.held, listeners)
    }

    /// Takes them back.
    pub(super) fn clear(&mut self) -> Result<(), String> {
        self.names.release();
        let unpublished = self.names.unpublish();
        unpublished.map_err(|e| of_setting(format!("removing the names: {e}")))?;
        if let Some(prefix) = self.held.take() {
            self.routes.remove(prefix).map_err(of_setting)?;
            return self.forget();
        }
        let left = match read_text(&self.record) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => {
                return Err(of_setting(format!(
                    "reading {}: {e}",
                    self.record.display()
                )));
            }
        };
        // What does not read was not written by us.
        if let Ok(prefix) = left.trim().parse() {
            self.routes.forget(prefix).map_err(of_setting)?;
        }
        self.forget()
    }

    fn forget(&self) -> Result<(), String> {
        match fs::remove_file(&self.record) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(of_setting(format!(
                "removing {}: {e}",
                self.record.display()
            ))),
            _ => Ok(()),
        }
    }
}

pub(super) fn of_setting(error: impl Display) -> String {
    format!("spec.settings[{SERVICE_ADDRESSES}]: {error}")
}
