use super::*;
use crate::{
    model::Namespace,
    pki::{Subject, ensure_issuer, identify_pem, issue_client},
    store::Layout,
};
use std::fs;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A namespace, with the credentials of a service or without, and a foreign CA.
fn namespace_and_ca(dir: &Path, credentials: bool) -> (NamespaceDir, Issuer) {
    let layout = Layout::root(&dir.join("root"));
    let layout = layout.with_credentials(credentials.then(|| dir.join("service")));
    fs::create_dir_all(dir.join("service")).unwrap();
    let issuer = ensure_issuer(&dir.join("ca"), "theirs").unwrap();
    (layout.namespace(&Namespace::default_namespace()), issuer)
}

#[test]
fn a_ca_may_be_a_credential_of_the_service_as_a_whole_or_by_its_key_alone() {
    for mark in [".", "_"] {
        let dir = tempfile::tempdir().unwrap();
        let (namespace, theirs) = namespace_and_ca(dir.path(), true);
        let base = dir.path().join("service/skupper.issuers.default.my-ca");
        let put = |part: &str| {
            let to = format!("{}{mark}{part}", base.display());
            fs::copy(dir.path().join("ca").join(part), to).unwrap();
        };
        put("tls.key");
        let Err(error) = issuer_for(&namespace, &name("my-ca"), None, None) else {
            panic!("half of it is not enough");
        };
        let error = error.to_string();
        assert!(
            error.contains("input/issuers/my-ca/tls.crt is missing")
                && error.contains("the credential skupper.issuers.default.my-ca.tls.crt"),
            "{error}"
        );
        let input = namespace.input_issuer(&name("my-ca"));
        fs::create_dir_all(&input).unwrap();
        fs::write(input.join("tls.crt"), theirs.certificate()).unwrap();
        let found = issuer_for(&namespace, &name("my-ca"), None, None).unwrap();
        let link = issue_client(&found, Subject::Numbered("x")).unwrap();
        assert!(identify_pem(&link.certificate).is_some());
        // Credentials of the service go before files.
        fs::write(input.join("tls.crt"), "something else").unwrap();
        put("tls.crt");
        let found = issuer_for(&namespace, &name("my-ca"), None, None).unwrap();
        assert_eq!(found.certificate(), theirs.certificate());
        let keys = [namespace.runtime_issuer(&name("my-ca")), input];
        assert!(keys.iter().all(|dir| !dir.join("tls.key").exists()));
    }
}

#[test]
fn credentials_of_other_services_are_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let (namespace, _) = namespace_and_ca(dir.path(), false);
    for part in ["ca.crt", "tls.crt", "tls.key"] {
        let file = format!("service/skupper.certs.default.shown.{part}");
        fs::write(dir.path().join(file), "text").unwrap();
    }
    let found = supplied_certificate(&namespace, &name("shown")).unwrap();
    assert!(found.is_none());
    let (namespace, _) = namespace_and_ca(dir.path(), true);
    let found = supplied_certificate(&namespace, &name("shown")).unwrap();
    assert!(found.is_some());
}
