//! Malformed resources of every kind: what is said of each names file, line, resource and field.
//!
//! Row "Must show 7" and the checklist's C25, L5, V14-V16, S7. Each case is a document; beside each
//! stands a good one, which must come through.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use skupperd::{
    manifest::{
        LocatedResource, ManifestError, parse,
        settings::{TABLE, settings_of},
        validate_set,
    },
    model::{Kind, Namespace},
};
use std::{fmt::Write, path::Path};

const GOOD: &str = "---\napiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata:\n  name: beside\n";

fn results(bytes: &[u8]) -> Vec<Result<LocatedResource, ManifestError>> {
    let namespace = Namespace::new("east").unwrap();
    parse(Path::new("/in/f.yaml"), bytes, Some(&namespace))
}

/// What is said of each case, one line for a case.
fn error_texts(cases: &[(&str, String)]) -> String {
    let mut said = String::new();
    for (case, document) in cases {
        let mut errors = Vec::new();
        for result in results(document.as_bytes()) {
            errors.push(match result {
                Ok(located) => format!("accepted: {}", located.key()),
                Err(error) => error.to_string(),
            });
        }
        writeln!(said, "{case}\n    {}", errors.join("\n    ")).unwrap();
        let beside = results(format!("{GOOD}---\n{document}\n{GOOD}").as_bytes());
        let good = beside.iter().filter(|r| {
            r.as_ref()
                .is_ok_and(|located| located.resource.name() == "beside")
        });
        assert_eq!(
            good.count(),
            2,
            "documents beside {case} do not come through"
        );
    }
    said
}

fn skupper(kind: &str, spec: &str) -> String {
    let head = "apiVersion: skupper.io/v2alpha1\nkind: KIND\nmetadata:\n  name: backend\n";
    let mut text = head.replace("KIND", kind);
    if !spec.is_empty() {
        text.push_str("spec:\n");
        for line in spec.lines() {
            writeln!(text, "  {line}").unwrap();
        }
    }
    text
}

macro_rules! cases {
    ($kind:literal: $($name:literal => $spec:literal),* $(,)?) => {
        error_texts(&[$(($name, skupper($kind, $spec))),*])
    };
}

#[test]
fn documents() {
    let text = |name: &'static str, text: &str| (name, text.to_owned());
    let listener = skupper("Listener", "routingKey: a\nhost: h\nport: 1");
    let change = |name: &'static str, from: &str, to: &str| (name, listener.replace(from, to));
    let cases = [
        text("scalar", "just words\n"),
        text("null", "~\n"),
        text("list", "- kind: Site\n- kind: Link\n"),
        text(
            "no_kind",
            "apiVersion: skupper.io/v2alpha1\nmetadata:\n  name: a\n",
        ),
        text(
            "kind_is_number",
            "apiVersion: skupper.io/v2alpha1\nkind: 1\nmetadata:\n  name: a\n",
        ),
        change("kind_unknown", "kind: Listener", "kind: Listner"),
        change("kind_lower_case", "kind: Listener", "kind: listener"),
        change("kind_of_another_api", "kind: Listener", "kind: ConfigMap"),
        text("no_version", "kind: Site\nmetadata:\n  name: a\n"),
        change("version_old", "v2alpha1", "v1alpha1"),
        change("version_of_secrets", "skupper.io/v2alpha1", "v1"),
        text(
            "no_metadata",
            "apiVersion: skupper.io/v2alpha1\nkind: Site\nspec: {}\n",
        ),
        text(
            "metadata_is_text",
            "apiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata: a\n",
        ),
        change("no_name", "  name: backend", "  labels: {}"),
        change("empty_name", "name: backend", "name: ''"),
        change("name_is_number", "name: backend", "name: 12"),
        change("name_upper_case", "name: backend", "name: Backend"),
        change("name_with_underscore", "name: backend", "name: back_end"),
        change("name_ends_in_hyphen", "name: backend", "name: backend-"),
        change("name_is_a_path", "name: backend", "name: ../../etc"),
        (
            "name_too_long",
            listener.replace("backend", &"n".repeat(226)),
        ),
        change(
            "namespace_other",
            "name: backend",
            "name: backend\n  namespace: west",
        ),
        change(
            "namespace_bad",
            "name: backend",
            "name: backend\n  namespace: West",
        ),
        change(
            "metadata_unknown_field",
            "name: backend",
            "name: backend\n  nmae: x",
        ),
        change(
            "label_is_number",
            "name: backend",
            "name: backend\n  labels:\n    a.b/c: 1",
        ),
        change("unknown_field_outside", "spec:", "spce: {}\nspec:"),
        change("field_twice", "  port: 1", "  port: 1\n  port: 2"),
        change("top_level_twice", "spec:", "kind: Site\nspec:"),
        change("spec_is_list", "spec:\n", "spec:\n- x: 1\nx:\n"),
        change("tab", "  port: 1", "\tport: 1"),
        change("bad_indentation", "  host: h", "    host: h"),
        change("unclosed_quote", "host: h", "host: \"h"),
        change("unclosed_bracket", "host: h", "host: [h"),
        change("unknown_anchor", "host: h", "host: *h"),
        change("tag", "port: 1", "port: !port 1"),
        change("merge_key", "  port: 1", "  <<: {port: 1}"),
        change("key_is_list", "  port: 1", "  ? [port]\n  : 1"),
        change("control_character", "host: h", "host: \"\u{1}\""),
    ];
    insta::assert_snapshot!(error_texts(&cases));
}

