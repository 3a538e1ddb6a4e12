//! Credentials that the user supplies: checked, and used in place of those that we issue.
//!
//! They are found, in this order, as credentials of the systemd service, in `input/certs` or
//! `input/issuers`, and as Secrets. Half of a set of credentials is an error: its author wants it
//! used.

use super::{
    CertificateIdentity, Issuer, PkiError, RetiredCa, Rotation, authority, ensure_issuer,
    ensure_server, identify_pem, renewal, rotated_issuer, tls::key_matches,
};
use crate::{
    model::{Name, Secret},
    store::{CredentialKind, NamespaceDir, read_text},
};
use jiff::Timestamp;
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

/// Credentials for accepting links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerCredentials {
    /// Certificate and key; `ca` holds all CAs whose clients are trusted.
    pub secret: Secret,
    /// `None` if the certificate cannot be parsed.
    pub identity: Option<CertificateIdentity>,
    /// The CA (PEM) by which clients recognise the server.
    pub authority: String,
    /// The user supplied them: they are never renewed.
    pub is_supplied: bool,
    /// Replaced CAs: key identifier, and end of the overlap.
    pub retired: Vec<(String, Timestamp)>,
    /// When they are due for renewal, or a CA changes.
    pub next_change: Option<Timestamp>,
}

/// The CA of that name: supplied by the user, or the site's own, which is made on first need and replaced
/// when `rotation` is due.
pub fn issuer_for(
    namespace: &NamespaceDir,
    name: &Name,
    secret: Option<&Secret>,
    rotation: Option<&Rotation>,
) -> Result<Issuer, PkiError> {
    if let Some(supplied) = supplied_issuer(namespace, name, secret)? {
        return Ok(supplied);
    }
    let dir = namespace.runtime_issuer(name);
    match rotation {
        Some(rotation) => rotated_issuer(&dir, name, rotation),
        None => ensure_issuer(&dir, name),
    }
}

/// The CA of that name, if the user supplied one, as files or as a Secret.
pub fn supplied_issuer(
    namespace: &NamespaceDir,
    name: &Name,
    secret: Option<&Secret>,
) -> Result<Option<Issuer>, PkiError> {
    let supplied = match read(namespace, CredentialKind::Issuer, name, CA_FILES)? {
        Some(supplied) => Some(supplied),
        None => secret.filter(|s| s.has_certificate()).cloned(),
    };
    let Some(supplied) = supplied else {
        return Ok(None);
    };
    check(name, &supplied, None)?;
    let dir = namespace.runtime_issuer(name);
    Ok(Some(Issuer::supplied(dir, name, supplied)))
}

/// Credentials for accepting links: supplied by the user, or issued for `hosts`. A supplied certificate
/// must have the hosts in `required`.
pub fn server_for(
    namespace: &NamespaceDir,
    issuer: &Issuer,
    credentials: &Name,
    (name, hosts): (&Name, &[String]),
    required: &[String],
    (secret, validity): (Option<&Secret>, Option<std::time::Duration>),
) -> Result<ServerCredentials, PkiError> {
    let key = |r: &RetiredCa| Some((authority(&r.certificate)?, r.until));
    let retired = issuer.retired().iter().filter_map(key).collect();
    if let Some(mut supplied) = supplied_server(namespace, credentials, secret)? {
        check(credentials, &supplied, Some(required))?;
        let authority = supplied.ca.clone();
        // Clients with credentials of our issuer are trusted beside those of the user's CA.
        if !supplied.ca.contains(issuer.certificate().trim()) {
            supplied.ca.push('\n');
            supplied.ca.push_str(&issuer.trusted());
        }
        return Ok(ServerCredentials {
            identity: identify_pem(&supplied.certificate),
            secret: supplied,
            authority,
            is_supplied: true,
            retired,
            next_change: issuer.next_change(),
        });
    }
    let dir = namespace.runtime_certs(credentials);
    let secret = ensure_server(issuer, &dir, name, hosts, validity)?;
    Ok(ServerCredentials {
        identity: identify_pem(&secret.certificate),
        authority: issuer.certificate().to_owned(),
        next_change: [renewal(&secret.certificate), issuer.next_change()]
            .into_iter()
            .flatten()
            .min(),
        secret,
        is_supplied: false,
        retired,
    })
}

