//! What a resource says that has no effect here: kept, and said in its status, never silently.

use super::{
    ends::{
        ALPN, CLIENT_CERTIFICATE, HEALTH, HEALTH_FAILURES, HEALTH_INTERVAL, HEALTH_PATH,
        PROXY_PROTOCOL, SERVER_NAME, probe,
    },
    grants,
    places::{NETNS, PORTS, PREFIX},
    policy::{SITES, USERS},
    settings::{
        ACCELERATION, HOSTS, LOCAL_AMQP, LOGGING, OVERLAP, PROXY, REVOKED, ROTATE,
        SERVICE_ADDRESSES, STEERING, TRUNK, VALIDITY, logging, trunk,
    },
};
use crate::{
    manifest::Located,
    model::{Connector, Kind, LinkAccess, Settings, Site, Spec},
};

const SITE: &[&str] = &[
    TRUNK[0],
    TRUNK[1],
    LOGGING[0],
    LOGGING[1],
    LOCAL_AMQP,
    grants::PORT,
    grants::HOST,
    grants::BIND,
    HOSTS,
    STEERING,
    ACCELERATION,
    SERVICE_ADDRESSES,
    REVOKED,
    VALIDITY,
    ROTATE,
    OVERLAP,
];
const LISTENER: &[&str] = &[
    ALPN,
    CLIENT_CERTIFICATE,
    ACCELERATION,
    PORTS,
    PREFIX,
    NETNS,
    USERS,
];
const MULTI_KEY_LISTENER: &[&str] = &[ALPN, CLIENT_CERTIFICATE, ACCELERATION, PORTS, PREFIX, USERS];
const CONNECTOR: &[&str] = &[
    PROXY_PROTOCOL,
    SERVER_NAME,
    HEALTH,
    HEALTH_PATH,
    HEALTH_INTERVAL,
    HEALTH_FAILURES,
    ACCELERATION,
    SITES,
];

/// Settings that have an effect, of each kind.
pub fn settings(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Site => SITE,
        Kind::Link => &[PROXY],
        Kind::Listener => LISTENER,
        Kind::MultiKeyListener => MULTI_KEY_LISTENER,
        // What is said on either side is the connector's that comes of them.
        Kind::Connector | Kind::AttachedConnector | Kind::AttachedConnectorBinding => CONNECTOR,
        _ => &[],
    }
}

/// What a resource says that has no effect here.
pub(super) fn notes(located: &Located) -> Vec<String> {
    let mut notes = Vec::new();
    let spec = &located.resource.spec;
    let tls = match spec {
        Spec::Site(site) => {
            of_site(site, &mut notes);
            false
        }
        Spec::Listener(listener) => listener.tls_credentials.is_some(),
        Spec::MultiKeyListener(listener) => {
            if listener.require_client_cert && listener.tls_credentials.is_none() {
                notes.push(idle("requireClientCert", "without spec.tlsCredentials"));
            }
            listener.tls_credentials.is_some()
        }
        Spec::Connector(connector) => {
            of_connector(connector, &mut notes);
            connector.tls_credentials.is_some()
        }
        _ => false,
    };
    // Of these a resource keeps no more than its document.
    let said = |name: &str| {
        located.document["spec"]
            .get(name)
            .is_some_and(|v| *v != false)
    };
    for (name, why) in [
        (
            "serviceAccount",
            "on a host: the daemon's user is that of its unit",
        ),
        (
            "accessType",
            "on a host: links come in at its own addresses",
        ),
        ("exposePodsByName", "on a host without pods"),
    ] {
        if said(name) {
            notes.push(idle(name, why));
        }
    }
    let nothing = Settings::new();
    for key in set(spec).unwrap_or(&nothing).keys() {
        notes.extend(of_setting(located.resource.kind(), key, tls));
    }
    notes
}

fn idle(name: &str, why: &str) -> String {
    format!("spec.{name} has no effect {why}")
}

fn of_setting(kind: Kind, key: &str, tls: bool) -> Option<String> {
    let why = match key {
        "size" | "disable-anti-affinity" | "ingressClassName" | "domain" => {
            "has no effect on a host"
        }
        "tls-prior-valid-revisions" => {
            "has no effect on a host: certificates overlap as issuer-overlap says"
        }
        key if !settings(kind).contains(&key) => "is not known and has no effect",
        ALPN | CLIENT_CERTIFICATE if !tls => "has no effect without spec.tlsCredentials",
        ACCELERATION if tls => "has no effect with spec.tlsCredentials",
        _ => return None,
    };
    Some(format!("spec.settings[{key}] {why}"))
}

fn set(spec: &Spec) -> Option<&Settings> {
    Some(match spec {
        Spec::Site(s) => &s.settings,
        Spec::Link(s) => &s.settings,
        Spec::Listener(s) => &s.settings,
        Spec::MultiKeyListener(s) => &s.settings,
        Spec::Connector(s) => &s.settings,
        Spec::RouterAccess(s) => &s.settings,
        Spec::AccessGrant(s) => &s.settings,
        Spec::AccessToken(s) => &s.settings,
        Spec::Certificate(s) => &s.settings,
        Spec::AttachedConnector(s) => &s.settings,
        Spec::AttachedConnectorBinding(s) => &s.settings,
        Spec::Secret(_) | Spec::Unserved(_) => return None,
    })
}

