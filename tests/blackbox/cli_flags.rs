//! Flags of the command and settings: each sets its field, and invalid values are reported.

use super::cli::Files;
use serde_json::Value;
use skupper_tests::{SOON, free_addr, free_port, site::Site, wait_until};
use skupperd::{
    manifest::settings::{Setting, settings_of},
    model::Kind,
};
use std::fs;

/// The arguments that create a resource of each kind that has such a command, with the kind.
const NEW: &[(&str, &[&str])] = &[
    ("Site", &["site", "generate", "x"]),
    ("Listener", &["listener", "generate", "x", "80"]),
    (
        "MultiKeyListener",
        &[
            "multikeylistener",
            "generate",
            "y",
            "81",
            "--priority",
            "a,b",
        ],
    ),
    ("Connector", &["connector", "generate", "x", "80"]),
    ("RouterAccess", &["router-access", "generate", "x"]),
    ("AccessGrant", &["access-grant", "generate", "x"]),
    (
        "Certificate",
        &[
            "certificate",
            "generate",
            "x",
            "--server",
            "--host",
            "x.example",
        ],
    ),
    (
        "AttachedConnector",
        &[
            "attached-connector",
            "generate",
            "x",
            "80",
            "--site-namespace",
            "other",
            "--workload",
            "unit/nginx.service",
        ],
    ),
    (
        "AttachedConnectorBinding",
        &[
            "attached-connector-binding",
            "generate",
            "x",
            "--connector-namespace",
            "other",
        ],
    ),
];

#[test]
fn generated_resources_apply_and_nothing_is_written() {
    let files = Files::new();
    let mut all = String::new();
    for (kind, words) in NEW {
        let yaml = files.ok(words);
        assert!(yaml.contains(&format!("kind: {kind}\n")), "{yaml}");
        let value = files.json(words);
        assert_eq!(value["kind"], *kind);
        all.push_str(&format!("---\n{yaml}"));
    }
    assert!(files.input().is_empty(), "{:?}", files.input());
    let file = files.0.path().join("all.yaml");
    fs::write(&file, all).expect("a file");
    files.ok(&["system", "apply", "-f", file.to_str().expect("a path")]);
    assert_eq!(files.input().len(), NEW.len());
    // The commands of the resource's noun show it too.
    for (kind, words) in NEW {
        let (noun, name) = (words[0], words[2]);
        assert_eq!(files.json(&[noun, "status", name])["kind"], *kind);
        assert!(files.ok(&[noun, "status"]).contains(name));
        assert!(files.ok(&[noun, "status", name]).starts_with("Name: "));
        files.ok(&[noun, "delete", name]);
        files.fails(2, &[noun, "status", name]);
    }
    assert!(files.input().is_empty(), "{:?}", files.input());
}

#[test]
fn create_refuses_what_exists_and_force_replaces_it() {
    let files = Files::new();
    for (_, words) in NEW {
        let (noun, name) = (words[0], words[2]);
        let create = [&[noun, "create"], &words[2..]].concat();
        files.ok(&create);
        let before = files.json(&[noun, "status", name]);
        let text = files.fails(1, &create);
        let expected = format!(
            "{noun} {name:?} exists already in namespace default\n\
             Change it with: skupper {noun} update {name}; to replace it, use --force\n"
        );
        assert_eq!(text, expected);
        assert_eq!(files.json(&[noun, "status", name]), before);
        files.ok(&[&create[..], &["--force"]].concat());
    }
    // Errors of a document that a command makes name no line of it.
    let text = files.fails(1, &["listener", "create", "c", "80"]);
    assert!(
        text.starts_with("Listener c: spec.port: port 80 is already mapped"),
        "{text}"
    );
    // What was invalid is replaced without being asked for.
    let broken = "apiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata: {name: b}\nspec: {}\n";
    let input = files.0.path().join("namespaces/default/input/resources");
    fs::write(input.join("Listener-b.yaml"), broken).expect("a file");
    files.ok(&["listener", "create", "b", "90"]);
    // A token that may not have been used yet.
    let token = files.0.path().join("token.yaml");
    fs::write(&token, "a token").expect("a file");
    let issue = ["token", "issue", token.to_str().expect("a path")];
    let text = files.fails(1, &issue);
    assert!(text.contains("token.yaml exists already\n"), "{text}");
    assert_eq!(fs::read_to_string(&token).expect("the file"), "a token");
}

