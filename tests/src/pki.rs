//! CAs and certificates for tests, among them invalid ones.

use rcgen::{CertificateParams, DnType, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use std::time::{Duration, SystemTime};

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key")
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A certificate of an unknown CA, and its key.
pub fn foreign(name: &str) -> (String, String) {
    let (ca_key, key) = (key(), key());
    let mut ca = params("foreign CA");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = Issuer::new(ca, ca_key);
    let certificate = params(name).signed_by(&key, &issuer).expect("signed");
    (certificate.pem(), key.serialize_pem())
}

/// An expired certificate of the given CA, and its key.
pub fn expired(name: &str, ca: &str, ca_key: &str) -> (String, String) {
    let key = key();
    let ca_key = KeyPair::from_pem(ca_key).expect("the CA's key");
    let issuer = Issuer::from_ca_cert_pem(ca, ca_key).expect("the CA");
    let mut params = params(name);
    let day = Duration::from_secs(24 * 3600);
    params.not_before = (SystemTime::now() - day * 10).into();
    params.not_after = (SystemTime::now() - day).into();
    let certificate = params.signed_by(&key, &issuer).expect("signed");
    (certificate.pem(), key.serialize_pem())
}

/// Replaces the certificate and the key in a generated link.
pub fn replace(link: &str, certificate: &str, key: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let line = |line: &str| {
        let text = line.trim_start();
        let indent = &line[..line.len() - text.len()];
        match text.split_once(':') {
            Some(("tls.crt", _)) => format!("{indent}tls.crt: {}", STANDARD.encode(certificate)),
            Some(("tls.key", _)) => format!("{indent}tls.key: {}", STANDARD.encode(key)),
            _ => line.to_owned(),
        }
    };
    link.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// A new CA, and its key in PKCS#8.
pub fn ca(name: &str) -> (String, String) {
    let key = key();
    let mut params = params(name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("signed");
    (certificate.pem(), key.serialize_pem())
}

/// A self-signed certificate of a server for these hosts, as `openssl req -x509` makes it: a CA
/// certificate. And its key.
pub fn self_signed(hosts: &[&str], is_expired: bool) -> (String, String) {
    let key = key();
    let mut params = params("server");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.subject_alt_names = hosts.iter().map(alternative_name).collect();
    let day = Duration::from_secs(24 * 3600);
    params.not_before = (SystemTime::now() - day * 10).into();
    params.not_after = match is_expired {
        true => (SystemTime::now() - day).into(),
        false => (SystemTime::now() + day).into(),
    };
    let certificate = params.self_signed(&key).expect("signed");
    (certificate.pem(), key.serialize_pem())
}

fn alternative_name(host: &&str) -> rcgen::SanType {
    match host.parse() {
        Ok(ip) => rcgen::SanType::IpAddress(ip),
        Err(_) => rcgen::SanType::DnsName((*host).try_into().expect("a name")),
    }
}

/// A server certificate of the given CA for these hosts, and its key.
pub fn server(ca: &(String, String), hosts: &[&str]) -> (String, String) {
    issued(ca, hosts, &[])
}

/// A certificate of the given CA for these hosts with these extended usages, and its key.
pub fn issued(
    (ca, ca_key): &(String, String),
    hosts: &[&str],
    usages: &[rcgen::ExtendedKeyUsagePurpose],
) -> (String, String) {
    let key = key();
    let ca_key = KeyPair::from_pem(ca_key).expect("the CA's key");
    let issuer = Issuer::from_ca_cert_pem(ca, ca_key).expect("the CA");
    let mut params = params("server");
    params.subject_alt_names = hosts.iter().map(alternative_name).collect();
    params.extended_key_usages = usages.to_vec();
    let certificate = params.signed_by(&key, &issuer).expect("signed");
    (certificate.pem(), key.serialize_pem())
}
