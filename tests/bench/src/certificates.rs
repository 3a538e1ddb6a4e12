//! Certificates for the peers: a CA, and one certificate for each end, all ECDSA P-256.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use std::{fs, path::Path};

/// Writes `ca.crt`, and `.crt`, `.key` and `.pem` (both) for `server` and `client`.
pub(crate) fn write(dir: &Path) -> Result<()> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut ca = named("benchmark CA", &[])?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = ca.self_signed(&key)?;
    put(dir, "ca.crt", &certificate.pem())?;
    let issuer = Issuer::new(ca, key);
    for side in ["server", "client"] {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = named(side, &["localhost", "127.0.0.1"])?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &issuer)?.pem();
        let key = key.serialize_pem();
        put(dir, &format!("{side}.crt"), &certificate)?;
        put(dir, &format!("{side}.key"), &key)?;
        put(dir, &format!("{side}.pem"), &format!("{certificate}{key}"))?;
    }
    Ok(())
}

fn named(name: &str, hosts: &[&str]) -> Result<CertificateParams> {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

fn put(dir: &Path, name: &str, text: &str) -> Result<()> {
    let file = dir.join(name);
    fs::write(&file, text).with_context(|| file.display().to_string())
}