/// A resource, its flags, the field that they set, and its value.
const FLAGS: &str = r#"
site s | --enable-link-access | /spec/linkAccess | "default"
site s | --enable-link-access=false | /spec/linkAccess | "none"
site s | --host a.example | /spec/settings/link-access-hosts | "a.example"
site s | --edge | /spec/edge | true
listener l 80 | --host ::1 | /spec/host | "::1"
listener l 80 | --routing-key k | /spec/routingKey | "k"
listener l 80 | -r k | /spec/routingKey | "k"
listener l 80 | --tls-credentials t | /spec/tlsCredentials | "t"
listener l 80 | --type tcp | /spec/type | "tcp"
listener l 80 | --observer http2 | /spec/observer | "http2"
listener l 80 | --setting alpn=h2 | /spec/settings/alpn | "h2"
connector c 80 | --host h | /spec/host | "h"
connector c 80 | --host unix:/s | /spec/host | "unix:/s"
connector c 80 | --routing-key k | /spec/routingKey | "k"
connector c 80 | --tls-credentials t | /spec/tlsCredentials | "t"
connector c 80 | --type tcp | /spec/type | "tcp"
connector c 80 | --selector exe=/x | /spec/selector | "exe=/x"
connector c 80 | --workload uid/7 | /spec/selector | "uid=7"
connector c 80 | --use-client-cert | /spec/useClientCert | true
connector c 80 | --verify-hostname | /spec/verifyHostname | true
connector c 80 | --include-not-ready | /spec/includeNotReadyPods | true
connector c 80 | --setting a=b | /spec/settings/a | "b"
multikeylistener m 80 | --priority a,b | /spec/strategy/priority/routingKeys | ["a","b"]
multikeylistener m 80 | --priority a --host ::1 | /spec/host | "::1"
multikeylistener m 80 | --priority a --require-client-cert | /spec/requireClientCert | true
multikeylistener m 80 | --priority a --observer none | /spec/observer | "none"
multikeylistener m 80 | --priority a --tls-credentials t | /spec/tlsCredentials | "t"
multikeylistener m 80 | --priority a --setting a=b | /spec/settings/a | "b"
multikeylistener w 80 | --weighted a=3,b | /spec/strategy/weighted/routingKeys | {"a":3,"b":1}
router-access r | --role edge=7000,inter-router | /spec/roles | [{"name":"edge","port":7000},{"name":"inter-router"}]
router-access r | --bind-host 10.0.0.1 | /spec/bindHost | "10.0.0.1"
router-access r | --host a --host b | /spec/subjectAlternativeNames | ["a","b"]
router-access r | --issuer i | /spec/issuer | "i"
router-access r | --tls-credentials t | /spec/tlsCredentials | "t"
router-access r | --setting a=b | /spec/settings/a | "b"
access-grant g | --redemptions-allowed 3 | /spec/redemptionsAllowed | 3
access-grant g | --expiration-window 90m | /spec/expirationWindow | "5400s"
access-grant g | --issuer i | /spec/issuer | "i"
access-grant g | --setting a=b | /spec/settings/a | "b"
certificate t | --ca i --server | /spec/ca | "i"
certificate t | --subject n --server | /spec/subject | "n"
certificate t | --host a --server | /spec/hosts | ["a"]
certificate t | --client | /spec/client | true
certificate t | --server | /spec/server | true
certificate t | --signing | /spec/signing | true
attached-connector a 80 | --site-namespace o --selector exe=/x | /spec/siteNamespace | "o"
attached-connector a 0 | --site-namespace o --selector exe=/x | /spec/selector | "exe=/x"
attached-connector a 80 | --site-namespace o --workload unit/n.service | /spec/selector | "unit=n.service"
attached-connector a 80 | --site-namespace o --workload uid/7 --tls-credentials t | /spec/tlsCredentials | "t"
attached-connector a 80 | --site-namespace o --workload uid/7 --use-client-cert | /spec/useClientCert | true
attached-connector a 80 | --site-namespace o --workload uid/7 --include-not-ready | /spec/includeNotReadyPods | true
attached-connector a 80 | --site-namespace o --workload uid/7 --type tcp | /spec/type | "tcp"
attached-connector a 80 | --site-namespace o --workload uid/7 --setting a=b | /spec/settings/a | "b"
attached-connector-binding b | --connector-namespace o | /spec/connectorNamespace | "o"
attached-connector-binding b | --connector-namespace o -r k | /spec/routingKey | "k"
attached-connector-binding b | --connector-namespace o --setting a=b | /spec/settings/a | "b"
"#;