#[test]
fn sites() {
    let said = cases! { "Site":
        "edge_with_ha" => "edge: true\nha: true",
        "edge_with_link_access" => "edge: true\nlinkAccess: default",
        "edge_is_word" => "edge: yes",
        "edge_is_text" => "edge: 'true'",
        "ha_is_number" => "ha: 2",
        "link_access_is_bool" => "linkAccess: true",
        "issuer_bad" => "defaultIssuer: My_CA",
        "setting_is_number" => "settings:\n  size: small\n  router-data-connection-count: 4",
        "settings_is_list" => "settings:\n- a",
        "unknown_field" => "linkAcces: default",
    };
    insta::assert_snapshot!(said);
}

/// A kind of resource, a setting of it, and invalid values: of each format that settings have.
const SETTINGS: &[(&str, &str, &[&str])] = &[
    ("Site", "local-amqp-port", &["0", "http"]),
    ("Site", "grant-server-port", &["65536"]),
    ("Site", "grant-server-host", &["a_b"]),
    ("Site", "grant-server-bind-host", &["10.0.0.256"]),
    ("Site", "link-access-hosts", &["east.example.com, Bad_Host"]),
    ("Site", "steering", &["on"]),
    ("Site", "acceleration", &["true"]),
    (
        "Site",
        "service-addresses",
        &["198.18.7.1/24", "8.8.8.0/24", "10.0.0.0/8"],
    ),
    ("Site", "revoked-certificates", &["ab:cd, xyz"]),
    ("Site", "server-certificate-validity", &["2s", "1y"]),
    ("Site", "rotate-issuers-before", &["yesterday"]),
    ("Site", "issuer-overlap", &["30"]),
    ("Listener", "alpn", &["h2,,http/1.1"]),
    ("Listener", "client-certificate", &["maybe"]),
    ("Listener", "acceleration", &["on"]),
    (
        "Listener",
        "ports",
        &["", "http", "0", "1-65536", "9-8", "1-65535"],
    ),
    (
        "Listener",
        "host-prefix",
        &["10.20.0.1/16", "10.20.0.0", "0.0.0.0/0"],
    ),
    ("Listener", "network-namespace", &["netns/blue"]),
    ("Listener", "allow-users", &[",", "-1"]),
    ("MultiKeyListener", "client-certificate", &["maybe"]),
    ("MultiKeyListener", "network-namespace", &["pid:17"]),
    ("Connector", "proxy-protocol", &["v3"]),
    ("Connector", "tls-server-name", &["*.example.com"]),
    ("Connector", "health-check", &["icmp"]),
    ("Connector", "health-check-path", &["health", "/a b"]),
    ("Connector", "health-check-interval", &["5", "99ms"]),
    ("Connector", "health-check-failures", &["0"]),
    ("Connector", "acceleration", &["on"]),
    ("Connector", "allow-sites", &[" ", "west, no such/site"]),
    ("AttachedConnector", "health-check", &["icmp"]),
    ("AttachedConnectorBinding", "health-check", &["icmp"]),
    ("Link", "proxy-configuration", &["My_Proxy"]),
];

