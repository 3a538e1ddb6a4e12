//! Service addresses of a site: the prefix that its settings name, as local addresses of this host.
//!
//! The prefix is on disk before there is a route for it, so that a daemon that was killed leaves nothing
//! behind: the next one removes the route.

use super::{
    desired::DesiredState,
    error::ReconcileError,
    rights::Rights,
    service_names::{ServiceNames, setting},
};
use crate::{
    model::{Host, ServicePrefix},
    netlink::local_routes::{LocalRoutes, routed_beside},
    store::{NamespaceDir, SHARED, read_text, write_file},
    sys,
};
use std::{fs, io, net::IpAddr, path::PathBuf, sync::Arc};

/// The service addresses of one namespace.
pub(super) struct ServiceAddresses {
    /// Of all namespaces.
    routes: Arc<LocalRoutes>,
    /// Names the prefix that may have a route of ours.
    record: PathBuf,
    prefix: Option<ServicePrefix>,
    names: ServiceNames,
}

impl ServiceAddresses {
    pub(super) fn new(namespace: &NamespaceDir, routes: Arc<LocalRoutes>) -> Self {
        Self {
            names: ServiceNames::new(namespace, routes.clone()),
            routes,
            record: namespace.internal().join("service-addresses"),
            prefix: None,
        }
    }

    /// Makes these addresses local to this host, and removes those of earlier settings or of an earlier
    /// process.
    pub(super) fn set(
        &mut self,
        wanted: Option<ServicePrefix>,
        rights: &Rights,
    ) -> Result<(), ReconcileError> {
        let allowed = rights.ensure();
        if wanted.is_some() && wanted == self.prefix && allowed.is_ok() {
            return Ok(());
        }
        self.clear()?;
        let Some(prefix) = wanted else { return Ok(()) };
        allowed.map_err(setting)?;
        if let Some(ip) = sys::interface_addresses().find(|ip| prefix.contains(*ip)) {
            return Err(setting(format!(
                "{prefix} contains {ip}, which an interface of this host has"
            )));
        }
        let beside = routed_beside(prefix);
        let beside = beside.map_err(|e| setting(ReconcileError::failed("read", "routes", e)))?;
        if let Some(network) = beside {
            return Err(setting(format!(
                "{prefix} overlaps {network}, to which this host has a route"
            )));
        }
        let text = format!("{prefix}\n");
        write_file(&self.record, text.as_bytes(), SHARED)
            .map_err(ReconcileError::file("write", &self.record))
            .map_err(setting)?;
        if let Err(error) = self.routes.add(prefix) {
            // The route may be another program's, which the next daemon must not remove.
            self.remove_record()?;
            return Err(setting(error));
        }
        tracing::info!(%prefix, "service addresses added");
        self.prefix = Some(prefix);
        Ok(())
    }

    /// The service address of a listener's host; `None` for a host that they are not for.
    pub(super) fn of(
        &mut self,
        host: &Host,
        desired: &DesiredState,
    ) -> Result<Option<IpAddr>, ReconcileError> {
        match self.prefix {
            Some(prefix) => self.names.address(prefix, host, desired),
            None => Ok(None),
        }
    }

    /// Tells the host the names of the listeners.
    pub(super) fn publish(&mut self, desired: &DesiredState) -> io::Result<()> {
        self.names.publish(self.prefix, desired)
    }

    /// Takes back the names and the addresses.
    pub(super) fn clear(&mut self) -> Result<(), ReconcileError> {
        self.names.release();
        let unpublished = self.names.unpublish();
        unpublished.map_err(|e| setting(ReconcileError::failed("remove", "the names", e)))?;
        if let Some(prefix) = self.prefix.take() {
            self.routes.remove(prefix).map_err(setting)?;
            return self.remove_record();
        }
        let left = match read_text(&self.record) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(setting(ReconcileError::file("read", &self.record)(e))),
        };
        // Text that is not a prefix was not written by the daemon.
        if let Ok(prefix) = left.trim().parse() {
            self.routes.forget(prefix).map_err(setting)?;
        }
        self.remove_record()
    }

    fn remove_record(&self) -> Result<(), ReconcileError> {
        match fs::remove_file(&self.record) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(setting(ReconcileError::file("remove", &self.record)(e)))
            }
            _ => Ok(()),
        }
    }
}