#[test]
fn every_flag_sets_its_field_on_create_and_update() {
    for line in FLAGS.trim().lines() {
        let cells: Vec<&str> = line.split(" | ").collect();
        let [resource, flags, field, expected] = cells[..] else {
            panic!("{line}: four cells make a line");
        };
        let expected: Value = serde_json::from_str(expected).expect("JSON");
        let resource: Vec<&str> = resource.split(' ').collect();
        let flags: Vec<&str> = flags.split(' ').collect();
        let (noun, rest) = (resource[0], &resource[1..]);
        let words = [&[noun, "generate"], rest, &flags].concat();
        let files = Files::new();
        let made = files.json(&words);
        assert_eq!(made.pointer(field), Some(&expected), "{words:?}: {made}");
        // A minimal existing resource.
        let mut create = [&[noun, "create"], rest].concat();
        match noun {
            "multikeylistener" if flags.contains(&"--weighted") => {
                create.extend(["--weighted", "z=9"]);
            }
            "multikeylistener" => create.extend(["--priority", "z"]),
            "attached-connector" => {
                create.extend(["--site-namespace", "z", "--selector", "uid=1"]);
            }
            "attached-connector-binding" => create.extend(["--connector-namespace", "z"]),
            "certificate" => create.push("--server"),
            _ => {}
        }
        files.ok(&create);
        let update = [&[noun, "update", rest[0]], &flags[..]].concat();
        files.ok(&update);
        let changed = files.json(&[noun, "status", rest[0]]);
        assert_eq!(
            changed.pointer(field),
            Some(&expected),
            "{update:?}: {changed}"
        );
    }
    let files = Files::new();
    for noun in ["listener", "connector"] {
        files.ok(&[noun, "create", "p", "80"]);
        files.ok(&[noun, "update", "p", "--port", "81"]);
        assert_eq!(files.json(&[noun, "status", "p"])["spec"]["port"], 81);
    }
}

#[test]
fn invalid_flag_values_are_reported() {
    let files = Files::new();
    for (words, part) in [
        (
            &["router-access", "create", "r", "--role", "normal"][..],
            "role is not valid",
        ),
        (
            &["router-access", "create", "r", "--role", "edge=0"],
            "0 is not a port",
        ),
        (
            &["link", "generate", "--cost", "2147483648"],
            "2147483648 is not in 1..=2147483647",
        ),
        (
            &["token", "issue", "/nowhere/t", "--cost", "0"],
            "0 is not in 1..=2147483647",
        ),
        (
            &["router-access", "create", "r", "--host", "A b"],
            "host is not valid",
        ),
        (
            &["access-grant", "create", "g", "--expiration-window", "x"],
            "expected a duration",
        ),
        (
            &["certificate", "create", "t", "--ca", "A", "--server"],
            "issuer is not valid",
        ),
        (
            &["attached-connector", "create", "a", "80"],
            "--site-namespace is required",
        ),
        (
            &["attached-connector-binding", "create", "b"],
            "--connector-namespace is required",
        ),
        (
            &[
                "connector",
                "create",
                "c",
                "80",
                "--host",
                "h",
                "--selector",
                "uid=1",
            ],
            "exclude each other",
        ),
        (
            &[
                "connector",
                "create",
                "c",
                "80",
                "--selector",
                "uid=1",
                "--workload",
                "uid/1",
            ],
            "cannot be used with",
        ),
        (
            &["multikeylistener", "create", "m", "80"],
            "--priority or --weighted is required",
        ),
    ] {
        let said = files.fails(2, words);
        assert!(said.contains(part), "{words:?}: {said}");
    }
    assert!(files.input().is_empty());
}

