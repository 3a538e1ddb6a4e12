//! Documents that Skupper and its tools write are accepted unchanged.

#![expect(clippy::panic, reason = "tests fail by panicking")]

use proptest::prelude::*;
use skupperd::{
    manifest::{LocatedResource, document_of, parse, redact, to_yaml},
    model::{Kind, LinkAccess, ObserverMode, Role, Spec},
};
use std::path::Path;

fn all(text: &str) -> Vec<LocatedResource> {
    let parsed = parse(Path::new("f.yaml"), text.as_bytes(), None);
    parsed
        .into_iter()
        .map(|r| r.unwrap_or_else(|e| panic!("{e}\n{text}")))
        .collect()
}

fn one(text: &str) -> LocatedResource {
    let mut all = all(text);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

const SITE: &str = r#"apiVersion: skupper.io/v2alpha1
kind: Site
metadata:
  annotations:
    example.org/owner: team a
  creationTimestamp: null
  finalizers: []
  generation: 3
  labels:
    app.kubernetes.io/part-of: shop
  managedFields:
  - apiVersion: skupper.io/v2alpha1
    fieldsType: FieldsV1
    fieldsV1: {"f:spec": {".": {}, "f:linkAccess": {}}}
    manager: kubectl
    operation: Update
    time: "2026-02-03T04:05:06Z"
  name: west
  namespace: default
  ownerReferences: []
  resourceVersion: "12345"
  uid: 9f1a2b3c-0000-4000-8000-000000000001
spec:
  defaultIssuer: skupper-site-ca
  linkAccess: loadbalancer
  serviceAccount: skupper-router
  settings:
    routerLogging: error
status:
  conditions:
  - lastTransitionTime: "2026-02-03T04:05:06Z"
    message: OK
    observedGeneration: 3
    reason: Ready
    status: "True"
    type: Ready
  defaultIssuer: skupper-site-ca
  endpoints:
  - group: skupper-router
    host: 203.0.113.5
    name: inter-router
    port: "55671"
  message: OK
  network: []
  sitesInNetwork: 1
  status: Ready
"#;

#[test]
fn site_of_a_cluster() {
    let located = one(SITE);
    let meta = &located.resource.meta;
    assert_eq!(
        (meta.name.as_str(), meta.namespace.as_str()),
        ("west", "default")
    );
    assert_eq!(
        (meta.generation, meta.labels.len(), meta.annotations.len()),
        (3, 1, 1)
    );
    let Spec::Site(site) = &located.resource.spec else {
        panic!("{located:?}")
    };
    assert_eq!(site.uid.as_deref(), meta.uid.as_deref());
    assert_eq!(
        site.link_access,
        LinkAccess::Enabled("loadbalancer".to_owned())
    );
    assert!(!site.edge && !site.ha);
    assert_eq!(site.settings.texts()["routerLogging"], "error");
    assert_eq!(located.document["spec"]["serviceAccount"], "skupper-router");
}

#[test]
fn a_minimal_site_is_read() {
    for text in [
        "apiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata:\n  name: a\n",
        "apiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata: {name: a}\nspec: {}\nstatus: {}\n",
        "apiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata: {name: a}\nspec:\nstatus:\n",
        "apiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata: {name: a}\nspec: {linkAccess: none}",
    ] {
        let located = one(text);
        let Spec::Site(site) = &located.resource.spec else {
            panic!("{located:?}")
        };
        assert_eq!(*site, skupperd::model::Site::default(), "{text}");
    }
}

/// The form of the file that Skupper's `link generate` writes on system sites.
fn static_link() -> String {
    let pem = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==";
    format!(
        "---\napiVersion: v1\ndata:\n  ca.crt: {pem}\n  connect.json: e30=\n  tls.crt: {pem}\n  \
         tls.key: {pem}\nkind: Secret\nmetadata:\n  creationTimestamp: null\n  name: link-west\n\
         type: kubernetes.io/tls\n---\napiVersion: skupper.io/v2alpha1\nkind: Link\nmetadata:\n  \
         creationTimestamp: null\n  name: link-west\nspec:\n  cost: 1\n  endpoints:\n  - host: \
         west.example\n    name: inter-router\n    port: \"55671\"\n  - host: west.example\n    \
         name: edge\n    port: \"45671\"\n  tlsCredentials: link-west\nstatus: {{}}\n"
    )
}

#[test]
fn static_link_of_a_system_site() {
    let located = all(&static_link());
    let Spec::Secret(secret) = &located[0].resource.spec else {
        panic!("{located:?}")
    };
    assert_eq!(secret.key.as_str(), "-----BEGIN CERTIFICATE-----\n");
    let Spec::Link(link) = &located[1].resource.spec else {
        panic!("{located:?}")
    };
    assert_eq!((link.cost, link.tls_credentials.as_str()), (1, "link-west"));
    let endpoints: Vec<_> = link
        .endpoints
        .iter()
        .map(|e| (e.role, e.host.as_str(), e.port))
        .collect();
    let host = "west.example";
    assert_eq!(
        endpoints,
        [
            (Role::InterRouter, host, 55_671),
            (Role::Edge, host, 45_671)
        ]
    );
}

#[test]
fn private_keys_are_never_displayed() {
    let annotation = "\n  annotations:\n    kubectl.kubernetes.io/last-applied-configuration: \
                      'tls.key LS0tLS1C'";
    let text = static_link().replacen(
        "name: link-west",
        &format!("name: link-west{annotation}"),
        1,
    );
    let text = text.replace("connect.json: e30=", "password: c2VjcmV0");
    let located = all(&text).remove(0);
    let document = to_yaml(&*located.document).unwrap();
    for shown in [&document, &format!("{located:?}")] {
        assert!(!shown.contains("tls.key"), "{shown}");
        assert!(
            !shown.contains("password") && !shown.contains("c2VjcmV0"),
            "{shown}"
        );
        assert!(!shown.contains("-----BEGIN"), "{shown}");
    }
    assert!(document.contains("tls.crt") && document.contains("ca.crt"));
    let mut token: serde_json::Value =
        serde_json::json!({"spec": {"code": "x", "url": "u"}, "status": {"code": "x"}});
    redact(&mut token);
    assert_eq!(
        token,
        serde_json::json!({"spec": {"url": "u"}, "status": {}})
    );
}

#[test]
fn secrets_of_other_types() {
    let pem = "-----BEGIN X-----";
    let only_ca = one(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\ntype: Opaque\nstringData:\n  ca.crt: '{pem}'\n"
    ));
    let Spec::Secret(secret) = &only_ca.resource.spec else {
        panic!("{only_ca:?}")
    };
    assert!(secret.ca == pem && !secret.has_certificate());
    let wrapped = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata:\n  ca.crt: |\n    \
                   LS0tLS1CRUdJTiBY\n    LS0tLS0=\n  tls.key: ''\n  tls.crt: null\n";
    let Spec::Secret(secret) = &one(wrapped).resource.spec else {
        panic!()
    };
    assert_eq!(secret.ca, pem);
    // Plain text wins, as in Kubernetes.
    let both = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata:\n  ca.crt: LS0=\nstringData:\n  ca.crt: '-----BEGIN X-----'\n";
    let Spec::Secret(secret) = &one(both).resource.spec else {
        panic!()
    };
    assert_eq!(secret.ca, pem);
}