#[test]
fn settings() {
    let spec = |kind: &str| match kind {
        "Listener" => "routingKey: a\nhost: h\nport: 1\n",
        "MultiKeyListener" => "strategy: {priority: {routingKeys: [a]}}\nhost: h\nport: 1\n",
        "Connector" => "routingKey: a\nhost: h\nport: 1\n",
        "AttachedConnector" => "siteNamespace: west\nselector: uid=0\n",
        "AttachedConnectorBinding" => "connectorNamespace: west\nroutingKey: a\n",
        "Link" => "endpoints: [{name: edge, host: h, port: '1'}]\ntlsCredentials: a\n",
        _ => "",
    };
    let case = |(kind, key, values): &(&'static str, &'static str, &'static [&str])| {
        let (kind, key) = (*kind, *key);
        values.iter().map(move |value| {
            let settings = format!("settings:\n  unknown: kept\n  {key}: '{value}'");
            let document = skupper(kind, &format!("{}{settings}", spec(kind)));
            (key, document)
        })
    };
    let cases: Vec<(&str, String)> = SETTINGS.iter().flat_map(case).collect();
    insta::assert_snapshot!(error_texts(&cases));
    for setting in TABLE.iter().filter(|setting| setting.refuses_invalid()) {
        let syntax = setting.value_syntax();
        let covered = SETTINGS.iter().any(|(kind, key, _)| {
            let mut settings = settings_of(Kind::parse(kind).unwrap());
            settings.any(|covered| covered.key == *key && covered.value_syntax() == syntax)
        });
        assert!(covered, "no invalid value here is for {syntax}");
    }
}

#[test]
fn links() {
    let said = cases! { "Link":
        "no_spec" => "",
        "no_endpoints" => "tlsCredentials: c\ncost: 1",
        "endpoints_empty" => "endpoints: []\ntlsCredentials: c",
        "endpoints_is_map" => "endpoints:\n  name: edge\n  host: h\n  port: '1'\ntlsCredentials: c",
        "role_unknown" => "tlsCredentials: c\nendpoints:\n- name: inter-router\n  host: h\n  port: '1'\n- name: interrouter\n  host: h\n  port: '1'",
        "role_missing" => "tlsCredentials: c\nendpoints:\n- host: h\n  port: '1'",
        "host_missing" => "tlsCredentials: c\nendpoints:\n- name: edge\n  port: '1'",
        "host_bad" => "tlsCredentials: c\nendpoints:\n- name: edge\n  host: east.Example\n  port: '1'",
        "port_missing" => "tlsCredentials: c\nendpoints:\n- name: edge\n  host: h",
        "port_zero" => "tlsCredentials: c\nendpoints:\n- name: edge\n  host: h\n  port: '0'",
        "port_too_large" => "tlsCredentials: c\nendpoints:\n- name: edge\n  host: h\n  port: '65536'",
        "port_word" => "tlsCredentials: c\nendpoints:\n- name: edge\n  host: h\n  port: amqps",
        "port_list" => "tlsCredentials: c\nendpoints:\n- name: edge\n  host: h\n  port: [1]",
        "no_credentials" => "endpoints:\n- name: edge\n  host: h\n  port: '1'",
        "credentials_bad" => "tlsCredentials: a/b\nendpoints:\n- name: edge\n  host: h\n  port: '1'",
        "cost_word" => "cost: low\ntlsCredentials: c\nendpoints:\n- name: edge\n  host: h\n  port: '1'",
        "cost_too_large" => "cost: 2147483648\ntlsCredentials: c\nendpoints:\n- name: edge\n  host: h\n  port: '1'",
        "unknown_field_in_endpoint" => "tlsCredentials: c\nendpoints:\n- name: edge\n  host: h\n  prt: '1'",
    };
    insta::assert_snapshot!(said);
}

