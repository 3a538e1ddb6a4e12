//! Credentials that the user supplies: taken in place of ours, after a look at whether they can do
//! what they are for.

use super::{
    Identity, Issued, Issuer, PkiError, Retired, Rotation, authority, ensure_issuer, ensure_server,
    identify_pem, renewal, rotated_issuer, tls::key_matches,
};
use crate::{
    model::{Name, Secret},
    store::{Given, NamespaceDir, read_text},
};
use jiff::Timestamp;
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

/// Server credentials, and whom they are to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Certificate and key; `ca` are all CAs whose clients are let in.
    pub secret: Secret,
    /// When the certificate ends; none when it does not read as one.
    pub identity: Option<Identity>,
    /// The CA by which others recognise the server.
    pub authority: String,
    /// The user supplied them: they are not ours to renew.
    pub given: bool,
    /// CAs that were trusted: key identifier, and until when.
    pub retired: Vec<(String, Timestamp)>,
    /// When something of this changes by itself.
    pub changes: Option<Timestamp>,
}

/// The CA of that name: from the service's credentials or `input/issuers`, from a Secret, or one of our own, made on first need
/// and replaced where `rotation` asks for it.
pub fn issuer_for(
    namespace: &NamespaceDir,
    name: &Name,
    secret: Option<&Secret>,
    rotation: Option<&Rotation>,
) -> Result<Issuer, PkiError> {
    let given = match read(namespace, Given::Issuer, name, OF_CA)? {
        Some(given) => Some(given),
        None => secret.filter(|s| s.has_certificate()).cloned(),
    };
    let Some(given) = given else {
        let dir = namespace.runtime_issuer(name);
        return match rotation {
            Some(rotation) => rotated_issuer(&dir, name, rotation),
            None => ensure_issuer(&dir, name),
        };
    };
    check(name, &given, None)?;
    Ok(Issuer::given(namespace.runtime_issuer(name), name, given))
}

/// Credentials for accepting links: from `input/certs`, from a Secret, or issued for `hosts`. `asked`:
/// those of the hosts that somebody asked for, which a supplied certificate must have.
pub fn server_for(
    namespace: &NamespaceDir,
    issuer: &Issuer,
    credentials: &Name,
    (name, hosts): (&Name, &[String]),
    asked: &[String],
    (secret, validity): (Option<&Secret>, Option<std::time::Duration>),
) -> Result<Served, PkiError> {
    let key = |r: &Retired| Some((authority(&r.certificate)?, r.until));
    let retired = issuer.retired().iter().filter_map(key).collect();
    if let Some(mut given) = given_server(namespace, credentials, secret)? {
        check(credentials, &given, Some(asked))?;
        let authority = given.ca.clone();
        // Whoever got credentials from us is let in beside those of the user's own CA.
        if !given.ca.contains(issuer.certificate().trim()) {
            given.ca.push('\n');
            given.ca.push_str(&issuer.trusted());
        }
        return Ok(Served {
            identity: identify_pem(&given.certificate),
            secret: given,
            authority,
            given: true,
            retired,
            changes: issuer.changes(),
        });
    }
    let dir = namespace.runtime_certs(credentials);
    let secret: Issued = ensure_server(issuer, &dir, name, hosts, validity)?;
    Ok(Served {
        identity: identify_pem(&secret.certificate),
        authority: issuer.certificate().to_owned(),
        changes: [renewal(&secret.certificate), issuer.changes()]
            .into_iter()
            .flatten()
            .min(),
        secret,
        given: false,
        retired,
    })
}

/// Credentials that the user supplies whole: those of the service or in `input/certs`, or as a Secret.
pub fn given_server(
    namespace: &NamespaceDir,
    credentials: &Name,
    secret: Option<&Secret>,
) -> Result<Option<Secret>, PkiError> {
    let given = given_certificate(namespace, credentials)?;
    let whole = |s: &&Secret| s.has_certificate() && !s.ca.is_empty();
    Ok(given.or_else(|| secret.filter(whole).cloned()))
}

/// The same, but not as a Secret.
pub fn given_certificate(
    namespace: &NamespaceDir,
    name: &Name,
) -> Result<Option<Secret>, PkiError> {
    read(namespace, Given::Certificate, name, OF_END)
}

/// What a CA needs to have.
pub const OF_CA: &[&str] = &["tls.crt", "tls.key"];
/// What a server or client needs to have.
pub const OF_END: &[&str] = &["ca.crt", "tls.crt", "tls.key"];

/// The credentials in the directories of a directory, by name; each has what is `needed`.
pub fn given_files(dir: &Path, needed: &[&'static str]) -> Result<Vec<(Name, Secret)>, PkiError> {
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
    let mut given = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|n| n.to_str());
        // What can not be named by a resource is used by none.
        let Some(name) = name.and_then(|n| Name::new(n).ok()) else {
            continue;
        };
        let parts = parts(needed, |part| vec![path.join(part)])?;
        if let Some(missing) = parts.missing {
            let text = format!("{} is missing", path.join(missing).display());
            return Err(unfit(&name, text));
        }
        given.push((name, parts.secret));
    }
    Ok(given)
}

