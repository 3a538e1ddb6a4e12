//! TLS of services: of a listener with its clients, of a connector with its servers.

use crate::pki::{ServiceTlsClient, ServiceTlsServer};
use crate::telemetry::Failures;
use arc_swap::ArcSwap;

/// Configuration for handshakes with clients.
#[derive(Debug)]
pub struct ListenerTls {
    /// For connections from now on.
    pub config: ArcSwap<ServiceTlsServer>,
    pub failures: Failures,
}

/// Configuration for handshakes with servers.
#[derive(Debug)]
pub struct ConnectorTls {
    /// For connections from now on.
    pub config: ArcSwap<ServiceTlsClient>,
}

macro_rules! same_when_identical {
    ($($name:ident),*) => {$(
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                std::ptr::eq(self, other)
            }
        }

        impl Eq for $name {}
    )*};
}

// Credentials change inside; a different object is a different policy.
same_when_identical!(ListenerTls, ConnectorTls);
