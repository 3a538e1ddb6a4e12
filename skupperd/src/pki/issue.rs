//! Issues certificates: one for each server, anew when its names change or its end comes near, and one
//! for each client of a link.

use super::{
    Issuer, PkiError,
    identity::{IssuedRecord, identify_pem},
    template::{EARLY, RENEW_DAYS, params, read, save},
    tls::key_matches,
};
use crate::model::{Code, Secret};
use jiff::Timestamp;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256};
use std::{collections::BTreeSet, net::IpAddr, path::Path, time::Duration};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

#[derive(Clone, Copy, Debug)]
pub struct CertificateRequest<'a> {
    /// Common name.
    pub subject: &'a str,
    /// Host names and addresses.
    pub hosts: &'a [String],
    pub client: bool,
    pub server: bool,
    /// 5 years if `None`.
    pub validity: Option<Duration>,
}

fn sign(issuer: &Issuer, request: &CertificateRequest<'_>) -> Result<Secret, PkiError> {
    let fail = |source| PkiError::Issue {
        name: request.subject.to_owned(),
        source,
    };
    let ca = issuer.signer()?;
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fail)?;
    let mut params = params(
        request.subject,
        request.hosts,
        request.validity,
        issuer.clock().into(),
    )
    .map_err(fail)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let usages = [
        (request.server, ExtendedKeyUsagePurpose::ServerAuth),
        (request.client, ExtendedKeyUsagePurpose::ClientAuth),
    ];
    params.extended_key_usages = usages
        .into_iter()
        .filter_map(|(wanted, usage)| wanted.then_some(usage))
        .collect();
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&pair, &ca).map_err(fail)?.pem();
    Ok(Secret {
        ca: issuer.certificate().to_owned(),
        certificate,
        key: Zeroizing::new(pair.serialize_pem()),
        ..Secret::default()
    })
}

/// Subject of a client certificate, by which it is revoked.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// Chosen by the administrator: certificates of one subject are one peer's, so that its credentials
    /// can be replaced while its link is up.
    Exact(&'a str),
    /// With a number if a certificate of that subject was issued before.
    Numbered(&'a str),
}

/// Client credentials for one remote site; recorded as issued by the CA. They do not authenticate
/// servers.
pub fn issue_client(issuer: &Issuer, subject: Subject<'_>) -> Result<Secret, PkiError> {
    let record = IssuedRecord::lock(issuer.dir())?;
    let subject = match subject {
        Subject::Exact(subject) => subject.to_owned(),
        Subject::Numbered(name) => record.free_subject(name),
    };
    let request = CertificateRequest {
        subject: &subject,
        hosts: &[],
        client: true,
        server: false,
        validity: None,
    };
    let secret = sign(issuer, &request)?;
    if let Some(identity) = identify_pem(&secret.certificate) {
        record.append(&identity)?;
    }
    Ok(secret)
}

/// A random code of 24 characters: 142 bits.
pub fn new_code() -> Result<Code, PkiError> {
    const CHARACTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut code = Zeroizing::new(String::with_capacity(24));
    let mut bytes = Zeroizing::new([0; 64]);
    while code.len() < 24 {
        aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| PkiError::Randomness)?;
        // 248 is the largest multiple of 62 in a byte: more would favour the first characters.
        let fair = bytes.iter().filter(|b| **b < 248);
        let picked = fair.map(|b| char::from(CHARACTERS[usize::from(*b % 62)]));
        let missing = 24 - code.len();
        code.extend(picked.take(missing));
    }
    Ok(Code::new(code.as_str()))
}

/// The server credentials in `dir`, issued anew when there are none, when they have other hosts or
/// another CA, or when their end comes near. `validity` is that of new ones: 5 years if `None`.
pub fn ensure_server(
    issuer: &Issuer,
    dir: &Path,
    name: &str,
    hosts: &[String],
    validity: Option<Duration>,
) -> Result<Secret, PkiError> {
    let request = CertificateRequest {
        subject: name,
        hosts,
        client: true,
        server: true,
        validity,
    };
    ensure_certificate(issuer, dir, &request)
}