/// A certificate with key and CA that the user supplied, as files or as a Secret.
pub fn supplied_server(
    namespace: &NamespaceDir,
    credentials: &Name,
    secret: Option<&Secret>,
) -> Result<Option<Secret>, PkiError> {
    let supplied = supplied_certificate(namespace, credentials)?;
    let is_complete = |s: &&Secret| s.has_certificate() && !s.ca.is_empty();
    Ok(supplied.or_else(|| secret.filter(is_complete).cloned()))
}

/// A certificate with key and CA that the user supplied as files.
pub fn supplied_certificate(
    namespace: &NamespaceDir,
    name: &Name,
) -> Result<Option<Secret>, PkiError> {
    read(
        namespace,
        CredentialKind::Certificate,
        name,
        END_ENTITY_FILES,
    )
}

pub const CA_FILES: &[&str] = &["tls.crt", "tls.key"];
/// Files that a server or client needs.
pub const END_ENTITY_FILES: &[&str] = &["ca.crt", "tls.crt", "tls.key"];

/// Credentials in the subdirectories of `dir`, by name. It is an error if one lacks a file that is
/// `needed`.
pub fn supplied_credentials(
    dir: &Path,
    needed: &[&'static str],
) -> Result<Vec<(Name, Secret)>, PkiError> {
    let failed = |source| PkiError::File {
        op: "reading directory",
        path: dir.to_owned(),
        source,
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut supplied = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|n| n.to_str());
        // No resource can refer to another name.
        let Some(name) = name.and_then(|n| Name::new(n).ok()) else {
            continue;
        };
        let parts = read_parts(needed, |part| vec![path.join(part)])?;
        if let Some(missing) = parts.missing {
            let text = format!("{} is missing", path.join(missing).display());
            return Err(unfit(&name, text));
        }
        supplied.push((name, parts.secret));
    }
    Ok(supplied)
}

