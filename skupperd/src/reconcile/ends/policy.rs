//! What the settings of listeners and connectors mean.

use crate::{
    link::{Probe, ProbeKind, ends::ProxyProtocol},
    model::{Connector, Host, Name, Secret, ServerHost, Settings, parse_duration},
    pki::{self, ClientCertificate},
    telemetry::chain,
};
use std::time::Duration;

/// Setting of a listener: protocols that it offers in its TLS handshakes, apart by commas, the one it
/// likes best first; or `none`.
pub(in crate::reconcile) const ALPN: &str = "alpn";
/// Setting of a listener: whether clients show a certificate: `none`, `optional`, `required`.
pub(in crate::reconcile) const CLIENT_CERTIFICATE: &str = "client-certificate";
/// Setting of a connector: how the server is told of clients: `v1`, `v2`.
pub(in crate::reconcile) const PROXY_PROTOCOL: &str = "proxy-protocol";
/// Setting of a connector: name that the server is asked for in TLS handshakes.
pub(in crate::reconcile) const SERVER_NAME: &str = "tls-server-name";
/// Setting of a connector: how the server is probed: `tcp`, `http`.
pub(in crate::reconcile) const HEALTH: &str = "health-check";
/// Setting of a connector: what is asked for.
pub(in crate::reconcile) const HEALTH_PATH: &str = "health-check-path";
/// Setting of a connector: how often.
pub(in crate::reconcile) const HEALTH_INTERVAL: &str = "health-check-interval";
/// Setting of a connector: how many probes in a row have to fail.
pub(in crate::reconcile) const HEALTH_FAILURES: &str = "health-check-failures";

/// Where nothing is said: a browser or a command that can do both gets what every server behind can
/// do; a client of gRPC, which names nothing else, gets HTTP/2.
const PROTOCOLS: [&str; 2] = ["http/1.1", "h2"];
/// Time between probes where nothing is said.
const INTERVAL: Duration = Duration::from_secs(5);
/// Shorter ones would be a load.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Probes in a row that have to fail where nothing is said: one may be lost.
const FAILURES: u32 = 2;

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FrontPolicy {
    pub(super) credentials: Name,
    clients: ClientCertificate,
    protocols: Vec<String>,
}

/// How a connector speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BackPolicy {
    pub(super) credentials: Name,
    server_name: String,
    verify_hostname: bool,
    pub(super) use_client_cert: bool,
}

impl FrontPolicy {
    pub(super) fn of(
        credentials: Option<&Name>,
        settings: &Settings,
        require: bool,
    ) -> Result<Option<Self>, String> {
        let clients = match settings.get(CLIENT_CERTIFICATE).map(String::as_str) {
            _ if require => ClientCertificate::Required,
            None | Some("none") => ClientCertificate::None,
            Some("optional") => ClientCertificate::Optional,
            Some("required") => ClientCertificate::Required,
            Some(other) => {
                return Err(not_one_of(
                    CLIENT_CERTIFICATE,
                    other,
                    "none, optional and required",
                ));
            }
        };
        let protocols = match settings.get(ALPN).map(String::as_str) {
            None => PROTOCOLS.map(str::to_owned).to_vec(),
            Some("none") => Vec::new(),
            Some(list) => list.split(',').map(|p| p.trim().to_owned()).collect(),
        };
        // RFC 7301: a length of one byte.
        if protocols.iter().any(|p| !(1..=255).contains(&p.len())) {
            let text = "a protocol has 1 to 255 characters";
            return Err(setting(ALPN, &text));
        }
        Ok(credentials.map(|credentials| Self {
            credentials: credentials.clone(),
            clients,
            protocols,
        }))
    }

    pub(super) fn config(&self, secret: &Secret) -> Result<pki::EndServer, String> {
        if self.clients != ClientCertificate::None && secret.ca.is_empty() {
            let text = format!(
                "credentials {}: ca.crt is missing, by which clients are to be known",
                self.credentials
            );
            return Err(field("tlsCredentials", &text));
        }
        let config = pki::listener_config(&self.credentials, secret, self.clients, &self.protocols);
        config.map_err(|e| field("tlsCredentials", &chain(&e)))
    }
}