#[test]
fn listeners() {
    let said = cases! { "Listener":
        "no_spec" => "",
        "no_routing_key" => "host: h\nport: 1",
        "routing_key_bad" => "routingKey: a b\nhost: h\nport: 1",
        "routing_key_is_number" => "routingKey: 1\nhost: h\nport: 1",
        "no_host" => "routingKey: a\nport: 1",
        "host_upper_case" => "routingKey: a\nhost: Host\nport: 1",
        "host_underscore" => "routingKey: a\nhost: a_b\nport: 1",
        "host_double_hyphen" => "routingKey: a\nhost: a--b\nport: 1",
        "host_short_address" => "routingKey: a\nhost: 10.0.1\nport: 1",
        "host_with_port" => "routingKey: a\nhost: 10.0.0.1:80\nport: 1",
        "host_in_brackets" => "routingKey: a\nhost: '[::1]'\nport: 1",
        "no_port" => "routingKey: a\nhost: h",
        "port_zero" => "routingKey: a\nhost: h\nport: 0",
        "port_negative" => "routingKey: a\nhost: h\nport: -1",
        "port_65536" => "routingKey: a\nhost: h\nport: 65536",
        "port_huge" => "routingKey: a\nhost: h\nport: 99999999999999999999",
        "port_text" => "routingKey: a\nhost: h\nport: '8080'",
        "port_word" => "routingKey: a\nhost: h\nport: abc",
        "port_fraction" => "routingKey: a\nhost: h\nport: 80.5",
        "port_null" => "routingKey: a\nhost: h\nport:",
        "type_udp" => "routingKey: a\nhost: h\nport: 1\ntype: udp",
        "observer_unknown" => "routingKey: a\nhost: h\nport: 1\nobserver: http3",
        "credentials_bad" => "routingKey: a\nhost: h\nport: 1\ntlsCredentials: ../keys",
        "field_of_a_connector" => "routingKey: a\nhost: h\nport: 1\nuseClientCert: true",
    };
    insta::assert_snapshot!(said);
}

#[test]
fn connectors() {
    let said = cases! { "Connector":
        "no_spec" => "",
        "no_host" => "routingKey: a\nport: 1",
        "selector" => "routingKey: a\nport: 1\nselector: app=a",
        "host_and_selector" => "routingKey: a\nport: 1\nhost: h\nselector: uid=1",
        "host_bad" => "routingKey: a\nhost: 'local host'\nport: 1",
        "port_zero" => "routingKey: a\nhost: h\nport: 0",
        "port_65536" => "routingKey: a\nhost: h\nport: 65536",
        "type_sctp" => "routingKey: a\nhost: h\nport: 1\ntype: sctp",
        "bool_is_text" => "routingKey: a\nhost: h\nport: 1\nverifyHostname: \"no\"",
        "unknown_field" => "routingKey: a\nhost: h\nport: 1\nobserver: none",
    };
    insta::assert_snapshot!(said);
}

