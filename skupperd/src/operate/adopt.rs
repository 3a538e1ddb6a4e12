//! `system adopt`: the resources of a site that Skupper's own tools set up on this host.
//!
//! They keep its ID, its CAs, its ports and its links, so that the credentials of other sites stay valid.

use super::{
    OperateError, OperateResult,
    bundle::{secret_document, without_identity},
    invalid,
    resources::valid_resources,
};
use crate::{
    manifest::LocatedResource,
    model::{Key, Kind, Name, Spec},
    pki,
    store::{NamespaceDir, read_text},
};
use serde_json::Value;
use std::{collections::BTreeMap, io, path::Path};

/// The resources of a directory `namespaces/<name>` of Skupper, for this namespace. Changes nothing in it.
pub fn adopt(namespace: &NamespaceDir, dir: &Path) -> OperateResult<Vec<Value>> {
    let input = dir.join("input");
    if !input.join("resources").is_dir() && !dir.join("runtime/resources").is_dir() {
        return Err(invalid(format!(
            "{}: has neither input/resources nor runtime/resources; give the directory of a namespace",
            dir.display()
        )));
    }
    let mut resources: BTreeMap<Key, Value> = BTreeMap::new();
    let supplied = valid_resources(&namespace.with_input(&input), &[])?;
    for located in &supplied {
        // Skupper redeemed it when it started the site: its Link is in the runtime directory.
        if located.resource.kind() != Kind::AccessToken {
            resources.insert(located.key(), with_identity(located));
        }
    }
    let running = namespace.with_input(&dir.join("runtime/resources"));
    // Skupper's RouterAccess of role normal is for its own tools.
    let running = valid_resources(&running, &[Kind::RouterAccess])?;
    let site = supplied.iter().chain(&running).find_map(site_name);
    let site = site.ok_or_else(|| invalid(format!("{}: contains no Site", dir.display())))?;
    for located in &running {
        let wanted = match &located.resource.spec {
            Spec::Site(_) | Spec::Link(_) | Spec::Secret(_) => true,
            // The ports that other sites dial.
            Spec::RouterAccess(_) => *located.resource.name() == *site,
            _ => false,
        };
        if wanted {
            let document = resources.entry(located.key());
            document.or_insert_with(|| with_identity(located));
        }
    }
    // Files take precedence over a Secret of their name, and the user's over those that Skupper made.
    let files = [
        (dir.join("runtime/issuers"), pki::CA_FILES),
        (input.join("issuers"), pki::CA_FILES),
        (input.join("certs"), pki::END_ENTITY_FILES),
    ];
    for (dir, needed) in files {
        for (name, secret) in pki::supplied_credentials(&dir, needed)? {
            let document = secret_document(namespace, &name, secret);
            resources.insert(Key::new(Kind::Secret, name), document);
        }
    }
    profiles(namespace, dir, &mut resources)?;
    let key = Key::new(Kind::Site, site);
    if let (Some(id), Some(document)) = (identity(dir)?, resources.get_mut(&key)) {
        document["metadata"]["uid"] = id.into();
    }
    Ok(resources.into_values().collect())
}

fn site_name(located: &LocatedResource) -> Option<Name> {
    match located.resource.spec {
        Spec::Site(_) => Some(located.resource.name().clone()),
        _ => None,
    }
}

/// The document for another namespace, with its ID.
fn with_identity(located: &LocatedResource) -> Value {
    let mut document = without_identity(located);
    if let Some(uid) = &located.resource.meta.uid {
        document["metadata"]["uid"] = uid.as_str().into();
    }
    document
}

/// Adds Secrets for links whose credentials are in files.
fn profiles(
    namespace: &NamespaceDir,
    dir: &Path,
    resources: &mut BTreeMap<Key, Value>,
) -> OperateResult<()> {
    let links = resources.iter().filter(|(key, _)| key.kind == Kind::Link);
    let credentials = links.filter_map(|(_, link)| link["spec"]["tlsCredentials"].as_str());
    let missing: Vec<Name> = credentials
        .filter_map(|name| Name::new(name).ok())
        .filter(|name| !resources.contains_key(&Key::new(Kind::Secret, name.clone())))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let profiles = pki::supplied_credentials(&dir.join("runtime/certs"), &[])?;
    for name in missing {
        let profile = profiles
            .iter()
            .find(|(of, _)| of.strip_suffix("-profile") == Some(&name));
        let (_, secret) = profile.ok_or_else(|| {
            invalid(format!(
                "{}: contains neither Secret {name} of a Link nor runtime/certs/{name}-profile",
                dir.display()
            ))
        })?;
        let document = secret_document(namespace, &name, secret.clone());
        resources.insert(Key::new(Kind::Secret, name), document);
    }
    Ok(())
}

/// The site's ID, which Skupper keeps in the router's configuration only.
fn identity(dir: &Path) -> OperateResult<Option<String>> {
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

    fn adopt(dir: &Path) -> OperateResult<Vec<Value>> {
        let layout = Layout::root(dir);
        let name = Namespace::new("old").unwrap();
        super::adopt(&layout.namespace(&name), dir)
    }

    #[test]
    fn an_adopted_site_keeps_its_id_ports_links_and_cas() {
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
