//! Issuing: server certificates when their names change or they run out, client certificates one for
//! each link.

use super::{
    Issuer, PkiError,
    identity::{identify_pem, note},
};
use crate::{
    model::{Code, Secret},
    store::{PRIVATE, read_text, write_file},
};
use jiff::Timestamp;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::Path,
    time::{Duration, SystemTime},
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

/// Validity of what we issue, as upstream's: 5 years.
pub(super) const DAYS: i64 = 5 * 365;
/// How long before they are made certificates are valid, in seconds.
pub(super) const EARLY: i64 = 3600;
/// A server certificate with less than this left is issued anew.
pub(super) const RENEW_DAYS: i64 = 30;

/// Credentials that were issued, with the CA that signed them.
pub type Issued = Secret;

pub(super) fn read(path: &Path) -> Result<String, PkiError> {
    let wrap = |source| PkiError::File {
        op: "reading",
        path: path.to_owned(),
        source,
    };
    read_text(path).map_err(wrap)
}

pub(super) fn save(dir: &Path, secret: &Secret) -> Result<(), PkiError> {
    // The key last: whoever finds it finds its certificate too.
    for (file, text) in [
        ("ca.crt", secret.ca.as_str()),
        ("tls.crt", secret.certificate.as_str()),
        ("tls.key", secret.key.as_str()),
    ] {
        let path = dir.join(file);
        write_file(&path, text.as_bytes(), PRIVATE).map_err(|source| PkiError::File {
            op: "writing",
            path,
            source,
        })?;
    }
    Ok(())
}

pub(super) fn params(
    name: &str,
    hosts: &[String],
    validity: Option<Duration>,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    let day = Duration::from_secs(24 * 3600);
    // Some time back: a peer's clock may be behind ours.
    params.not_before = (now - Duration::from_secs(EARLY.unsigned_abs())).into();
    let validity = validity.unwrap_or(day * u32::try_from(DAYS).unwrap_or(1));
    params.not_after = (now + validity).into();
    for host in hosts {
        if let Ok(ip) = host.parse::<IpAddr>() {
            params.subject_alt_names.push(SanType::IpAddress(ip));
        }
        // Addresses as names too: upstream's routers look for them there only.
        params
            .subject_alt_names
            .push(SanType::DnsName(host.as_str().try_into()?));
    }
    Ok(params)
}

/// What a certificate is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Common name.
    pub subject: &'a str,
    /// Host names and addresses it is good for.
    pub hosts: &'a [String],
    /// Good for clients.
    pub client: bool,
    /// Good for servers.
    pub server: bool,
    /// How long it is good for; 5 years without.
    pub validity: Option<Duration>,
}

fn sign(issuer: &Issuer, wish: &Wish<'_>) -> Result<Secret, PkiError> {
    let fail = |source| PkiError::Issue {
        name: wish.subject.to_owned(),
        source,
    };
    let ca = issuer.signer()?;
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fail)?;
    let mut params = params(wish.subject, wish.hosts, wish.validity).map_err(fail)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let usages = [
        (wish.server, ExtendedKeyUsagePurpose::ServerAuth),
        (wish.client, ExtendedKeyUsagePurpose::ClientAuth),
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

/// Client credentials for one remote site, which are noted beside the CA.
pub fn issue_client(issuer: &Issuer, name: &str) -> Result<Issued, PkiError> {
    let secret = sign(
        issuer,
        &Wish {
            subject: name,
            hosts: &[],
            client: true,
            server: true,
            validity: None,
        },
    )?;
    if let Some(identity) = identify_pem(&secret.certificate) {
        note(issuer.dir(), &identity)?;
    }
    Ok(secret)
}

/// A text that nobody guesses: 24 characters of 62 are 142 bits.
pub fn new_code() -> Result<Code, PkiError> {
    const CHARACTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut code = Zeroizing::new(String::with_capacity(24));
    let mut bytes = Zeroizing::new([0; 64]);
    while code.len() < 24 {
        aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| PkiError::Randomness)?;
        // Bytes from 248 on would make the first characters likelier than the others.
        let fair = bytes.iter().filter(|b| **b < 248);
        let picked = fair.map(|b| char::from(CHARACTERS[usize::from(*b % 62)]));
        let missing = 24 - code.len();
        code.extend(picked.take(missing));
    }
    Ok(Code::new(code.as_str()))
}

/// The server credentials in `dir`, issued anew when there are none, when they are for other hosts
/// or of another CA, or when they run out. `validity`: of what is issued, 5 years without.
pub fn ensure_server(
    issuer: &Issuer,
    dir: &Path,
    name: &str,
    hosts: &[String],
    validity: Option<Duration>,
) -> Result<Issued, PkiError> {
    let wish = Wish {
        subject: name,
        hosts,
        client: true,
        server: true,
        validity,
    };
    ensure_certificate(issuer, dir, &wish)
}

/// The credentials in `dir`, issued anew when there are none, when they are not as wanted, of another
/// CA, or when they run out.
pub fn ensure_certificate(
    issuer: &Issuer,
    dir: &Path,
    wish: &Wish<'_>,
) -> Result<Issued, PkiError> {
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
        if of_this && serves(&known.certificate, wish) {
            return Ok(known);
        }
    }
    let mut secret = sign(issuer, wish)?;
    // Whoever knows a retired CA only recognises this one by its certificate from that one.
    secret.certificate.push_str(&issuer.cross());
    secret.ca = issuer.trusted();
    save(dir, &secret)?;
    Ok(secret)
}

/// The certificate is as wanted, and valid for a while yet.
fn serves(pem: &str, wish: &Wish<'_>) -> bool {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(pem.as_bytes()) else {
        return false;
    };
    let Ok((_, certificate)) = X509Certificate::from_der(&pem.contents) else {
        return false;
    };
    let left = certificate.validity().not_after.timestamp()
        - x509_parser::time::ASN1Time::now().timestamp();
    let names = match certificate.subject_alternative_name() {
        Ok(Some(names)) => names.value.general_names.iter().filter_map(text).collect(),
        Ok(None) => BTreeSet::new(),
        Err(_) => return false,
    };
    let validity = certificate.validity();
    let whole = validity.not_after.timestamp() - validity.not_before.timestamp() - EARLY;
    // One that is good for longer than is wanted now is not kept until its end.
    let wanted = wish.validity.and_then(|w| i64::try_from(w.as_secs()).ok());
    // Made while the clock was ahead: nobody takes it yet.
    let early = validity.not_before.timestamp() > x509_parser::time::ASN1Time::now().timestamp();
    let short = wanted.is_none_or(|wanted| whole <= wanted + 1);
    let usage = certificate.extended_key_usage().ok().flatten();
    let usage = usage
        .is_some_and(|u| (u.value.client_auth, u.value.server_auth) == (wish.client, wish.server));
    let subject = certificate.subject().iter_common_name().next();
    let subject = subject.and_then(|s| s.as_str().ok()) == Some(wish.subject);
    let same = usage && subject && names == wish.hosts.iter().cloned().collect();
    same && !early && short && left > margin(&certificate)
}

/// Time before its end at which a certificate is renewed, in seconds.
fn margin(certificate: &X509Certificate<'_>) -> i64 {
    let validity = certificate.validity();
    let whole = validity.not_after.timestamp() - validity.not_before.timestamp();
    // Of a short one, which begins an hour early, a third of what it is good for.
    ((whole - EARLY) / 3).clamp(1, RENEW_DAYS * 24 * 3600)
}

/// When a certificate is to be renewed.
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