#[test]
fn services_of_upstreams_examples() {
    let text = "apiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata:\n  name: database\nspec:\n  \
                routingKey: database\n  port: 5432\n  host: database\n---\napiVersion: \
                skupper.io/v2alpha1\nkind: Connector\nmetadata:\n  name: database\nspec:\n  \
                routingKey: database\n  port: 5432\n  host: 127.0.0.1\n  type: tcp\n  selector: \
                \"\"\n  includeNotReadyPods: true\n  exposePodsByName: false\n  useClientCert: true\n  \
                verifyHostname: true\n  tlsCredentials: db-tls\n";
    let located = all(text);
    let Spec::Listener(listener) = &located[0].resource.spec else {
        panic!("{located:?}")
    };
    assert_eq!(listener.observer, ObserverMode::Auto);
    assert_eq!(listener.tls_credentials, None);
    let Spec::Connector(connector) = &located[1].resource.spec else {
        panic!("{located:?}")
    };
    assert!(connector.use_client_cert && connector.verify_hostname);
    assert_eq!(connector.tls_credentials.as_deref(), Some("db-tls"));
}

#[test]
fn defaults_of_link_and_router_access() {
    let access = "apiVersion: skupper.io/v2alpha1\nkind: RouterAccess\nmetadata:\n  name: own\nspec:\n  \
                  generateTlsCredentials: true\n  accessType: local\n  bindHost: ''\n  roles:\n  - \
                  name: inter-router\n  - name: edge\n";
    let Spec::RouterAccess(access) = &one(access).resource.spec else {
        panic!()
    };
    let roles: Vec<_> = access.roles.iter().map(|r| (r.role, r.port)).collect();
    assert_eq!(roles, [(Role::InterRouter, 55_671), (Role::Edge, 45_671)]);
    assert_eq!(
        (access.tls_credentials.as_str(), &access.bind_host),
        ("own", &None)
    );
    for (cost, expected) in [
        ("", 1),
        ("cost: 0, ", 1),
        ("cost: -5, ", 1),
        ("cost: 99999, ", 99_999),
    ] {
        let link = format!(
            "apiVersion: skupper.io/v2alpha1\nkind: Link\nmetadata: {{name: a}}\nspec: {{{cost}\
             tlsCredentials: c, endpoints: [{{name: edge, host: '::1', port: 45671}}]}}\n"
        );
        let Spec::Link(link) = &one(&link).resource.spec else {
            panic!()
        };
        assert_eq!(link.cost, expected);
    }
}