#[test]
fn router_accesses() {
    let said = cases! { "RouterAccess":
        "no_spec" => "",
        "no_roles" => "bindHost: 127.0.0.1",
        "roles_empty" => "roles: []",
        "roles_are_texts" => "roles:\n- edge",
        "role_unknown" => "roles:\n- name: edge\n- name: foo\n  port: 7000",
        "role_normal" => "roles:\n- name: normal",
        "role_without_name" => "roles:\n- port: 7000",
        "role_twice" => "roles:\n- name: edge\n- name: edge\n  port: 7000",
        "port_zero" => "roles:\n- name: edge\n  port: 0",
        "port_65536" => "roles:\n- name: edge\n- name: inter-router\n  port: 65536",
        "port_twice" => "roles:\n- name: edge\n  port: 7000\n- name: inter-router\n  port: 7000",
        "port_text" => "roles:\n- name: edge\n  port: '7000'",
        "bind_host_bad" => "bindHost: 127.0.0.1/8\nroles:\n- name: edge",
        "alternative_name_bad" => "subjectAlternativeNames:\n- a.example\n- '*.example'\nroles:\n- name: edge",
        "alternative_names_is_text" => "subjectAlternativeNames: a.example\nroles:\n- name: edge",
        "credentials_bad" => "tlsCredentials: Mine\nroles:\n- name: edge",
        "issuer_bad" => "issuer: my ca\nroles:\n- name: edge",
        "unknown_field" => "bindhost: 127.0.0.1\nroles:\n- name: edge",
    };
    insta::assert_snapshot!(said);
}

/// Text that must not be in any message.
const HUSH: &str = "c2VjcmV0";

#[test]
fn secrets() {
    let head = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: keys\n";
    let case = |name: &'static str, rest: &str| (name, format!("{head}{rest}"));
    let pem = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t";
    let cases = [
        case("tls_without_anything", "type: kubernetes.io/tls\n"),
        case(
            "tls_without_key",
            &format!("type: kubernetes.io/tls\ndata:\n  tls.crt: {pem}\n"),
        ),
        case(
            "not_base64",
            &format!("data:\n  ca.crt: {pem}\n  tls.key: '{HUSH}!'\n"),
        ),
        case("not_pem", &format!("data:\n  tls.key: {HUSH}\n")),
        case(
            "plain_not_pem",
            &format!("stringData:\n  tls.key: {HUSH}\n"),
        ),
        case("key_is_list", &format!("data:\n  tls.key:\n  - {HUSH}\n")),
        case("key_is_number", "data:\n  tls.key: 20260101\n"),
        case("data_is_text", &format!("data: {HUSH}\n")),
        case(
            "data_twice",
            &format!("data:\n  tls.key: {HUSH}\n  tls.key: {HUSH}\n"),
        ),
        case("unknown_field", &format!("dta:\n  tls.key: {HUSH}\n")),
        case("has_spec", "spec: {}\n"),
        case("bad_syntax", &format!("data:\n  tls.key: \"{HUSH}\n")),
        (
            "version_of_skupper",
            head.replace("v1", "skupper.io/v2alpha1"),
        ),
        ("name_bad", head.replace("keys", "My Keys")),
    ];
    let said = error_texts(&cases);
    assert!(!said.contains(HUSH) && !said.contains("20260101"), "{said}");
    insta::assert_snapshot!(said);
}

