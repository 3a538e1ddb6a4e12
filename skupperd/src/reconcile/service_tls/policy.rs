//! How a listener or a connector uses TLS, and how a server is probed, by their fields and settings.

use crate::{
    core::{Probe, ProbeKind},
    model::{
        ClientCertificate, Connector, HealthCheck, ListenerSettings, Name, Secret, ServerHost,
    },
    pki,
    reconcile::error::ReconcileError,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::reconcile) struct ListenerTlsPolicy {
    pub(super) credentials: Name,
    clients: ClientCertificate,
    protocols: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::reconcile) struct ConnectorTlsPolicy {
    pub(super) credentials: Name,
    server_name: String,
    verify_hostname: bool,
    pub(super) use_client_cert: bool,
}

impl ListenerTlsPolicy {
    /// `None` for a listener without TLS. `require`: `spec.requireClientCert`, which overrides the
    /// setting.
    pub(in crate::reconcile) fn of(
        credentials: Option<&Name>,
        settings: &ListenerSettings,
        require: bool,
    ) -> Option<Self> {
        Some(Self {
            credentials: credentials?.clone(),
            clients: if require {
                ClientCertificate::Required
            } else {
                settings.client_certificate
            },
            protocols: settings.alpn.clone(),
        })
    }

    pub(super) fn config(&self, secret: &Secret) -> Result<pki::ServiceTlsServer, ReconcileError> {
        if self.clients != ClientCertificate::None && secret.ca.is_empty() {
            let text = format!(
                "credentials {} have no ca.crt to verify client certificates with",
                self.credentials
            );
            return Err(ReconcileError::field("tlsCredentials", text));
        }
        let config = pki::listener_config(&self.credentials, secret, self.clients, &self.protocols);
        config.map_err(|e| ReconcileError::field("tlsCredentials", e))
    }
}

impl ConnectorTlsPolicy {
    pub(in crate::reconcile) fn of(connector: &Connector) -> Result<Option<Self>, ReconcileError> {
        let Some(credentials) = &connector.tls_credentials else {
            return Ok(None);
        };
        let server_name = match (&connector.settings.tls_server_name, &connector.host) {
            (Some(name), _) => name.to_string(),
            (None, ServerHost::Network(host)) => host.to_string(),
            (None, ServerHost::Unix(_) | ServerHost::Workload(_)) if connector.verify_hostname => {
                let text = "no name to verify: set spec.settings[tls-server-name]";
                return Err(ReconcileError::field("verifyHostname", text));
            }
            (None, ServerHost::Unix(_) | ServerHost::Workload(_)) => String::new(),
        };
        Ok(Some(Self {
            credentials: credentials.clone(),
            server_name,
            verify_hostname: connector.verify_hostname,
            use_client_cert: connector.use_client_cert,
        }))
    }

    pub(super) fn config(&self, secret: &Secret) -> Result<pki::ServiceTlsClient, ReconcileError> {
        let config = pki::connector_config(
            &self.credentials,
            secret,
            &self.server_name,
            self.verify_hostname,
            self.use_client_cert,
        );
        config.map_err(|e| ReconcileError::field("tlsCredentials", e))
    }
}

/// `None` for a server that is not probed.
pub(in crate::reconcile) fn probe(connector: &Connector) -> Option<Probe> {
    let settings = &connector.settings;
    let kind = match settings.health_check {
        HealthCheck::None => return None,
        HealthCheck::Tcp => ProbeKind::Tcp,
        HealthCheck::Http => ProbeKind::Http {
            path: settings.health_check_path.clone(),
            host: match (&settings.tls_server_name, &connector.host) {
                (Some(name), _) => name.to_string(),
                (None, ServerHost::Unix(_) | ServerHost::Workload(_)) => "localhost".to_owned(),
                (None, ServerHost::Network(host)) => match host.ip() {
                    Some(ip) if ip.is_ipv6() => format!("[{ip}]:{}", connector.port),
                    _ => format!("{host}:{}", connector.port),
                },
            },
        },
    };
    Some(Probe {
        kind,
        interval: settings.health_check_interval,
        failures: settings.health_check_failures,
    })
}
