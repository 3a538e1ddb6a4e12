//! Settings: advanced options of a resource, each a text under `spec.settings`.
//!
//! Each kind that has settings has a type here with a field for every one of them, whose default is
//! the effective value without the setting. The table in `manifest/settings.rs` says which key fills
//! which field; a setting that is not in that table stays a text and has no effect.

use super::{Host, Name, Netns, SerialNumber, ServicePrefix};
use ipnet::IpNet;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    time::Duration,
};

/// Settings as a manifest writes them, by key.
pub type SettingTexts = BTreeMap<String, String>;

/// The settings of a resource: as values, and as the user wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings<T> {
    texts: SettingTexts,
    values: T,
}

impl<T> Settings<T> {
    /// `values` must be the parsed `texts`.
    pub(crate) fn new(texts: SettingTexts, values: T) -> Self {
        Self { texts, values }
    }

    /// What the user wrote, with settings that have no effect.
    pub fn texts(&self) -> &SettingTexts {
        &self.texts
    }
}

impl<T> Deref for Settings<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.values
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteSettings {
    /// Data connections of each link that the site dials, 1 to 64; `None` is one for each worker.
    pub data_connections: Option<u8>,
    pub log_rules: Vec<LogRule>,
    /// Port on 127.0.0.1 for AMQP clients without TLS.
    pub local_amqp_port: Option<u16>,
    pub grant_server: GrantServerSettings,
    /// Hosts by which other sites reach this one; empty for all that the host is known by.
    pub link_access_hosts: Vec<Host>,
    /// Whether the kernel may steer clients to the listeners.
    pub steering: bool,
    /// Whether the kernel may accelerate connections of listeners and connectors that do not say.
    pub acceleration: bool,
    pub service_addresses: Option<ServicePrefix>,
    pub revoked_certificates: BTreeSet<SerialNumber>,
    /// At least 3 seconds; `None` is the default of `pki`.
    pub server_certificate_validity: Option<Duration>,
    /// The site's own CAs that are older than this are replaced.
    pub rotate_issuers_before: Option<Timestamp>,
    /// How long a replaced CA stays trusted.
    pub issuer_overlap: Duration,
}

impl Default for SiteSettings {
    fn default() -> Self {
        Self {
            data_connections: None,
            log_rules: Vec::new(),
            local_amqp_port: None,
            grant_server: GrantServerSettings::default(),
            link_access_hosts: Vec::new(),
            steering: true,
            // Programs can see the difference, so the operator decides.
            acceleration: false,
            service_addresses: None,
            revoked_certificates: BTreeSet::new(),
            server_certificate_validity: None,
            rotate_issuers_before: None,
            issuer_overlap: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

/// Where a site serves its grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantServerSettings {
    /// `None` is [`super::GRANT_PORT`] or the next free port.
    pub port: Option<u16>,
    /// Host in the URL of tokens.
    pub host: Option<Host>,
    /// Address to listen on; `None` is all of the host's.
    pub bind_host: Option<Host>,
}

/// Settings of a Listener and of a MultiKeyListener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Protocols to offer to TLS clients, the preferred one first; each of 1 to 255 bytes (RFC 7301).
    pub alpn: Vec<String>,
    pub client_certificate: ClientCertificate,
    /// `None` uses the setting of the site.
    pub acceleration: Option<bool>,
    /// Ports beside `spec.port`.
    pub ports: ExtraPorts,
    /// Addresses beside `spec.host`; never all addresses.
    pub host_prefix: Option<IpNet>,
    /// Network namespace to listen in; `None` is the daemon's.
    pub network_namespace: Option<Netns>,
    /// Users of this host that may connect, at least one; `None` allows everyone.
    pub allow_users: Option<Vec<UserRef>>,
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self {
            // A browser or command that speaks both gets HTTP/1.1, which every server speaks; a gRPC
            // client, which offers only h2, gets that.
            alpn: ["http/1.1", "h2"].map(str::to_owned).to_vec(),
            client_certificate: ClientCertificate::None,
            acceleration: None,
            ports: ExtraPorts::default(),
            host_prefix: None,
            network_namespace: None,
            allow_users: None,
        }
    }
}

/// Settings of a Connector, and of both sides of an attached one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorSettings {
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Time for each attempt to connect to the server; at least 100 ms.
    pub connect_timeout: Duration,
    /// Name to ask the server for in TLS handshakes and in health checks.
    pub tls_server_name: Option<Host>,
    pub health_check: HealthCheck,
    /// Path that an HTTP health check asks for, from `/`.
    pub health_check_path: String,
    /// Time between health checks, and the most that one may take; at least 100 ms.
    pub health_check_interval: Duration,
    /// Health checks in a row that have to fail, at least 1.
    pub health_check_failures: u32,
    /// Health checks in a row that have to succeed, at least 1.
    pub health_check_successes: u32,
    /// `None` uses the setting of the site.
    pub acceleration: Option<bool>,
    /// Sites whose clients are served, at least one; `None` serves all.
    pub allow_sites: Option<BTreeSet<Name>>,
}

impl Default for ConnectorSettings {
    fn default() -> Self {
        Self {
            proxy_protocol: None,
            connect_timeout: Duration::from_secs(5),
            tls_server_name: None,
            health_check: HealthCheck::None,
            health_check_path: "/".to_owned(),
            health_check_interval: Duration::from_secs(5),
            // One may be lost.
            health_check_failures: 2,
            health_check_successes: 1,
            acceleration: None,
            allow_sites: None,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkSettings {
    /// Secret of the HTTP proxy to dial through.
    pub proxy_configuration: Option<Name>,
}

/// Whether a listener asks TLS clients for a certificate of its credentials' CA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    #[default]
    None,
    /// Clients without one are let in too.
    Optional,
    Required,
}

/// Version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// How the server of a connector is probed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthCheck {
    #[default]
    None,
    Tcp,
    Http,
}

/// Ports of a listener beside its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtraPorts {
    /// Every port that nothing else on the host listens on.
    All,
    /// Ranges from the first port to the last, in order, apart from each other.
    Ranges(Vec<(u16, u16)>),
}

impl ExtraPorts {
    /// Most ports of [`Self::Ranges`]: each takes a socket.
    pub const MAX: usize = 4096;
}

impl Default for ExtraPorts {
    fn default() -> Self {
        Self::Ranges(Vec::new())
    }
}

/// A user of this host, who is looked up when the listener starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserRef {
    Id(u32),
    Name(String),
}

/// Log level of a part of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRule {
    pub module: LogModule,
    pub level: LogLevel,
}

/// Parts of the daemon, by what they do. Skupper's names of router modules are read as these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogModule {
    All,
    Router,
    Links,
    Policy,
    Protocol,
    Tcp,
    Flows,
    Http,
    Agent,
    /// A module of Skupper's router that has no counterpart here.
    Absent,
}

/// The least severe level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}
