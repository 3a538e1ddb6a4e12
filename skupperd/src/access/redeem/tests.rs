use super::*;
use crate::{
    access::link_documents,
    model::{Code, Endpoint, Host, HttpProxy, Link, LinkSettings, Role, Secret, Settings},
};
use std::collections::BTreeMap;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn token() -> AccessToken {
    AccessToken {
        url: "https://192.0.2.1:9090/1".to_owned(),
        code: Code::new("code"),
        ca: String::new(),
        link_cost: 7,
        settings: BTreeMap::new(),
    }
}

/// Credentials of a foreign CA, and those of a client that it issued.
fn credentials() -> (Secret, Secret) {
    let dir = tempfile::tempdir().unwrap();
    let issuer = pki::ensure_issuer(dir.path(), "theirs").unwrap();
    let ca = Secret {
        ca: issuer.certificate().to_owned(),
        certificate: issuer.certificate().to_owned(),
        key: std::fs::read_to_string(dir.path().join("tls.key"))
            .unwrap()
            .into(),
        ..Secret::default()
    };
    (
        ca,
        pki::issue_client(&issuer, pki::Subject::Numbered("west")).unwrap(),
    )
}

fn response(link_name: &str) -> String {
    response_with(link_name, credentials().1, Settings::default())
}

fn response_with(link_name: &str, secret: Secret, settings: Settings<LinkSettings>) -> String {
    let link = Link {
        endpoints: vec![Endpoint {
            role: Role::InterRouter,
            host: Host::new("192.0.2.1").unwrap(),
            port: 55671,
            group: "g".to_owned(),
        }],
        tls_credentials: name(link_name),
        cost: 1,
        settings,
    };
    link_documents(&name(link_name), link, secret).unwrap()
}

fn read(text: &str) -> Result<Vec<LocatedResource>, String> {
    check_documents(
        text.as_bytes(),
        &token(),
        &name("t"),
        &Namespace::default_namespace(),
    )
}

#[test]
fn the_link_has_the_cost_of_the_token() {
    let found = read(&response("t")).unwrap();
    let costs: Vec<u32> = found
        .iter()
        .filter_map(|l| match &l.resource.spec {
            Spec::Link(link) => Some(link.cost),
            _ => None,
        })
        .collect();
    assert_eq!((found.len(), costs), (2, vec![7]));
}

#[test]
fn a_token_brings_endpoints_and_client_credentials_and_nothing_else() {
    let (ca, client) = credentials();
    let proxy = Some(HttpProxy {
        host: "192.0.2.9".to_owned(),
        port: 3128,
        login: None,
    });
    let texts = BTreeMap::from([("proxy-configuration".to_owned(), "mine".to_owned())]);
    let settings = crate::manifest::settings::read(crate::model::Kind::Link, texts).unwrap();
    let text = response_with("t", Secret { proxy, ..client }, settings);
    let text = text.replacen(
        "  name: t\n",
        "  name: t\n  labels: {a: b}\n  uid: \"1\"\n",
        1,
    );
    for located in read(&text).unwrap() {
        let mark = (REDEEMED_TOKEN.to_owned(), token_mark(&token()));
        let mut meta = Meta::new(name("t"), Namespace::default_namespace());
        meta.annotations.extend([mark]);
        assert_eq!(located.resource.meta, meta);
        match &located.resource.spec {
            Spec::Secret(secret) => assert!(secret.proxy.is_none(), "{secret:?}"),
            Spec::Link(link) => assert!(link.settings.texts().is_empty(), "{link:?}"),
            other => panic!("{other:?}"),
        }
        assert!(!located.document.to_string().contains("proxy-configuration"));
    }
    let error = read(&response_with("t", ca, Settings::default())).unwrap_err();
    assert!(error.contains("is that of a CA"), "{error}");
}

#[test]
fn several_groups_are_several_links() {
    let text = response("t");
    let (_, link) = text.rsplit_once("---\n").unwrap();
    let second = link.replacen("name: t\n", "name: t-1\n", 1);
    assert_ne!(second, link);
    assert_eq!(read(&format!("{text}---\n{second}")).unwrap().len(), 3);
}

#[test]
fn a_response_with_other_documents_is_refused_whole() {
    let good = response("t");
    let site = "---\napiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata: {name: t}\n";
    let (secret, link) = good.rsplit_once("---\n").unwrap();
    for (bad, why) in [
        (response("other"), "unexpected Secret other"),
        (format!("{good}{site}"), "unexpected Site t"),
        (secret.to_owned(), "it has no Link"),
        (format!("---\n{link}"), "it must have exactly one Secret"),
        (
            link.replacen("tlsCredentials: t\n", "tlsCredentials: u\n", 1),
            "unexpected Link t",
        ),
        (
            link.replacen("name: t\n", "name: t-x\n", 1),
            "unexpected Link t-x",
        ),
        (String::new(), "it has no Link"),
        ("<html>".to_owned(), ""),
    ] {
        let error = read(&bad).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn only_https_urls_are_redeemed() {
    for (url, why) in [
        ("http://192.0.2.1:9090/1", "scheme must be https"),
        ("https://", "not a URL"),
        ("ftp://x/", "scheme must be https"),
        ("/1", "scheme must be https"),
        ("https://a b/", "not a URL"),
    ] {
        let error = parse_url(url).err().unwrap().to_string();
        assert!(error.contains(why), "{url}: {error}");
    }
    let v6 = parse_url("https://[2001:db8::1]:9090/x").unwrap();
    assert_eq!((v6.host.as_str(), v6.port), ("2001:db8::1", 9090));
    assert_eq!(v6.to_string(), "[2001:db8::1]:9090");
}

#[test]
fn transient_and_final_refusals_differ() {
    let refused = |status| RedeemError::Refused {
        status,
        body: String::new(),
    };
    for (status, last) in [
        (302, true),
        (403, true),
        (404, true),
        (429, false),
        (500, false),
        (503, false),
    ] {
        assert_eq!(refused(status).is_final(), last, "{status}");
    }
}