#[test]
fn anchors_and_block_scalars() {
    let text = "apiVersion: skupper.io/v2alpha1\nkind: Connector\nmetadata:\n  name: &n web\nspec:\n  \
                routingKey: *n\n  host: >-\n    localhost\n  port: 80\n";
    let Spec::Connector(connector) = &one(text).resource.spec else {
        panic!()
    };
    assert_eq!(
        (connector.routing_key.as_str(), &*connector.host.to_string()),
        ("web", "localhost")
    );
}

#[test]
fn kinds_not_served_yet_are_kept_whole() {
    let text = "apiVersion: skupper.io/v2alpha1\nkind: SecuredAccess\nmetadata:\n  name: t\nspec:\n  \
                ports: [{name: a, port: 1, targetPort: 2, protocol: TCP}]\n  selector: {app: x}\n";
    let located = one(text);
    assert_eq!(located.resource.spec, Spec::Unserved(Kind::SecuredAccess));
    assert_eq!(located.document["spec"]["ports"][0]["targetPort"], 2);
    assert!(!Kind::SecuredAccess.is_served() && Kind::Link.is_served());
}

#[test]
fn what_is_written_is_read_again() {
    let mut text = static_link();
    text.push_str("---\n");
    text.push_str(SITE);
    text.push_str(
        "---\napiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata: {name: a, labels: {b: c}}\n\
         spec: {routingKey: k, host: '::', port: 1, tlsCredentials: t, observer: http2, settings: {x: y}}\n\
         ---\napiVersion: skupper.io/v2alpha1\nkind: Connector\nmetadata: {name: a}\n\
         spec: {routingKey: k, host: h, port: 1, useClientCert: true}\n\
         ---\napiVersion: skupper.io/v2alpha1\nkind: Connector\nmetadata: {name: b}\n\
         spec: {routingKey: k, host: 'unix:/run/s', includeNotReadyPods: true, exposePodsByName: true}\n\
         ---\napiVersion: skupper.io/v2alpha1\nkind: Connector\nmetadata: {name: c}\n\
         spec: {routingKey: k, selector: unit/web, port: 0}\n\
         ---\napiVersion: skupper.io/v2alpha1\nkind: AttachedConnector\nmetadata: {name: a}\n\
         spec: {siteNamespace: s, selector: unit/web, port: 8, tlsCredentials: t, useClientCert: true}\n\
         ---\napiVersion: skupper.io/v2alpha1\nkind: AttachedConnectorBinding\nmetadata: {name: a}\n\
         spec: {connectorNamespace: c, routingKey: k, exposePodsByName: true}\n\
         ---\napiVersion: skupper.io/v2alpha1\nkind: MultiKeyListener\nmetadata: {name: a}\n\
         spec: {host: h, port: 2, strategy: {priority: {routingKeys: [b, a]}}, requireClientCert: true}\n\
         ---\napiVersion: skupper.io/v2alpha1\nkind: MultiKeyListener\nmetadata: {name: b}\n\
         spec: {host: h, port: 3, strategy: {weighted: {routingKeys: {b: 3, a: 1}}}, observer: none}\n\
         ---\napiVersion: skupper.io/v2alpha1\nkind: RouterAccess\nmetadata: {name: a}\n\
         spec: {roles: [{name: edge, port: 9}], bindHost: '::1', issuer: i, subjectAlternativeNames: [h]}\n\
         ---\napiVersion: skupper.io/v2alpha1\nkind: AccessGrant\nmetadata: {name: a}\n\
         spec: {redemptionsAllowed: 3, expirationWindow: 1h30m0.5s, code: c, issuer: i, settings: {x: y}}\n\
         ---\napiVersion: skupper.io/v2alpha1\nkind: AccessToken\nmetadata: {name: a}\n\
         spec: {url: 'https://h:1/i', code: c, ca: '-----BEGIN CERTIFICATE-----', linkCost: 7}\n",
    );
    for located in all(&text) {
        let mut expected = located.resource.clone();
        // Counted by clusters only.
        expected.meta.generation = 0;
        let written = to_yaml(&document_of(&expected)).unwrap();
        assert_eq!(one(&written).resource, expected, "{written}");
    }
    let link = all(&static_link()).remove(1);
    insta::assert_snapshot!(to_yaml(&document_of(&link.resource)).unwrap());
}