impl BackPolicy {
    pub(super) fn of(connector: &Connector) -> Result<Option<Self>, String> {
        let Some(credentials) = &connector.tls_credentials else {
            return Ok(None);
        };
        let server_name = match (connector.settings.get(SERVER_NAME), &connector.host) {
            (Some(name), _) => Host::new(&**name)
                .map_err(|e| setting(SERVER_NAME, &e))?
                .into(),
            (None, ServerHost::Network(host)) => host.to_string(),
            (None, ServerHost::Unix(_) | ServerHost::Workload(_)) if connector.verify_hostname => {
                let text = "there is no name to verify: name one in";
                return Err(field(
                    "verifyHostname",
                    &format!("{text} spec.settings[{SERVER_NAME}]"),
                ));
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

    pub(super) fn config(&self, secret: &Secret) -> Result<pki::EndClient, String> {
        let config = pki::connector_config(
            &self.credentials,
            secret,
            &self.server_name,
            self.verify_hostname,
            self.use_client_cert,
        );
        config.map_err(|e| field("tlsCredentials", &chain(&e)))
    }
}

pub(super) fn field(name: &str, reason: &str) -> String {
    format!("spec.{name}: {reason}")
}

fn setting(name: &str, reason: &dyn std::fmt::Display) -> String {
    format!("spec.settings[{name}]: {reason}")
}

fn not_one_of(name: &str, value: &str, allowed: &str) -> String {
    setting(name, &format!("{value:?} is none of {allowed}"))
}

/// How a connector's server is told of its clients.
pub(in crate::reconcile) fn proxy_protocol(
    settings: &Settings,
) -> Result<Option<ProxyProtocol>, String> {
    match settings.get(PROXY_PROTOCOL).map(String::as_str) {
        None | Some("none") => Ok(None),
        Some("v1") => Ok(Some(ProxyProtocol::V1)),
        Some("v2") => Ok(Some(ProxyProtocol::V2)),
        Some(other) => Err(not_one_of(PROXY_PROTOCOL, other, "none, v1 and v2")),
    }
}

/// How a connector's server is probed.
pub(in crate::reconcile) fn probe(connector: &Connector) -> Result<Option<Probe>, String> {
    let settings = &connector.settings;
    let path = settings.get(HEALTH_PATH).map_or("/", String::as_str);
    if !path.starts_with('/') || path.bytes().any(|c| !(33..127).contains(&c)) {
        return Err(setting(HEALTH_PATH, &format!("{path:?} is no path")));
    }
    let interval = settings.get(HEALTH_INTERVAL).map(|text| {
        let interval = parse_duration(text).filter(|d| *d >= MIN_INTERVAL);
        let bad = || format!("{text:?} is not a duration of 100ms or more");
        interval.ok_or_else(|| setting(HEALTH_INTERVAL, &bad()))
    });
    let failures = settings.get(HEALTH_FAILURES).map(|text| {
        let failures = text.parse().ok().filter(|n| *n > 0);
        let bad = || format!("{text:?} is not a number of 1 or more");
        failures.ok_or_else(|| setting(HEALTH_FAILURES, &bad()))
    });
    let (interval, failures) = (interval.transpose()?, failures.transpose()?);
    let kind = match settings.get(HEALTH).map(String::as_str) {
        None | Some("none") => return Ok(None),
        Some("tcp") => ProbeKind::Tcp,
        Some("http") => ProbeKind::Http {
            path: path.to_owned(),
            host: match (settings.get(SERVER_NAME), &connector.host) {
                (Some(name), _) => name.clone(),
                (None, ServerHost::Unix(_) | ServerHost::Workload(_)) => "localhost".to_owned(),
                (None, ServerHost::Network(host)) => match host.ip() {
                    Some(ip) if ip.is_ipv6() => format!("[{ip}]:{}", connector.port),
                    _ => format!("{host}:{}", connector.port),
                },
            },
        },
        Some(other) => return Err(not_one_of(HEALTH, other, "none, tcp and http")),
    };
    Ok(Some(Probe {
        kind,
        interval: interval.unwrap_or(INTERVAL),
        failures: failures.unwrap_or(FAILURES),
    }))
}
