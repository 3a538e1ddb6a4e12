//! What all certificates that this site makes have in common, and how they are kept as files.

use super::PkiError;
use crate::{
    model::Secret,
    store::{PRIVATE, read_text, write_file},
};
use rcgen::{CertificateParams, DnType, SanType};
use std::{
    net::IpAddr,
    path::Path,
    time::{Duration, SystemTime},
};

/// Validity of what we issue: 5 years, as the Go implementation has it.
pub(super) const DAYS: i64 = 5 * 365;
/// How long before they are made certificates are valid, in seconds.
pub(super) const EARLY: i64 = 3600;
/// A server certificate with less than this left is issued anew.
pub(super) const RENEW_DAYS: i64 = 30;

pub(super) fn read(path: &Path) -> Result<String, PkiError> {
    let wrap = |source| PkiError::File {
        op: "reading",
        path: path.to_owned(),
        source,
    };
    read_text(path).map_err(wrap)
}

pub(super) fn save(dir: &Path, secret: &Secret) -> Result<(), PkiError> {
    // The key last: a key is never without its certificate.
    let files = [
        ("ca.crt", secret.ca.as_str()),
        ("tls.crt", secret.certificate.as_str()),
        ("tls.key", secret.key.as_str()),
    ];
    save_files(dir, files)
}

/// Writes files with mode 0600, in order.
pub(super) fn save_files(dir: &Path, files: [(&str, &str); 3]) -> Result<(), PkiError> {
    for (file, text) in files {
        let path = dir.join(file);
        write_file(&path, text.as_bytes(), PRIVATE).map_err(|source| PkiError::File {
            op: "writing",
            path,
            source,
        })?;
    }
    Ok(())
}

/// `made`: when it is made, by the clock of this host or of the CA, see `Issuer::clock`.
pub(super) fn params(
    name: &str,
    hosts: &[String],
    validity: Option<Duration>,
    made: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    let day = Duration::from_secs(24 * 3600);
    // Begins before now: a peer's clock may be behind ours.
    params.not_before = (made - Duration::from_secs(EARLY.unsigned_abs())).into();
    let validity = validity.unwrap_or(day * u32::try_from(DAYS).unwrap_or(1));
    params.not_after = (made + validity).into();
    for host in hosts {
        if let Ok(ip) = host.parse::<IpAddr>() {
            params.subject_alt_names.push(SanType::IpAddress(ip));
        }
        // Addresses as names too: Skupper's C router looks for them there only.
        params
            .subject_alt_names
            .push(SanType::DnsName(host.as_str().try_into()?));
    }
    Ok(params)
}
