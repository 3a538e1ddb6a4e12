//! Taking over a site that upstream's tools have set up on this host: its directory as it is, with its
//! identity, its CAs, so that what other sites were given stays good, its ports and its links.

use super::{
    OperateError, Outcome,
    bundle::{portable, secret_document},
    edit::good,
    invalid,
};
use crate::{
    manifest::Located,
    model::{Key, Kind, Name, Spec},
    pki,
    store::{NamespaceDir, read_text},
};
use serde_json::Value;
use std::{collections::BTreeMap, io, path::Path};

/// The resources of an upstream site's directory, `namespaces/<name>`, for this namespace. Nothing in
/// the directory is changed.
pub fn adopted(namespace: &NamespaceDir, dir: &Path) -> Outcome<Vec<Value>> {
    let input = dir.join("input");
    if !input.join("resources").is_dir() && !dir.join("runtime/resources").is_dir() {
        return Err(invalid(format!(
            "{}: neither input/resources nor runtime/resources is in it: name the directory of a \
             namespace",
            dir.display()
        )));
    }
    let mut taken: BTreeMap<Key, Value> = BTreeMap::new();
    let given = good(&namespace.with_input(&input), &[])?;
    for located in &given {
        // It was redeemed when the site was started: what came of it is in the running state.
        if located.resource.kind() != Kind::AccessToken {
            taken.insert(located.key(), kept(located));
        }
    }
    let running = namespace.with_input(&dir.join("runtime/resources"));
    // Upstream's own port of role normal is none of ours.
    let running = good(&running, &[Kind::RouterAccess])?;
    let site = given.iter().chain(&running).find_map(site_name);
    let site = site.ok_or_else(|| invalid(format!("{}: there is no Site in it", dir.display())))?;
    for located in &running {
        let wanted = match &located.resource.spec {
            Spec::Site(_) | Spec::Link(_) | Spec::Secret(_) => true,
            // The ports that other sites know.
            Spec::RouterAccess(_) => *located.resource.name() == *site,
            _ => false,
        };
        if wanted {
            let document = taken.entry(located.key());
            document.or_insert_with(|| kept(located));
        }
    }
    // A file goes before a Secret of its name, and what the user gave before what upstream made.
    let files = [
        (dir.join("runtime/issuers"), pki::OF_CA),
        (input.join("issuers"), pki::OF_CA),
        (input.join("certs"), pki::OF_END),
    ];
    for (dir, needed) in files {
        for (name, secret) in pki::given_files(&dir, needed)? {
            let document = secret_document(namespace, &name, secret);
            taken.insert(Key::new(Kind::Secret, name), document);
        }
    }
    profiles(namespace, dir, &mut taken)?;
    let key = Key::new(Kind::Site, site);
    if let (Some(id), Some(document)) = (identity(dir)?, taken.get_mut(&key)) {
        document["metadata"]["uid"] = id.into();
    }
    Ok(taken.into_values().collect())
}

fn site_name(located: &Located) -> Option<Name> {
    match located.resource.spec {
        Spec::Site(_) => Some(located.resource.name().clone()),
        _ => None,
    }
}

/// The document for another namespace, with the identity that others know.
fn kept(located: &Located) -> Value {
    let mut document = portable(located);
    if let Some(uid) = &located.resource.meta.uid {
        document["metadata"]["uid"] = uid.as_str().into();
    }
    document
}

/// Links whose Secret is not among the resources have their credentials in files.
fn profiles(namespace: &NamespaceDir, dir: &Path, taken: &mut BTreeMap<Key, Value>) -> Outcome<()> {
    let links = taken.iter().filter(|(key, _)| key.kind == Kind::Link);
    let credentials = links.filter_map(|(_, link)| link["spec"]["tlsCredentials"].as_str());
    let missing: Vec<Name> = credentials
        .filter_map(|name| Name::new(name).ok())
        .filter(|name| !taken.contains_key(&Key::new(Kind::Secret, name.clone())))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let profiles = pki::given_files(&dir.join("runtime/certs"), &[])?;
    for name in missing {
        let profile = profiles
            .iter()
            .find(|(of, _)| of.strip_suffix("-profile") == Some(&name));
        let (_, secret) = profile.ok_or_else(|| {
            invalid(format!(
                "{}: there is no Secret {name:?} for a Link, nor runtime/certs/{name}-profile",
                dir.display()
            ))
        })?;
        let document = secret_document(namespace, &name, secret.clone());
        taken.insert(Key::new(Kind::Secret, name), document);
    }
    Ok(())
}

