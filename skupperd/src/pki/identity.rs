//! Identities of certificates, and the list of those that an issuer has signed.

use super::PkiError;
use crate::{
    model::SerialNumber,
    store::{append_line, lock, read_text},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::{Path, PathBuf},
};
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateIdentity {
    /// Serial number in lower-case hexadecimal: unique among those of one issuer.
    pub serial: String,
    /// Common name: of the site it was issued to, or of the link.
    pub subject: String,
    pub expires: Timestamp,
    /// Key identifier of the CA that has signed it, in lower-case hexadecimal; empty when the
    /// certificate does not say.
    #[serde(default)]
    pub authority: String,
}

/// The identity in a certificate (DER); `None` when it is not valid.
pub fn identify(der: &[u8]) -> Option<CertificateIdentity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let name = certificate.subject().iter_common_name().next();
    Some(CertificateIdentity {
        serial: SerialNumber::parse(&hex::encode(certificate.raw_serial()))
            .map(String::from)
            .unwrap_or_default(),
        subject: name
            .and_then(|n| n.as_str().ok())
            .unwrap_or_default()
            .to_owned(),
        expires: Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?,
        authority: certificate
            .iter_extensions()
            .find_map(|e| match e.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    id.key_identifier.as_ref().map(|k| hex::encode(k.0))
                }
                _ => None,
            })
            .unwrap_or_default(),
    })
}

/// Key identifier of a CA (PEM), by which what it has signed refers to it.
pub(super) fn authority(pem: &str) -> Option<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
    certificate
        .iter_extensions()
        .find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(hex::encode(id.0)),
            _ => None,
        })
}

/// The identity in the first certificate of a PEM text.
pub fn identify_pem(pem: &str) -> Option<CertificateIdentity> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    identify(&pem.contents)
}

fn issued_file(dir: &Path) -> PathBuf {
    dir.join("issued.jsonl")
}

/// What an issuer has signed, locked against other writers.
pub(super) struct IssuedRecord {
    path: PathBuf,
    subjects: BTreeSet<String>,
    _lock: File,
}

impl IssuedRecord {
    pub(super) fn lock(dir: &Path) -> Result<Self, PkiError> {
        let path = issued_file(dir);
        let lock = lock(&dir.join(".lock"), true).map_err(fail("writing", &path))?;
        let now = Timestamp::now();
        let valid = issued(dir)?.into_iter().filter(|i| i.expires > now);
        Ok(Self {
            path,
            subjects: valid.map(|i| i.subject).collect(),
            _lock: lock,
        })
    }

    /// The name, or the name with the lowest number from 2 on that no valid certificate has.
    pub(super) fn free_subject(&self, name: &str) -> String {
        let mut subject = name.to_owned();
        let mut number = 2_u64;
        while self.subjects.contains(&subject) {
            subject = format!("{name}-{number}");
            number += 1;
        }
        subject
    }

    /// Records a signed certificate, so that it can be revoked later.
    pub(super) fn append(&self, identity: &CertificateIdentity) -> Result<(), PkiError> {
        let line = serde_json::to_vec(identity);
        let line = line.map_err(|e| fail("writing", &self.path)(e.into()))?;
        append_line(&self.path, &line).map_err(fail("writing", &self.path))
    }
}

fn fail(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::File { op, path, source }
}

/// What an issuer has signed, in order. A line that a crash cut short is skipped.
pub fn issued(dir: &Path) -> Result<Vec<CertificateIdentity>, PkiError> {
    let path = issued_file(dir);
    match read_text(&path) {
        Ok(text) => Ok(text
            .lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(fail("reading", &path)(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Subject, ensure_issuer, issue_client};

    #[test]
    fn issued_certificates_are_listed_and_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let issuer = ensure_issuer(dir.path(), "ca").unwrap();
        let secrets: Vec<_> = ["west", "north"]
            .map(|name| issue_client(&issuer, Subject::Numbered(name)).unwrap())
            .into();
        let listed = issued(dir.path()).unwrap();
        let shown: Vec<_> = secrets
            .iter()
            .map(|s| identify_pem(&s.certificate).unwrap())
            .collect();
        assert_eq!(listed, shown);
        assert_eq!(listed[0].subject, "west");
        assert_ne!(listed[0].serial, listed[1].serial);
        std::fs::write(issued_file(dir.path()), "{\"serial\": \"12").unwrap();
        assert_eq!(issued(dir.path()).unwrap(), []);
    }

    #[test]
    fn each_client_certificate_has_a_subject_of_its_own_and_serves_no_server() {
        let dir = tempfile::tempdir().unwrap();
        let issuer = ensure_issuer(dir.path(), "ca").unwrap();
        let mut subjects = Vec::new();
        for _ in 0..3 {
            let secret = issue_client(&issuer, Subject::Numbered("west")).unwrap();
            subjects.push(identify_pem(&secret.certificate).unwrap().subject);
            let (_, pem) = x509_parser::pem::parse_x509_pem(secret.certificate.as_bytes()).unwrap();
            let certificate = pem.parse_x509().unwrap();
            let usage = certificate.extended_key_usage().unwrap().unwrap().value;
            assert!(usage.client_auth && !usage.server_auth && !usage.any);
        }
        assert_eq!(subjects, ["west", "west-2", "west-3"]);
    }

    #[test]
    fn invalid_certificates_have_no_identity() {
        assert_eq!(identify(b"noise"), None);
        assert_eq!(
            identify_pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            None
        );
    }
}
