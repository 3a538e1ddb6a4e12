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
fn fields_of_other_platforms_are_accepted_and_noted() {
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
        assert!(noted[0].contains("means \"default\" here"), "{noted:?}");
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
fn a_cost_below_the_minimum_counts_as_one_and_is_noted() {
    let link = |cost: &str| {
        let endpoint = "{name: edge, host: h, port: '1'}";
        let spec = format!("{{{cost} tlsCredentials: c, endpoints: [{endpoint}]}}");
        noted("Link", &spec)
    };
    assert_eq!(
        link("cost: -1,"),
        ["spec.cost -1 is below the minimum and counts as 1"]
    );
    assert_eq!(
        link("cost: 0,"),
        ["spec.cost 0 is below the minimum and counts as 1"]
    );
    for quiet in ["", "cost: 1,", "cost: 2147483647,"] {
        assert!(link(quiet).is_empty());
    }
}

#[test]
fn an_access_type_has_no_effect() {
    let access = "{roles: [{name: edge}], accessType: route, generateTlsCredentials: true, \
              settings: {domain: example.org}}";
    let noted = noted("RouterAccess", access);
    assert_eq!(noted.len(), 2, "{noted:?}");
    assert!(noted[0].contains("accessType") && noted[1].contains("[domain]"));
}

#[test]
fn exposing_pods_has_no_effect() {
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
fn an_unknown_setting_is_noted_in_every_kind() {
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
fn a_wrong_count_of_data_connections_is_noted_in_both_spellings() {
    for key in ["router-data-connection-count", "routerDataConnections"] {
        let noted = noted("Site", &format!("{{settings: {{{key}: many}}}}"));
        assert!(
            noted[0].contains(key) && noted[0].contains("no effect"),
            "{noted:?}"
        );
    }
}