fn of_site(site: &Site, notes: &mut Vec<String>) {
    if let LinkAccess::Enabled(how) = &site.link_access
        && how != "default"
    {
        notes.push(format!(
            "spec.linkAccess {how:?} is another platform's and means default here"
        ));
    }
    let count = TRUNK
        .iter()
        .find_map(|key| site.settings.get_key_value(*key));
    if let Some((key, text)) = count
        && text != "auto"
        && trunk(&site.settings).is_none()
    {
        notes.push(format!(
            "spec.settings[{key}]: {text:?} is neither auto nor a number of 1 to 64; it has no effect"
        ));
    }
    // Nobody's services are to stand still for want of a word in the log.
    let wrong = logging(&site.settings).err();
    notes.extend(wrong.map(|why| format!("{why}; it has no effect")));
}

fn of_connector(connector: &Connector, notes: &mut Vec<String>) {
    let probed = matches!(probe(connector), Ok(Some(_)));
    if connector.include_not_ready && !probed && connector.host.selector().is_none() {
        let why = format!("without spec.selector or spec.settings[{HEALTH}]");
        notes.push(idle("includeNotReadyPods", &why));
    }
    for (name, set) in [
        ("useClientCert", connector.use_client_cert),
        ("verifyHostname", connector.verify_hostname),
    ] {
        if set && connector.tls_credentials.is_none() {
            notes.push(idle(name, "without spec.tlsCredentials"));
        }
    }
    if connector.host.unix().is_some() && connector.port != 0 {
        notes.push(idle("port", "where spec.host is a Unix socket"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn noted(kind: &str, spec: &str) -> Vec<String> {
        let text = format!(
            "apiVersion: skupper.io/v2alpha1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n"
        );
        let mut parsed = crate::manifest::parse(Path::new("f.yaml"), text.as_bytes(), None);
        notes(&parsed.remove(0).unwrap())
    }

    #[test]
    fn n1_n2_what_is_of_other_platforms_is_accepted_and_said_to_be_without_effect() {
        let site = "{linkAccess: route, serviceAccount: skupper-router, \
                    settings: {size: big, disable-anti-affinity: \"true\", wrong: x, \
                    tls-prior-valid-revisions: \"1\"}}";
        let noted_site = noted("Site", site);
        let about = |what: &str| noted_site.iter().any(|note| note.contains(what));
        for what in [
            "linkAccess \"route\"",
            "serviceAccount",
            "[size]",
            "[disable-anti-affinity]",
            "[tls-prior-valid-revisions]",
            "[wrong] is not known",
        ] {
            assert!(about(what), "{what}: {noted_site:?}");
        }
        assert_eq!(noted_site.len(), 6, "{noted_site:?}");
        for access in [
            "loadbalancer",
            "nodeport",
            "ingress",
            "ingress-nginx",
            "contour-http-proxy",
            "gateway",
            "local",
        ] {
            let noted = noted("Site", &format!("{{linkAccess: {access}}}"));
            assert!(noted[0].contains("means default here"), "{noted:?}");
        }
        for quiet in [
            "{}",
            "{linkAccess: default}",
            "{linkAccess: none}",
            "{settings: {routerDataConnections: \"3\", router-logging: info}}",
            "{settings: {router-data-connection-count: auto, routerLogging: info}}",
        ] {
            assert!(noted("Site", quiet).is_empty());
        }
    }

    #[test]
    fn n4_an_access_type_is_without_effect() {
        let access = "{roles: [{name: edge}], accessType: route, generateTlsCredentials: true, \
                      settings: {domain: example.org}}";
        let noted = noted("RouterAccess", access);
        assert_eq!(noted.len(), 2, "{noted:?}");
        assert!(noted[0].contains("accessType") && noted[1].contains("[domain]"));
    }

    #[test]
    fn v38_pods_are_accepted_and_said_to_be_without_effect() {
        for (kind, spec) in [
            (
                "Listener",
                "{routingKey: a, host: a, port: 1, exposePodsByName: true}",
            ),
            (
                "Connector",
                "{routingKey: a, host: a, port: 1, exposePodsByName: true}",
            ),
        ] {
            assert!(noted(kind, spec)[0].contains("exposePodsByName"));
        }
        let quiet = "{routingKey: a, host: a, port: 1, exposePodsByName: false}";
        assert!(noted("Listener", quiet).is_empty());
    }

    #[test]
    fn a_setting_that_nobody_knows_is_said_in_every_kind() {
        let token = "{url: \"https://h:1/x\", code: c, settings: {x: y}, \
                     ca: \"-----BEGIN CERTIFICATE-----\"}";
        for (kind, spec) in [
            ("AccessGrant", "{settings: {x: y}}"),
            ("AccessToken", token),
            (
                "Certificate",
                "{ca: a, subject: a, server: true, settings: {x: y}}",
            ),
            (
                "AttachedConnectorBinding",
                "{connectorNamespace: other, routingKey: a, settings: {x: y}}",
            ),
        ] {
            assert_eq!(
                noted(kind, spec),
                ["spec.settings[x] is not known and has no effect"]
            );
        }
    }

    #[test]
    fn c26_a_count_of_data_connections_is_read_by_both_spellings_and_a_wrong_one_said() {
        for key in ["router-data-connection-count", "routerDataConnections"] {
            let of = |count: &str| Settings::from([(key.to_owned(), count.to_owned())]);
            assert_eq!(trunk(&of("3")), Some(3), "{key}");
            assert_eq!(trunk(&of("auto")), None);
            let said = noted("Site", &format!("{{settings: {{{key}: many}}}}"));
            assert!(
                said[0].contains(key) && said[0].contains("no effect"),
                "{said:?}"
            );
        }
    }
}