/// The site's identity, which upstream keeps in the router's configuration only.
fn identity(dir: &Path) -> Outcome<Option<String>> {
    let path = dir.join("runtime/router/skrouterd.json");
    let text = match read_text(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(OperateError::Failed(format!("{}: {e}", path.display()))),
    };
    let unfit = |e: serde_json::Error| invalid(format!("{}: {e}", path.display()));
    let entities: Value = serde_json::from_str(&text).map_err(unfit)?;
    let entities = entities.as_array().into_iter().flatten();
    let router = entities
        .filter(|e| e[0] == "router")
        .find_map(|e| e[1]["metadata"].as_str());
    let Some(metadata) = router else {
        return Ok(None);
    };
    let metadata: Value = serde_json::from_str(metadata).map_err(unfit)?;
    Ok(metadata["id"].as_str().map(ToOwned::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Namespace, store::Layout};
    use std::fs;

    const ID: &str = "5e3c1a3e-2f0b-4d59-9a3c-0a6d6f1c2b11";

    fn write(dir: &Path, path: &str, text: &str) {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn resource(kind: &str, name: &str, spec: &str) -> String {
        format!(
            "apiVersion: skupper.io/v2alpha1\nkind: {kind}\n\
             metadata: {{name: {name}, namespace: old}}\nspec: {spec}\n"
        )
    }

    fn adopt(dir: &Path) -> Outcome<Vec<Value>> {
        let layout = Layout::root(dir);
        let name = Namespace::new("old").unwrap();
        adopted(&layout.namespace(&name), dir)
    }

    #[test]
    fn an_upstream_site_comes_with_its_identity_ports_links_and_cas() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert!(
            adopt(dir)
                .unwrap_err()
                .to_string()
                .contains("input/resources")
        );
        let site = resource("Site", "east", "{linkAccess: default}");
        write(dir, "input/resources/Site-east.yaml", &site);
        let token = "{url: \"https://h:9090/x\", code: abc, ca: \"-----BEGIN CERTIFICATE-----\\nMAo=\\n-----END CERTIFICATE-----\\n\"}";
        let token = resource("AccessToken", "t", token);
        write(dir, "input/resources/AccessToken-t.yaml", &token);
        write(dir, "runtime/resources/Site-east.yaml", &site);
        let access = "{roles: [{name: inter-router, port: 55672}], subjectAlternativeNames: [h]}";
        let access_file = "runtime/resources/RouterAccess-east.yaml";
        write(dir, access_file, &resource("RouterAccess", "east", access));
        let local = resource(
            "RouterAccess",
            "skupper-local",
            "{roles: [{name: normal, port: 5671}]}",
        );
        write(
            dir,
            "runtime/resources/RouterAccess-skupper-local.yaml",
            &local,
        );
        let link =
            "{endpoints: [{name: inter-router, host: h, port: \"55671\"}], tlsCredentials: t}";
        write(
            dir,
            "runtime/resources/Link-t.yaml",
            &resource("Link", "t", link),
        );
        for (file, text) in [("ca.crt", "CA"), ("tls.crt", "CERT"), ("tls.key", "KEY")] {
            write(dir, &format!("runtime/certs/t-profile/{file}"), text);
            write(dir, &format!("runtime/certs/east/{file}"), text);
            write(
                dir,
                &format!("runtime/issuers/skupper-site-ca/{file}"),
                text,
            );
        }
        let router = format!(
            r#"[["router", {{"id": "x", "metadata": "{{\"id\":\"{ID}\"}}"}}], ["site", {{}}]]"#
        );
        write(dir, "runtime/router/skrouterd.json", &router);
        let all = adopt(dir).unwrap();
        let names: Vec<String> = all
            .iter()
            .map(|d| {
                let text = |v: &Value| v.as_str().unwrap().to_owned();
                format!("{} {}", text(&d["kind"]), text(&d["metadata"]["name"]))
            })
            .collect();
        let expected = [
            "Site east",
            "Link t",
            "RouterAccess east",
            "Secret skupper-site-ca",
            "Secret t",
        ];
        assert_eq!(names, expected);
        assert_eq!(all[0]["metadata"]["uid"], ID);
        assert!(all.iter().all(|d| d["metadata"]["namespace"].is_null()));
        assert_eq!(all[2]["spec"]["roles"][0]["port"], 55672);
        assert_eq!(all[4]["data"]["tls.key"], "S0VZ");
        fs::remove_dir_all(dir.join("runtime/certs/t-profile")).unwrap();
        let error = adopt(dir).unwrap_err().to_string();
        assert!(error.contains("runtime/certs/t-profile"), "{error}");
    }
}
