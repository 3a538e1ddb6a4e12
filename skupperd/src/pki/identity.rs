//! Who a certificate is of, and the list of those that were issued.

use super::PkiError;
use crate::store::{PRIVATE, lock, read_text};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

/// What tells a certificate from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Serial number in lower-case hexadecimal: unique among those of one issuer.
    pub serial: String,
    /// Common name: of the site it was issued to, or of the link.
    pub subject: String,
    /// End of its validity.
    pub expires: Timestamp,
    /// Key identifier of the CA that has signed it, in lower-case hexadecimal; empty when the
    /// certificate does not say.
    #[serde(default)]
    pub authority: String,
}

/// Who a certificate (DER) is of; none when it does not read as one.
pub fn identify(der: &[u8]) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let name = certificate.subject().iter_common_name().next();
    Some(Identity {
        serial: canonical(&hex(certificate.raw_serial())).unwrap_or_default(),
        subject: name
            .and_then(|n| n.as_str().ok())
            .unwrap_or_default()
            .to_owned(),
        expires: Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?,
        authority: certificate
            .iter_extensions()
            .find_map(|e| match e.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    id.key_identifier.as_ref().map(|k| hex(k.0))
                }
                _ => None,
            })
            .unwrap_or_default(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Key identifier of a CA (PEM), by which what it has signed refers to it.
pub(super) fn authority(pem: &str) -> Option<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
    certificate
        .iter_extensions()
        .find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(hex(id.0)),
            _ => None,
        })
}

/// The same of the first certificate in a PEM text.
pub fn identify_pem(pem: &str) -> Option<Identity> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    identify(&pem.contents)
}

/// A serial number however people and programs write it: case, colons and leading zeros do not count.
pub fn canonical(serial: &str) -> Option<String> {
    let digits: String = serial.chars().filter(|c| *c != ':').collect();
    let digits = digits.trim_start_matches('0').to_ascii_lowercase();
    let good =
        !digits.is_empty() && digits.len() <= 40 && digits.bytes().all(|c| c.is_ascii_hexdigit());
    good.then_some(digits)
}

fn list(dir: &Path) -> PathBuf {
    dir.join("issued.jsonl")
}

/// Notes that an issuer has signed a certificate, for whoever wants to take it back one day.
pub(super) fn note(dir: &Path, identity: &Identity) -> Result<(), PkiError> {
    let path = list(dir);
    let fail = |source| PkiError::File {
        op: "writing",
        path: path.clone(),
        source,
    };
    let _turn = lock(&dir.join(".lock"), true).map_err(fail)?;
    let mut line = serde_json::to_vec(identity).map_err(|e| fail(e.into()))?;
    line.push(b'\n');
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).mode(PRIVATE).open(&path);
    let written = file.and_then(|mut file| {
        file.write_all(&line)?;
        file.sync_data()
    });
    written.map_err(fail)
}

/// What an issuer has signed, in order. A line that was cut short by a crash is passed over.
pub fn issued(dir: &Path) -> Result<Vec<Identity>, PkiError> {
    let path = list(dir);
    match read_text(&path) {
        Ok(text) => Ok(text
            .lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(PkiError::File {
            op: "reading",
            path,
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{ensure_issuer, issue_client};

    #[test]
    fn what_is_issued_is_listed_and_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let issuer = ensure_issuer(dir.path(), "ca").unwrap();
        let secrets: Vec<_> = ["west", "north"]
            .map(|name| issue_client(&issuer, name).unwrap())
            .into();
        let listed = issued(dir.path()).unwrap();
        let shown: Vec<_> = secrets
            .iter()
            .map(|s| identify_pem(&s.certificate).unwrap())
            .collect();
        assert_eq!(listed, shown);
        assert_eq!(listed[0].subject, "west");
        assert_ne!(listed[0].serial, listed[1].serial);
        std::fs::write(list(dir.path()), "{\"serial\": \"12").unwrap();
        assert_eq!(issued(dir.path()).unwrap(), []);
    }

    #[test]
    fn serials_are_read_as_people_write_them() {
        assert_eq!(canonical("00:AB:0c").as_deref(), Some("ab0c"));
        assert_eq!(canonical("ab0c").as_deref(), Some("ab0c"));
        for bad in ["", "0", "xyz", "12 34", &"1".repeat(41)] {
            assert_eq!(canonical(bad), None, "{bad}");
        }
    }

    #[test]
    fn noise_is_nobody() {
        assert_eq!(identify(b"noise"), None);
        assert_eq!(
            identify_pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            None
        );
    }
}