/// Supplied credentials, each part of which is a credential of the service or a file in the directory for
/// them. `None` if there is no part and no such directory; an error if a needed part is missing.
pub(super) fn read(
    namespace: &NamespaceDir,
    kind: CredentialKind,
    name: &Name,
    needed: &[&'static str],
) -> Result<Option<Secret>, PkiError> {
    let dir = namespace.input_credentials(kind, name);
    let parts = read_parts(needed, |part| {
        let mut paths = namespace.service_credential(kind, name, part);
        paths.push(dir.join(part));
        paths
    })?;
    match parts.missing {
        _ if !parts.any && !dir.exists() => Ok(None),
        None => Ok(Some(parts.secret)),
        Some(part) => Err(unfit(
            name,
            missing_part(namespace, kind, name, &dir.join(part)),
        )),
    }
}

/// Credentials as far as they were found.
struct CredentialParts {
    secret: Secret,
    any: bool,
    /// The first of the needed parts that was not found.
    missing: Option<&'static str>,
}

/// Reads each part from the first of its paths that exists.
fn read_parts(
    needed: &[&'static str],
    paths: impl Fn(&'static str) -> Vec<PathBuf>,
) -> Result<CredentialParts, PkiError> {
    let (mut any, mut missing) = (false, None);
    let mut part = |part: &'static str| -> Result<String, PkiError> {
        for path in paths(part) {
            match read_text(&path) {
                Ok(text) => {
                    any = true;
                    return Ok(text);
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(PkiError::File {
                        op: "reading",
                        path,
                        source,
                    });
                }
            }
        }
        if needed.contains(&part) {
            missing.get_or_insert(part);
        }
        Ok(String::new())
    };
    let secret = Secret {
        ca: part("ca.crt")?,
        certificate: part("tls.crt")?,
        key: Zeroizing::new(part("tls.key")?),
        ..Secret::default()
    };
    Ok(CredentialParts {
        secret,
        any,
        missing,
    })
}

/// Says that a part is missing, and where it was searched.
fn missing_part(
    namespace: &NamespaceDir,
    kind: CredentialKind,
    name: &Name,
    path: &Path,
) -> String {
    let part = path.file_name().unwrap_or_default().to_string_lossy();
    let paths = namespace.service_credential(kind, name, &part);
    let credential = paths.first().and_then(|path| path.file_name());
    match credential {
        Some(credential) => format!(
            "{} is missing, and so is the credential {}",
            path.display(),
            credential.to_string_lossy()
        ),
        // Only the service sees its credentials; the command has none.
        None => format!("{} is missing", path.display()),
    }
}

pub(super) fn unfit(name: &Name, reason: String) -> PkiError {
    PkiError::Unfit {
        name: name.to_string(),
        reason,
    }
}

/// Checks that key and certificate belong together, are valid now, and fit their purpose: that of a server
/// for these `hosts`, or that of a CA if `None`.
pub fn check(name: &Name, secret: &Secret, hosts: Option<&[String]>) -> Result<(), PkiError> {
    let bad = |reason: &str| unfit(name, reason.to_owned());
    if !key_matches(name, secret)? {
        return Err(bad("the key is not that of the certificate"));
    }
    let (_, pem) = x509_parser::pem::parse_x509_pem(secret.certificate.as_bytes())
        .map_err(|_| bad("tls.crt is not PEM"))?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents)
        .map_err(|_| bad("tls.crt is not a certificate"))?;
    let validity = certificate.validity();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = i64::try_from(now.unwrap_or_default().as_secs()).unwrap_or(i64::MAX);
    if validity.not_after.timestamp() < now {
        return Err(unfit(
            name,
            format!("the certificate has expired ({})", validity.not_after),
        ));
    }
    if validity.not_before.timestamp() > now {
        let text = format!(
            "the certificate is not valid before {}",
            validity.not_before
        );
        return Err(unfit(name, text));
    }
    let Some(hosts) = hosts else {
        let ca = certificate.basic_constraints().ok().flatten();
        if !ca.is_some_and(|b| b.value.ca) {
            return Err(bad("the certificate is not that of a CA"));
        }
        let usage = certificate.key_usage().ok().flatten();
        if usage.is_some_and(|u| !u.value.key_cert_sign()) {
            return Err(bad(
                "the usage of the certificate does not include signing others",
            ));
        }
        return Ok(());
    };
    let usage = certificate.extended_key_usage().ok().flatten();
    if usage.is_some_and(|u| !u.value.server_auth && !u.value.any) {
        return Err(bad("the usage of the certificate does not include servers"));
    }
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names
        .map(|n| n.value.general_names.clone())
        .unwrap_or_default();
    if names.is_empty() {
        return Err(bad("the certificate has no subject alternative name"));
    }
    match hosts
        .iter()
        .find(|host| !names.iter().any(|name| covers(name, host)))
    {
        Some(host) => Err(unfit(name, format!("the certificate is not for {host}"))),
        None => Ok(()),
    }
}

fn covers(name: &GeneralName<'_>, host: &str) -> bool {
    match name {
        GeneralName::DNSName(name) => match name.strip_prefix("*.") {
            Some(domain) => host
                .split_once('.')
                .is_some_and(|(_, d)| d.eq_ignore_ascii_case(domain)),
            None => name.eq_ignore_ascii_case(host),
        },
        GeneralName::IPAddress(bytes) => match host.parse() {
            Ok(std::net::IpAddr::V4(ip)) => ip.octets() == *bytes,
            Ok(std::net::IpAddr::V6(ip)) => ip.octets() == *bytes,
            Err(_) => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests;