#[test]
fn grants_and_tokens() {
    let pem = "\"-----BEGIN CERTIFICATE-----\"";
    let token = |spec: &str| ("token", skupper("AccessToken", spec));
    let grant = |spec: &str| ("grant", skupper("AccessGrant", spec));
    let cases = [
        grant("redemptionsAllowed: -1"),
        grant("redemptionsAllowed: 4294967296"),
        grant("redemptionsAllowed: many"),
        grant("expirationWindow: 15"),
        grant("expirationWindow: 15 minutes"),
        grant("expirationWindow: 0s"),
        grant("issuer: No/Name"),
        grant("code: [a]"),
        grant("kode: a"),
        grant(&format!("code: {}", "c".repeat(1025))),
        token("{}"),
        token("{url: 'http://a.example', code: c, ca: x}"),
        token("{url: 'https://a.example', code: c}"),
        token("{url: 'https://a.example', code: c, ca: x}"),
        token(&format!("{{url: 'https://a.example', ca: {pem}}}")),
        token(&format!(
            "{{url: 'https://a.example', code: c, ca: {pem}, linkCost: 2147483648}}"
        )),
        token(&format!(
            "{{url: 'https://a.example', code: c, ca: {pem}, cost: 1}}"
        )),
        (
            "token",
            "apiVersion: skupper.io/v2alpha1\nkind: AccessToken\nmetadata: {name: a}\n".to_owned(),
        ),
    ];
    insta::assert_snapshot!(error_texts(&cases));
}

#[test]
fn certificates() {
    let cases = [
        "{ca: x}",
        "{client: true}",
        "{ca: x, client: true, hosts: [Not A Host]}",
        "{ca: x, server: true, subject: 7}",
        "{ca: X, server: true}",
        "{signing: true}",
    ];
    let long = format!("{{ca: x, server: true, subject: {}}}", "a".repeat(65));
    let cases = cases.into_iter().chain([long.as_str()]);
    let cases: Vec<_> = cases
        .map(|spec| ("Certificate", skupper("Certificate", spec)))
        .collect();
    insta::assert_snapshot!(error_texts(&cases));
}

#[test]
fn multi_key_listeners() {
    let strategies = [
        "{}",
        "{priority: {routingKeys: [a]}, weighted: {routingKeys: {a: 1}}}",
        "{priority: {routingKeys: []}}",
        "{priority: {}}",
        "{priority: {routingKeys: ['']}}",
        "{priority: {routingKeys: [a, b, a]}}",
        "{priority: {routingKeys: [_A]}}",
        "{priority: {routingKeys: {a: 1}}}",
        "{weighted: {routingKeys: {}}}",
        "{weighted: {routingKeys: {a: 0}}}",
        "{weighted: {routingKeys: {a: -1}}}",
        "{weighted: {routingKeys: {_A: 1}}}",
        "{weighted: {routingKeys: [a]}}",
        "{random: {}}",
    ];
    let many: Vec<String> = (0..257).map(|n| format!("k{n}")).collect();
    let many = format!("{{priority: {{routingKeys: [{}]}}}}", many.join(", "));
    let strategies = strategies.into_iter().chain([many.as_str()]);
    let mut specs: Vec<String> = strategies
        .map(|strategy| format!("host: h\nport: 1\nstrategy: {strategy}"))
        .collect();
    let good = "strategy: {priority: {routingKeys: [a]}}";
    specs.push("host: h\nport: 1".to_owned());
    specs.push(format!("port: 1\n{good}"));
    specs.push(format!("host: h\nport: 0\n{good}"));
    specs.push(format!("host: h\nport: 1\nrequireClientCert: 1\n{good}"));
    specs.push(format!("host: h\nport: 1\nobserver: http3\n{good}"));
    specs.push(format!("host: h\nport: 1\nroutingKey: a\n{good}"));
    let cases: Vec<_> = specs
        .iter()
        .map(|spec| ("MultiKeyListener", skupper("MultiKeyListener", spec)))
        .collect();
    insta::assert_snapshot!(error_texts(&cases));
}

#[test]
fn unix_socket_hosts() {
    let hosts = ["unix:", "unix:relative", "unix:/dir/", "unix:@abstract"];
    let mut specs: Vec<String> = hosts
        .map(|host| format!("routingKey: a\nhost: \"{host}\""))
        .to_vec();
    specs.push(format!("routingKey: a\nhost: unix:/{}", "p".repeat(107)));
    specs.push("routingKey: a\nhost: unix:/run/s\nport: 70000".to_owned());
    specs.push("routingKey: a\nhost: localhost".to_owned());
    let mut cases: Vec<_> = specs
        .iter()
        .map(|spec| ("Connector", skupper("Connector", spec)))
        .collect();
    let listener = skupper("Listener", "routingKey: a\nhost: unix:/run/s\nport: 1");
    cases.push(("Listener", listener));
    insta::assert_snapshot!(error_texts(&cases));
}

