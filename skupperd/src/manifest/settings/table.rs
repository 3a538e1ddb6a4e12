//! The rows: everything about each setting, in one place.

use super::{
    Invalid, Read, Requires, Setting,
    format::{
        AUTO_OR_OFF, CLIENT_CERTIFICATE, COUNT, DATA_CONNECTIONS, DURATION, DURATION_100MS,
        EXTRA_PORTS, HEALTH_CHECK, HOST, HOSTS, LOG_RULES, NAME, NETNS, PATH, PORT, PREFIX,
        PROTOCOLS, PROXY_PROTOCOL, SERIAL_NUMBERS, SERVICE_PREFIX, SITES, TIME, USERS, VALIDITY,
    },
};
use crate::model::Kind;

const SITE: &[Kind] = &[Kind::Site];
const LINK: &[Kind] = &[Kind::Link];
const LISTENER: &[Kind] = &[Kind::Listener];
const LISTENERS: &[Kind] = &[Kind::Listener, Kind::MultiKeyListener];
/// Both sides of an attached connector make one connector.
const CONNECTORS: &[Kind] = &[
    Kind::Connector,
    Kind::AttachedConnector,
    Kind::AttachedConnectorBinding,
];

/// `KINDS KEY = FORMAT => TYPE.FIELD, default, help, options`.
macro_rules! row {
    (
        $kinds:ident $key:literal $(| $alias:literal)* = $format:ident
        => $type:ident . $($field:ident).+, $default:expr, $help:expr
        $(, $option:ident: $value:expr)* $(,)?
    ) => {
        Setting {
            $($option: $value,)*
            ..Setting {
                kinds: $kinds,
                key: $key,
                aliases: &[$($alias),*],
                syntax: $format.syntax,
                words: $format.words,
                default: $default,
                help: $help,
                details: "",
                is_skupper_setting: false,
                requires: Requires::Nothing,
                invalid: Invalid::Refused,
                read: Read::$type(|settings, text| {
                    settings.$($field).+ = ($format.parse)(text)?.into();
                    Ok(())
                }),
            }
        }
    };
}

