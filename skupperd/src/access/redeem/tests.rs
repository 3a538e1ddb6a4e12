use super::*;
use crate::{
    access::link_documents,
    model::{Code, Endpoint, Host, Link, Role, Secret},
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

fn answer(its: &str) -> String {
    let pem = "-----BEGIN CERTIFICATE-----\n";
    let secret = Secret {
        ca: pem.to_owned(),
        certificate: pem.to_owned(),
        key: pem.to_owned().into(),
        ..Secret::default()
    };
    let link = Link {
        endpoints: vec![Endpoint {
            role: Role::InterRouter,
            host: Host::new("192.0.2.1").unwrap(),
            port: 55671,
            group: "g".to_owned(),
        }],
        tls_credentials: name(its),
        cost: 1,
        settings: BTreeMap::new(),
    };
    link_documents(&name(its), link, secret).unwrap()
}

fn read(text: &str) -> Result<Vec<Located>, String> {
    documents(
        text.as_bytes(),
        &token(),
        &name("t"),
        &Namespace::default_namespace(),
    )
}

#[test]
fn t13_the_link_has_the_cost_of_the_token() {
    let found = read(&answer("t")).unwrap();
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
fn several_groups_are_several_links() {
    let text = answer("t");
    let (_, link) = text.rsplit_once("---\n").unwrap();
    let second = link.replacen("name: t\n", "name: t-1\n", 1);
    assert_ne!(second, link);
    assert_eq!(read(&format!("{text}---\n{second}")).unwrap().len(), 3);
}

#[test]
fn what_was_not_asked_for_is_refused_as_a_whole() {
    let good = answer("t");
    let site = "---\napiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata: {name: t}\n";
    let (secret, link) = good.rsplit_once("---\n").unwrap();
    for (bad, why) in [
        (answer("other"), "Secret other was not asked for"),
        (format!("{good}{site}"), "Site t was not asked for"),
        (secret.to_owned(), "there is no Link in it"),
        (format!("---\n{link}"), "there is not one Secret in it"),
        (
            link.replacen("tlsCredentials: t\n", "tlsCredentials: u\n", 1),
            "Link t was not asked for",
        ),
        (
            link.replacen("name: t\n", "name: t-x\n", 1),
            "Link t-x was not asked for",
        ),
        (String::new(), "there is no Link in it"),
        ("<html>".to_owned(), ""),
    ] {
        let error = read(&bad).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn t10_only_https_is_asked() {
    for (url, why) in [
        ("http://192.0.2.1:9090/1", "scheme must be https"),
        ("https://", "is not a URL"),
        ("ftp://x/", "scheme must be https"),
        ("/1", "scheme must be https"),
        ("https://a b/", "is not a URL"),
    ] {
        let error = server(url).err().unwrap().to_string();
        assert!(error.contains(why), "{url}: {error}");
    }
    let v6 = server("https://[2001:db8::1]:9090/x").unwrap();
    assert_eq!((v6.host.as_str(), v6.port), ("2001:db8::1", 9090));
    assert_eq!(v6.to_string(), "[2001:db8::1]:9090");
}

#[test]
fn what_may_pass_is_told_from_what_will_not() {
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