#[test]
fn kinds_that_are_not_served_yet() {
    let kind = "SecuredAccess";
    let bad = skupper(kind, "issuer: i").replace("backend", "Back");
    let cases = [
        (kind, skupper(kind, "ports: [{name: a, port: 1}]")),
        (kind, bad),
    ];
    insta::assert_snapshot!(error_texts(&cases));
}

#[test]
fn attached_connectors() {
    let connector = "AttachedConnector";
    let binding = "AttachedConnectorBinding";
    let cases: Vec<(&str, String)> = [
        (connector, ""),
        (connector, "siteNamespace: s\nport: 1"),
        (connector, "selector: uid=1\nport: 1"),
        (connector, "siteNamespace: s\nselector: app=a\nport: 1"),
        (connector, "siteNamespace: S\nselector: uid=1\nport: 1"),
        (connector, "siteNamespace: east\nselector: uid=1\nport: 1"),
        (connector, "siteNamespace: s\nselector: uid=1\nport: 70000"),
        (
            connector,
            "siteNamespace: s\nselector: uid=1\nport: 1\ntype: udp",
        ),
        (
            connector,
            "siteNamespace: s\nselector: uid=1\nport: 1\nverifyHostname: true",
        ),
        (
            connector,
            "siteNamespace: s\nselector: uid=1\nport: 1\ntype: tcp",
        ),
        (binding, ""),
        (binding, "routingKey: a"),
        (binding, "connectorNamespace: c"),
        (binding, "connectorNamespace: east\nroutingKey: a"),
        (binding, "connectorNamespace: c\nroutingKey: _A"),
        (binding, "connectorNamespace: c\nroutingKey: a"),
    ]
    .map(|(kind, spec)| (kind, skupper(kind, spec)))
    .into();
    insta::assert_snapshot!(error_texts(&cases));
}

#[test]
fn json() {
    let text = |name: &'static str, text: &str| (name, text.to_owned());
    let cases = [
        text(
            "port_on_line_four",
            "{\"apiVersion\": \"skupper.io/v2alpha1\", \"kind\": \"Listener\",\n \"metadata\": {\"name\": \"a\"},\n \"spec\": {\"routingKey\": \"a\",\n  \"port\": 70000, \"host\": \"h\"}}\n",
        ),
        text(
            "unknown_field",
            "{\"apiVersion\": \"skupper.io/v2alpha1\", \"kind\": \"Site\",\n \"metadata\": {\"name\": \"a\"},\n \"spec\": {\n  \"edge\": false,\n  \"egde\": false}}\n",
        ),
        text(
            "cut_off",
            "{\"apiVersion\": \"skupper.io/v2alpha1\", \"kind\": \"Site\",\n \"metadata\": {\n",
        ),
        text("array", "[{\"kind\": \"Site\"}]\n"),
        text(
            "good_then_bad",
            "{\"apiVersion\": \"skupper.io/v2alpha1\", \"kind\": \"Site\", \"metadata\": {\"name\": \"a\"}}\n{\"apiVersion\": \"skupper.io/v2alpha1\", \"kind\": \"Site\",\n  \"metadata\": {\"name\": \"B\"}}\n",
        ),
        text(
            "comma_missing",
            "{\"apiVersion\": \"skupper.io/v2alpha1\"\n \"kind\": \"Site\"}\n",
        ),
    ];
    insta::assert_snapshot!(error_texts(&cases));
}