/// The credentials in `dir`, issued anew when there are none, when they differ from the request or have
/// another CA, when the key is not that of the certificate (a crash came between the two files), or when
/// their end comes near.
pub fn ensure_certificate(
    issuer: &Issuer,
    dir: &Path,
    request: &CertificateRequest<'_>,
) -> Result<Secret, PkiError> {
    let files = ["ca.crt", "tls.crt", "tls.key"].map(|f| dir.join(f));
    if files.iter().all(|f| f.exists()) {
        let [ca, certificate, key] = &files;
        let known = Secret {
            ca: read(ca)?,
            certificate: read(certificate)?,
            key: Zeroizing::new(read(key)?),
            ..Secret::default()
        };
        let chained = known.certificate.ends_with(&issuer.cross());
        let of_this = chained && known.ca == issuer.trusted();
        let matches = || key_matches(request.subject, &known).unwrap_or(false);
        if of_this && fits(&known.certificate, request, issuer.clock()) && matches() {
            return Ok(known);
        }
    }
    let mut secret = sign(issuer, request)?;
    // A peer that knows only a retired CA recognises this one by the certificate from that one.
    secret.certificate.push_str(&issuer.cross());
    secret.ca = issuer.trusted();
    save(dir, &secret)?;
    Ok(secret)
}

/// The certificate fits the request, and its end is not near at this time.
fn fits(pem: &str, request: &CertificateRequest<'_>, now: Timestamp) -> bool {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(pem.as_bytes()) else {
        return false;
    };
    let Ok((_, certificate)) = X509Certificate::from_der(&pem.contents) else {
        return false;
    };
    let left = certificate.validity().not_after.timestamp() - now.as_second();
    let Some(names) = hosts_of(&certificate) else {
        return false;
    };
    let validity = certificate.validity();
    let whole = validity.not_after.timestamp() - validity.not_before.timestamp() - EARLY;
    // A certificate that is valid for longer than is requested now is replaced.
    let wanted = request
        .validity
        .and_then(|w| i64::try_from(w.as_secs()).ok());
    // Issued while the clock was ahead: peers do not accept it yet.
    let early = validity.not_before.timestamp() > now.as_second();
    let short = wanted.is_none_or(|wanted| whole <= wanted + 1);
    let usage = certificate.extended_key_usage().ok().flatten();
    let usage = usage.is_some_and(|u| {
        (u.value.client_auth, u.value.server_auth) == (request.client, request.server)
    });
    let subject = certificate.subject().iter_common_name().next();
    let subject = subject.and_then(|s| s.as_str().ok()) == Some(request.subject);
    let same = usage && subject && names == request.hosts.iter().cloned().collect();
    same && !early && short && left > margin(&certificate)
}

/// Host names and addresses in a certificate; none if they cannot be read.
fn hosts_of(certificate: &X509Certificate<'_>) -> Option<BTreeSet<String>> {
    Some(match certificate.subject_alternative_name().ok()? {
        Some(names) => names.value.general_names.iter().filter_map(text).collect(),
        None => BTreeSet::new(),
    })
}

/// Host names and addresses in the certificate in `dir`; none if there is none.
pub fn certificate_hosts(dir: &Path) -> Result<BTreeSet<String>, PkiError> {
    let file = dir.join("tls.crt");
    if !file.exists() {
        return Ok(BTreeSet::new());
    }
    let pem = read(&file)?;
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(pem.as_bytes()) else {
        return Ok(BTreeSet::new());
    };
    let certificate = X509Certificate::from_der(&pem.contents).ok();
    Ok(certificate
        .and_then(|(_, c)| hosts_of(&c))
        .unwrap_or_default())
}

/// Time before its end at which a certificate is renewed, in seconds.
fn margin(certificate: &X509Certificate<'_>) -> i64 {
    let validity = certificate.validity();
    let whole = validity.not_after.timestamp() - validity.not_before.timestamp();
    // A third of a short validity, without the hour before it was issued.
    ((whole - EARLY) / 3).clamp(1, RENEW_DAYS * 24 * 3600)
}

/// When a certificate is due for renewal.
pub fn renewal(pem: &str) -> Option<Timestamp> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
    let at = certificate.validity().not_after.timestamp() - margin(&certificate);
    Timestamp::from_second(at).ok()
}

fn text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|b| IpAddr::from(b).to_string()),
            _ => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|b| IpAddr::from(b).to_string()),
        },
        _ => None,
    }
}
