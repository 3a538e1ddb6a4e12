//! The resources of a site for another host, without what belongs to this one.

use super::{OperateError, OperateResult, invalid, resources::valid_resources};
use crate::{
    access,
    manifest::{LocatedResource, document_of},
    model::{Kind, Meta, Name, Resource, Secret, Spec},
    pki,
    store::NamespaceDir,
    telemetry::chain,
};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    pub site: String,
    /// All resources, with keys and codes.
    pub documents: Vec<Value>,
}

/// The resources of a namespace for another host. Tokens expire soon, so they are redeemed now: the
/// bundle is good for one site. Credentials in directories become Secrets.
pub async fn bundle(namespace: &NamespaceDir) -> OperateResult<Bundle> {
    let resources = valid_resources(namespace, &[])?;
    let site = resources.iter().find_map(|l| match l.resource.spec {
        Spec::Site(_) => Some(l.resource.name().to_string()),
        _ => None,
    });
    let site = site.ok_or_else(|| {
        invalid(format!(
            "no Site in {}",
            namespace.input_resources().display()
        ))
    })?;
    let mut secrets: BTreeMap<Name, Value> = BTreeMap::new();
    let mut documents = Vec::new();
    for located in resources {
        let name = located.resource.name().clone();
        match &located.resource.spec {
            Spec::Secret(_) => drop(secrets.insert(name, without_identity(&located))),
            Spec::AccessToken(token) => {
                let redeemed = access::redeem(token, &name, &site, namespace.name()).await;
                let redeemed = redeemed.map_err(|e| {
                    OperateError::Failed(format!("cannot redeem AccessToken {name}: {}", chain(&e)))
                })?;
                documents.extend(redeemed.iter().map(without_identity));
            }
            _ => documents.push(without_identity(&located)),
        }
    }
    // A directory takes precedence over a Secret of its name.
    let input = namespace.input();
    let issuers = pki::supplied_credentials(&input.join("issuers"), pki::CA_FILES)?;
    let certs = pki::supplied_credentials(&input.join("certs"), pki::END_ENTITY_FILES)?;
    for (name, secret) in issuers.into_iter().chain(certs) {
        let document = secret_document(namespace, &name, secret);
        secrets.insert(name, document);
    }
    documents.extend(secrets.into_values());
    Ok(Bundle { site, documents })
}

/// The document of a Secret, with its key.
pub(super) fn secret_document(namespace: &NamespaceDir, name: &Name, secret: Secret) -> Value {
    document_of(&Resource {
        meta: Meta::new(name.clone(), namespace.name().clone()),
        spec: Spec::Secret(secret),
    })
}

/// A document without its namespace, and without the ID that two sites must not share.
pub(super) fn without_identity(located: &LocatedResource) -> Value {
    let mut document = match located.resource.kind() {
        // The document as it was read has no key.
        Kind::Secret => document_of(&located.resource),
        _ => (*located.document).clone(),
    };
    if let Some(object) = document.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = document.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("namespace");
        metadata.remove("uid");
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Namespace, store::Layout};
    use std::fs;

    fn bundled(dir: &std::path::Path) -> OperateResult<Bundle> {
        let layout = Layout::root(dir);
        let namespace = layout.namespace(&Namespace::default_namespace());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime
            .unwrap()
            .block_on(bundle(&namespace.with_input(dir)))
    }

    #[test]
    fn a_bundle_has_no_namespace_and_no_site_id() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            bundled(dir.path())
                .unwrap_err()
                .to_string()
                .contains("no Site in")
        );
        let site = "apiVersion: skupper.io/v2alpha1\nkind: Site\n\
                    metadata: {name: west, namespace: default, \
                    uid: 5e3c1a3e-2f0b-4d59-9a3c-0a6d6f1c2b11}\nspec: {linkAccess: default}\n";
        fs::write(dir.path().join("site.yaml"), site).unwrap();
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n\
                      stringData: {host: proxy, port: \"3128\", username: me, password: C}\n";
        fs::write(dir.path().join("secret.yaml"), secret).unwrap();
        let certs = dir.path().join("certs/b");
        fs::create_dir_all(&certs).unwrap();
        for file in ["ca.crt", "tls.crt", "tls.key"] {
            fs::write(certs.join(file), file).unwrap();
        }
        let bundle = bundled(dir.path()).unwrap();
        assert_eq!(bundle.site, "west");
        let [site, one, two] = &bundle.documents[..] else {
            panic!("{:?}", bundle.documents);
        };
        assert_eq!(site["metadata"], serde_json::json!({"name": "west"}));
        assert_eq!(site["spec"]["linkAccess"], "default");
        assert_eq!(
            (&one["metadata"]["name"], &one["data"]["password"]),
            (&"a".into(), &"Qw==".into())
        );
        assert_eq!(two["data"]["tls.key"], "dGxzLmtleQ==");
        fs::remove_file(certs.join("tls.key")).unwrap();
        assert!(
            bundled(dir.path())
                .unwrap_err()
                .to_string()
                .contains("tls.key is missing")
        );
    }

    #[test]
    fn invalid_input_is_reported_and_nothing_is_bundled() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("resources")).unwrap();
        fs::write(dir.path().join("resources/bad.yaml"), "kind: Site\n").unwrap();
        let error = bundled(dir.path()).unwrap_err().to_string();
        assert!(error.contains("bad.yaml:1"), "{error}");
    }
}