#[test]
fn between_resources() {
    let doc = |kind: &str, name: &str, spec: &str| {
        format!("---\n{}", skupper(kind, spec).replace("backend", name))
    };
    let listener = |name: &str, host: &str, port: u16| {
        doc(
            "Listener",
            name,
            &format!("routingKey: a\nhost: '{host}'\nport: {port}"),
        )
    };
    let text = [
        doc("Site", "first", ""),
        doc("Site", "second", ""),
        listener("one", "127.0.0.1", 80),
        listener("one", "127.0.0.1", 81),
        listener("same", "127.0.0.1", 80),
        listener("all4", "0.0.0.0", 80),
        listener("all6", "::", 80),
        listener("mapped", "::ffff:127.0.0.1", 80),
        listener("six", "::1", 80),
        listener("local", "localhost", 80),
        listener("other", "127.0.0.2", 80),
        listener("named", "db.example", 80),
        listener("named-again", "db.example", 80),
        listener("all4-free", "0.0.0.0", 82),
        listener("name-under-all", "web.example", 82),
        doc(
            "RouterAccess",
            "access",
            "roles:\n- name: edge\n  port: 9000\n- name: inter-router\n  port: 82",
        ),
        doc(
            "RouterAccess",
            "free",
            "bindHost: 127.0.0.1\nroles:\n- name: inter-router\n  port: 9001",
        ),
        doc(
            "RouterAccess",
            "taken",
            "roles:\n- name: edge\n- name: inter-router\n  port: 9001",
        ),
        // No Secret of that name is no conflict.
        doc(
            "Link",
            "lonely",
            "tlsCredentials: c\nendpoints:\n- name: edge\n  host: h\n  port: '1'",
        ),
        doc("Connector", "one", "routingKey: a\nhost: h\nport: 80"),
    ]
    .concat();
    let good = results(text.as_bytes())
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let (good, errors) = validate_set(good);
    let mut said = String::new();
    for located in good {
        writeln!(said, "{}: {}", located.position(), located.key()).unwrap();
    }
    for error in errors {
        writeln!(said, "{error}").unwrap();
    }
    insta::assert_snapshot!(said);
}

#[test]
fn edge_site_takes_no_links() {
    let site = skupper("Site", "edge: true").replace("backend", "small");
    let access = skupper("RouterAccess", "roles:\n- name: edge");
    let text = format!("{access}---\n{site}");
    let good = results(text.as_bytes())
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let (good, errors) = validate_set(good);
    assert_eq!(good.len(), 1);
    insta::assert_snapshot!(errors[0].to_string());
}

#[test]
fn bytes_and_sizes() {
    let mut said = String::new();
    let mut say = |case: &str, bytes: &[u8]| {
        for result in results(bytes) {
            let line = match result {
                Ok(located) => format!("accepted: {}", located.key()),
                Err(error) => error.to_string(),
            };
            writeln!(said, "{case}\n    {line}").unwrap();
        }
    };
    say("not_utf8", b"kind: Site\nmetadata:\n  name: \xff\n---\napiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata: {name: a}\n");
    say("utf16", b"\xff\xfek\0i\0n\0d\0");
    say("nul", b"kind: \0\n");
    say("document_too_large", &vec![b'a'; 1_600_000]);
    say("file_too_large", &vec![b'\n'; 9_000_000]);
    let deep = |n: usize| format!("kind: Site\nspec: {}{}\n", "[".repeat(n), "]".repeat(n));
    say("deep", deep(200).as_bytes());
    say("deeper", deep(500_000).as_bytes());
    say("deep_block", "- ".repeat(100_000).as_bytes());
    let mut bomb = "kind: Site\na: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (from, to) in ('a'..='h').zip('b'..='i') {
        let list = vec![format!("*{from}"); 9].join(",");
        writeln!(bomb, "{to}: &{to} [{list}]").unwrap();
    }
    say("alias_bomb", bomb.as_bytes());
    say("alias_of_itself", b"kind: Site\nspec: &a\n  b: *a\n");
    insta::assert_snapshot!(said);
}
