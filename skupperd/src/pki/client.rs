//! Credentials for dialling a link that another site has issued.

use super::{PkiError, supplied::unfit, tls::key_matches};
use crate::model::{Name, Secret};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Checks that credentials from another site are those of a client and nothing else: the certificate
/// belongs to the key, is not that of a CA, and names clients in its extended key usage.
///
/// Its validity is not checked: a clock that is wrong now may be right when the link is dialled.
pub fn check_client(name: &Name, secret: &Secret) -> Result<(), PkiError> {
    let bad = |reason: &str| unfit(name, reason.to_owned());
    if !key_matches(name, secret)? {
        return Err(bad("the key is not that of the certificate"));
    }
    let (_, pem) = x509_parser::pem::parse_x509_pem(secret.certificate.as_bytes())
        .map_err(|_| bad("tls.crt is not PEM"))?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents)
        .map_err(|_| bad("tls.crt is not a certificate"))?;
    let constraints = certificate.basic_constraints();
    let constraints =
        constraints.map_err(|_| bad("the certificate has no readable constraints"))?;
    let usage = certificate.key_usage();
    let usage = usage.map_err(|_| bad("the certificate has no readable usage"))?;
    if constraints.is_some_and(|c| c.value.ca) || usage.is_some_and(|u| u.value.key_cert_sign()) {
        return Err(bad("the certificate is that of a CA"));
    }
    let purposes = certificate.extended_key_usage();
    let purposes = purposes.map_err(|_| bad("the certificate has no readable extended usage"))?;
    if !purposes.is_some_and(|p| p.value.client_auth) {
        return Err(bad(
            "the extended usage of the certificate does not include clients",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{
        CertificateRequest, Subject, ensure_certificate, ensure_issuer, issue_client,
    };
    use std::fs;

    #[test]
    fn only_certificates_of_clients_are_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let issuer = ensure_issuer(&dir.path().join("ca"), "theirs").unwrap();
        let name = Name::new("t").unwrap();
        let good = issue_client(&issuer, Subject::Numbered("west")).unwrap();
        check_client(&name, &good).unwrap();
        let reason = |secret: &Secret| check_client(&name, secret).unwrap_err().to_string();
        let ca = Secret {
            ca: good.ca.clone(),
            certificate: issuer.certificate().to_owned(),
            key: fs::read_to_string(dir.path().join("ca/tls.key"))
                .unwrap()
                .into(),
            ..Secret::default()
        };
        assert_eq!(
            reason(&ca),
            "credentials t: the certificate is that of a CA"
        );
        for (client, server) in [(false, true), (false, false)] {
            let request = CertificateRequest {
                subject: "west",
                hosts: &[],
                client,
                server,
                validity: None,
            };
            let other = dir.path().join(format!("{client}{server}"));
            let other = ensure_certificate(&issuer, &other, &request).unwrap();
            assert!(reason(&other).ends_with("does not include clients"));
        }
        let mixed = Secret {
            key: issue_client(&issuer, Subject::Numbered("north"))
                .unwrap()
                .key,
            ..good
        };
        assert!(reason(&mixed).ends_with("the key is not that of the certificate"));
    }
}