#[test]
fn kubernetes_only_input_is_kept_or_refused_with_a_reason() {
    let files = Files::new();
    // SecuredAccess is stored and has no effect.
    let file = files.0.path().join("access.yaml");
    let text = "apiVersion: skupper.io/v2alpha1\nkind: SecuredAccess\nmetadata: {name: s}\nspec:\n  \
                selector: {app: x}\n  ports: [{name: a, port: 1, targetPort: 2, protocol: TCP}]\n  \
                issuer: i\n  certificate: c\n  accessType: route\n  settings: {a: b}\n";
    fs::write(&file, text).expect("a file");
    files.ok(&["system", "apply", "-f", file.to_str().expect("a path")]);
    assert_eq!(files.input(), ["SecuredAccess-s.yaml"]);
    // Bundles for containers and commands for clusters are refused.
    for platform in ["podman", "docker", "kubernetes"] {
        let said = files.fails(1, &["-p", platform, "system", "generate-bundle", "b"]);
        assert!(
            said.contains(&format!("platform {platform:?} not supported")),
            "{said}"
        );
    }
    // Flags that concern a cluster are unknown.
    for words in [
        &["--context", "x", "site", "status"][..],
        &["-c", "x", "site", "status"],
        &["--kubeconfig", "x", "site", "status"],
    ] {
        let said = files.fails(2, words);
        assert!(said.contains("unexpected argument"), "{said}");
    }
}

#[test]
fn missing_credentials_that_are_not_generated_are_an_error() {
    let mut a = Site::new("a");
    let addr = free_addr();
    let spec = |generate: bool| {
        format!(
            "{{roles: [{{name: inter-router, port: {}}}], bindHost: 127.0.0.1, \
             tlsCredentials: mine, generateTlsCredentials: {generate}}}",
            addr.port()
        )
    };
    a.resource("RouterAccess", "access", &spec(false));
    a.start();
    let said = a.wait_status("RouterAccess", "access", "Error");
    assert!(said.contains("generateTlsCredentials is false"), "{said}");
    a.resource("RouterAccess", "access", &spec(true));
    a.wait_status("RouterAccess", "access", "Ready");
}

#[test]
fn secured_access_is_kept_with_a_note() {
    let mut a = Site::new("a");
    a.resource("SecuredAccess", "s", "{selector: {}, ports: []}");
    a.start();
    let said = a.wait_status("SecuredAccess", "s", "Ready");
    assert!(said.contains("has no effect on a host"), "{said}");
    let check = a.skupper(&["debug", "check"]);
    assert!(!String::from_utf8_lossy(&check.stdout).contains("SecuredAccess s  failed"));
}

/// A value that no setting takes: too long for a protocol, and not of the letters of a name.
fn nonsense() -> String {
    "?".repeat(300)
}

#[test]
fn every_setting_reports_an_invalid_value() {
    let mut a = Site::new("a");
    a.access(free_addr());
    a.start();
    for kind in [
        Kind::Listener,
        Kind::MultiKeyListener,
        Kind::Connector,
        Kind::Site,
    ] {
        let settings = settings_of(kind).filter(|setting| setting.refuses_invalid());
        for key in settings.flat_map(Setting::keys) {
            let settings = format!("settings: {{{key}: \"{}\"}}", nonsense());
            let host = format!("host: 127.0.0.1, port: {}", free_port());
            let spec = match kind {
                Kind::Listener | Kind::Connector => {
                    format!("{{routingKey: k, {host}, {settings}}}")
                }
                Kind::MultiKeyListener => {
                    format!("{{strategy: {{priority: {{routingKeys: [k]}}}}, {host}, {settings}}}")
                }
                _ => format!("{{{settings}}}"),
            };
            a.resource(kind.as_str(), "a", &spec);
            wait_until(&format!("the word on {key} of {kind}"), SOON, || {
                let status = a.status(kind.as_str(), "a").unwrap_or_default();
                let message = status["status"]["message"].to_string();
                message.contains(&format!("spec.settings[{key}]"))
            });
        }
        if kind != Kind::Site {
            a.remove(kind.as_str(), "a");
        }
    }
}