/// Credentials of the user's: each part is a credential of the service, or else in the directory for
/// them. None when there is not one and no such directory. Those that lack a part are an error: who
/// made them wants them used.
pub(super) fn read(
    namespace: &NamespaceDir,
    kind: Given,
    name: &Name,
    needed: &[&'static str],
) -> Result<Option<Secret>, PkiError> {
    let dir = namespace.given(kind, name);
    let parts = parts(needed, |part| {
        let mut places = namespace.service_credential(kind, name, part);
        places.push(dir.join(part));
        places
    })?;
    match parts.missing {
        _ if !parts.any && !dir.exists() => Ok(None),
        None => Ok(Some(parts.secret)),
        Some(part) => Err(unfit(name, lacking(namespace, kind, name, &dir.join(part)))),
    }
}

/// What was found of credentials.
struct Parts {
    secret: Secret,
    any: bool,
    /// The first of the needed parts that is in no place.
    missing: Option<&'static str>,
}

/// Reads each part from the first of its places that has it.
fn parts(
    needed: &[&'static str],
    places: impl Fn(&'static str) -> Vec<PathBuf>,
) -> Result<Parts, PkiError> {
    let (mut any, mut missing) = (false, None);
    let mut part = |part: &'static str| -> Result<String, PkiError> {
        for path in places(part) {
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
    Ok(Parts {
        secret,
        any,
        missing,
    })
}

/// Where a part of credentials was looked for.
fn lacking(namespace: &NamespaceDir, kind: Given, name: &Name, path: &Path) -> String {
    let part = path.file_name().unwrap_or_default().to_string_lossy();
    let places = namespace.service_credential(kind, name, &part);
    let credential = places.first().and_then(|path| path.file_name());
    match credential {
        Some(credential) => format!(
            "{} is missing, and so is the credential {}",
            path.display(),
            credential.to_string_lossy()
        ),
        // Only the service itself sees its credentials.
        None => format!("{} is missing", path.display()),
    }
}

fn unfit(name: &Name, reason: String) -> PkiError {
    PkiError::Unfit {
        name: name.to_string(),
        reason,
    }
}

/// Whether credentials can do what they are for: `hosts` of a server, or none of a CA.
pub fn check(name: &Name, secret: &Secret, hosts: Option<&[String]>) -> Result<(), PkiError> {
    let bad = |reason: &str| unfit(name, reason.to_owned());
    if !key_matches(name, secret)? {
        return Err(bad("the key is not that of the certificate"));
    }
    let (_, pem) = x509_parser::pem::parse_x509_pem(secret.certificate.as_bytes())
        .map_err(|_| bad("tls.crt does not read as PEM"))?;
    let (_, certificate) =
        X509Certificate::from_der(&pem.contents).map_err(|_| bad("tls.crt is no certificate"))?;
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
mod tests {
    use super::*;
    use crate::{
        model::Namespace,
        pki::{ensure_issuer, identify_pem, issue_client},
        store::Layout,
    };
    use std::fs;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    /// A namespace whose service has these credentials, and a CA with its key.
    fn place(dir: &Path, credentials: bool) -> (NamespaceDir, Issuer) {
        let layout = Layout::root(&dir.join("root"));
        let layout = layout.with_credentials(credentials.then(|| dir.join("service")));
        fs::create_dir_all(dir.join("service")).unwrap();
        let issuer = ensure_issuer(&dir.join("ca"), "theirs").unwrap();
        (layout.namespace(&Namespace::default_namespace()), issuer)
    }

    #[test]
    fn a_ca_may_be_a_credential_of_the_service_whole_or_its_key_alone() {
        for mark in [".", "_"] {
            let dir = tempfile::tempdir().unwrap();
            let (namespace, theirs) = place(dir.path(), true);
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
            let link = issue_client(&found, "x").unwrap();
            assert!(identify_pem(&link.certificate).is_some());
            // What the service has goes before what lies there.
            fs::write(input.join("tls.crt"), "something else").unwrap();
            put("tls.crt");
            let found = issuer_for(&namespace, &name("my-ca"), None, None).unwrap();
            assert_eq!(found.certificate(), theirs.certificate());
            let keys = [namespace.runtime_issuer(&name("my-ca")), input];
            assert!(keys.iter().all(|dir| !dir.join("tls.key").exists()));
        }
    }

    #[test]
    fn credentials_of_other_services_are_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let (namespace, _) = place(dir.path(), false);
        for part in ["ca.crt", "tls.crt", "tls.key"] {
            let file = format!("service/skupper.certs.default.shown.{part}");
            fs::write(dir.path().join(file), "text").unwrap();
        }
        let found = given_certificate(&namespace, &name("shown")).unwrap();
        assert!(found.is_none());
        let (namespace, _) = place(dir.path(), true);
        let found = given_certificate(&namespace, &name("shown")).unwrap();
        assert!(found.is_some());
    }
}