#[test]
fn order_of_lines_and_spans() {
    let text = format!("# head\n\n{SITE}{}", static_link());
    let located = all(&text);
    let lines: Vec<usize> = located.iter().map(|l| l.line).collect();
    let expected: Vec<usize> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.starts_with("apiVersion"))
        .map(|(n, _)| n + 1)
        .collect();
    assert_eq!(lines, expected);
    for located in &located {
        let again = one(&text[located.body.clone()]);
        assert_eq!(again.resource, located.resource);
        let line = text
            .lines()
            .nth(located.line_of("metadata.name") - 1)
            .unwrap();
        assert_eq!(line.trim(), format!("name: {}", located.resource.name()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    /// Whatever is cut out of a good file or put into it: there is an answer and no panic, and what
    /// comes out before the wound is what was there. (A separator after it may be what is hurt.)
    #[test]
    fn any_bytes_have_an_answer(
        at in 0usize..4000,
        cut in 0usize..60,
        put in proptest::collection::vec(any::<u8>(), 0..12),
    ) {
        let text = format!("{SITE}{}", static_link());
        let mut bytes = text.clone().into_bytes();
        let at = at.min(bytes.len());
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, put);
        let whole = all(&text);
        let before = whole.iter().filter(|l| l.span.end + 4 < at).count();
        let results = parse(Path::new("f.yaml"), &bytes, None);
        for (good, result) in whole.iter().zip(&results).take(before) {
            prop_assert_eq!(&good.resource, &result.as_ref().unwrap().resource);
        }
        for error in results.into_iter().filter_map(Result::err) {
            prop_assert!(error.line >= 1);
            prop_assert!(error.line as usize <= bytes.split(|c| *c == b'\n').count());
        }
    }

    #[test]
    fn texts_of_yaml_marks(text in "[-{}\\[\\]:,?&*!|>'\"%@#a\n \t.]{0,80}") {
        for result in parse(Path::new("f.yaml"), text.as_bytes(), None) {
            prop_assert!(result.is_err());
        }
    }
}