/// Every setting that has an effect.
pub const TABLE: &[Setting] = &[
    row!(SITE "router-data-connection-count" | "routerDataConnections" = DATA_CONNECTIONS
        => Site.data_connections, Some("auto"),
        "data connections of each link that the site dials; auto is one for each worker",
        is_skupper_setting: true,
        invalid: Invalid::Ignored),
    row!(SITE "router-logging" | "routerLogging" = LOG_RULES
        => Site.log_rules, None,
        "log levels by module, in addition to SKUPPER_LOG; modules have the names of Skupper's router",
        details: "Levels are `trace`, `debug`, `info`, `notice`, `warning`, `error` and `critical`; \
            modules are `ROUTER_CORE`, `TCP_ADAPTOR` and the others of Skupper's router. The daemon \
            has one log: the setting of one site applies to all.",
        is_skupper_setting: true,
        invalid: Invalid::Ignored),
    row!(SITE "local-amqp-port" = PORT
        => Site.local_amqp_port, None,
        "unencrypted port on 127.0.0.1 for AMQP clients of this host; without it, none",
        details: "Every user of the host can then send to the network's addresses."),
    row!(SITE "grant-server-port" = PORT
        => Site.grant_server.port, None,
        "port where tokens are redeemed; without it, 9090 or the next free one"),
    row!(SITE "grant-server-host" = HOST
        => Site.grant_server.host, None,
        "host in the URL of tokens; without it, an address of this host"),
    row!(SITE "grant-server-bind-host" = HOST
        => Site.grant_server.bind_host, None,
        "address where tokens are redeemed; without it, all addresses of this host"),
    row!(SITE "link-access-hosts" = HOSTS
        => Site.link_access_hosts, None,
        "names and addresses at which other sites reach this one; without it, all of this host",
        details: "The certificate keeps its earlier names: links that were issued dial them."),
    row!(SITE "steering" = AUTO_OR_OFF
        => Site.steering, Some("auto"),
        "whether the kernel may steer clients to listeners; off gives each listener sockets of its own",
        details: "skupperd(8) lists the requirements."),
    row!(SITE "acceleration" = AUTO_OR_OFF
        => Site.acceleration, Some("off"),
        "whether the kernel shortens the path between programs of this host and the daemon",
        details: "Settings of a listener or connector take precedence. Read ACCELERATION in skupperd(8) \
            first: not every program may use it."),
    row!(SITE "service-addresses" = SERVICE_PREFIX
        => Site.service_addresses, None,
        "addresses that this host takes for its listeners, such as 198.18.7.0/24",
        details: "Listeners can have any address of it; those whose host is a name get one. See \
            skupper-listener(5)."),
    row!(SITE "revoked-certificates" = SERIAL_NUMBERS
        => Site.revoked_certificates, None,
        "serial numbers of certificates that are no longer accepted; written by skupper link revoke"),
    row!(SITE "server-certificate-validity" = VALIDITY
        => Site.server_certificate_validity, None,
        "validity of the server certificates that the site issues; without it, 5 years"),
    row!(SITE "rotate-issuers-before" = TIME
        => Site.rotate_issuers_before, None,
        "replace the site's own CAs that are older than this; written by skupper issuer rotate"),
    row!(SITE "issuer-overlap" = DURATION
        => Site.issuer_overlap, Some("720h"),
        "how long a replaced CA stays trusted",
        details: "`skupper issuer rotate` writes it."),
    row!(LISTENERS "alpn" = PROTOCOLS
        => Listener.alpn, Some("http/1.1,h2"),
        "protocols to offer to TLS clients, the preferred one first",
        details: "Clients that can do both get what every server supports, and gRPC clients, which offer \
            only HTTP/2, get that. A client that offers none of them is served without one. A \
            connector with TLS offers the agreed protocol to its server.",
        requires: Requires::Tls),
    row!(LISTENERS "client-certificate" = CLIENT_CERTIFICATE
        => Listener.client_certificate, Some("none"),
        "whether TLS clients must present a certificate of the credentials' CA",
        details: "The CA is `ca.crt` of the credentials, or `skupper-service-ca` if that issued them.",
        requires: Requires::Tls),
    row!(LISTENERS "acceleration" = AUTO_OR_OFF
        => Listener.acceleration, None,
        "whether the kernel shortens the path from clients of this host; without it, the site's setting",
        details: "It has an effect for single ports of an address or of all addresses, without TLS and not \
            in another network namespace. Read ACCELERATION in skupperd(8) first: not every program \
            may use it.",
        requires: Requires::NoTls),
    row!(LISTENERS "ports" = EXTRA_PORTS
        => Listener.ports, None,
        "ports to listen on beside spec.port, such as 8000-8100,9000",
        details: "At most 4096 ports. `all` is for addresses that no interface has, such as service \
            addresses."),
    row!(LISTENERS "host-prefix" = PREFIX
        => Listener.host_prefix, None,
        "addresses to listen on beside spec.host, such as 10.20.0.0/16",
        details: "It covers what this host receives packets for."),
    row!(LISTENER "network-namespace" = NETNS
        => Listener.network_namespace, None,
        "network namespace to listen in; without it, the daemon's",
        details: "A path such as `/run/netns/blue`, `unit:NAME.service` for that of a unit's main process, \
            or `pid:NUMBER` for that of a process."),
    row!(LISTENERS "allow-users" = USERS
        => Listener.allow_users, None,
        "users of this host that may connect; without it, everyone, from any host",
        details: "Connections of others, and from other hosts, are reset. The log names the user, at most \
            once in ten seconds. Programs in another network namespace, such as a container's, \
            belong to no user here."),
    row!(CONNECTORS "proxy-protocol" = PROXY_PROTOCOL
        => Connector.proxy_protocol, Some("none"),
        "version of the PROXY protocol that tells the server the client's address",
        details: "The header goes before TLS, and has the addresses of the client and of the listener as \
            the client's site sees them. If the client came in at a router of the Go implementation, \
            it says that they are unknown."),
    row!(CONNECTORS "connect-timeout" = DURATION_100MS
        => Connector.connect_timeout, Some("5s"),
        "time for each attempt to connect to the server, without a TLS handshake",
        details: "For a host name, each address is one attempt. The kernel ends an attempt by TCP \
            after about two minutes, whatever the setting says."),
    row!(CONNECTORS "tls-server-name" = HOST
        => Connector.tls_server_name, None,
        "name to ask the server for in TLS handshakes, and to verify; without it, spec.host"),
    row!(CONNECTORS "health-check" = HEALTH_CHECK
        => Connector.health_check, Some("none"),
        "probe the server, and offer it only while probes succeed",
        details: "`tcp` connects; `http` sends a GET, over TLS if the connector uses TLS, and accepts \
            status 200 to 399. The server is offered to the network after \
            `health-check-successes` successful probes in a row, and withdrawn after `health-check-failures` failed ones in a row. Open \
            connections stay."),
    row!(CONNECTORS "health-check-path" = PATH
        => Connector.health_check_path, Some("/"),
        "path that an HTTP health check asks for"),
    row!(CONNECTORS "health-check-interval" = DURATION_100MS
        => Connector.health_check_interval, Some("5s"),
        "time between health checks, and the most that one may take"),
    row!(CONNECTORS "health-check-failures" = COUNT
        => Connector.health_check_failures, Some("2"),
        "failed health checks in a row after which the server is not offered"),
    row!(CONNECTORS "health-check-successes" = COUNT
        => Connector.health_check_successes, Some("1"),
        "successful health checks in a row after which the server is offered, at first and again"),
    row!(CONNECTORS "acceleration" = AUTO_OR_OFF
        => Connector.acceleration, None,
        "whether the kernel shortens the path to a server of this host; without it, the site's setting",
        details: "It has no effect with TLS and with Unix sockets. Read ACCELERATION in skupperd(8) first: \
            not every program may use it.",
        requires: Requires::NoTls),
    row!(CONNECTORS "allow-sites" = SITES
        => Connector.allow_sites, None,
        "sites whose clients may connect; without it, all sites",
        details: "Name this site too if its own clients may. Other connections are refused, or go to \
            another connector of the routing key. The log names the site, at most once in ten \
            seconds. The router of the client's site reports its name, and could report another \
            one: revoke the certificate of a site that you do not trust."),
    row!(LINK "proxy-configuration" = NAME
        => Link.proxy_configuration, None,
        "Secret with host, port and optional username and password of the HTTP proxy to dial through",
        is_skupper_setting: true),
];

/// Settings that mean something to Skupper on other platforms: kind, key, and why not here.
pub const OTHER_PLATFORMS: &[(Kind, &str, &str)] = &[
    (Kind::Site, "size", "on a host"),
    (Kind::Site, "disable-anti-affinity", "on a host"),
    (
        Kind::Site,
        "tls-prior-valid-revisions",
        "on a host: certificates overlap as issuer-overlap says",
    ),
    (Kind::RouterAccess, "ingressClassName", "on a host"),
    (Kind::RouterAccess, "domain", "on a host"),
];
