//! The files of a CA, and its replacement: a journal that is written first and then carried out.

use super::{Issuer, RetiredCa};
use crate::{
    pki::{
        PkiError,
        template::{DAYS, params, read, save_files},
    },
    store::{PRIVATE, remove_file, write_file},
};
use jiff::Timestamp;
use rcgen::{BasicConstraints, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use zeroize::Zeroizing;

/// The journal of a replacement, written before any other file, so that a crash loses neither CA.
#[derive(Serialize, Deserialize)]
pub(super) struct RotationJournal {
    pub(super) certificate: String,
    key: Zeroizing<String>,
    retired: Vec<RetiredCa>,
}

/// Writes the files of a CA. One that is there is replaced only by the journal of a rotation, which is
/// carried out again after a crash; so the order matters for a new one alone: its certificate is last.
pub(super) fn save_ca(dir: &Path, certificate: &str, key: &str) -> Result<(), PkiError> {
    let files = [
        ("tls.key", key),
        ("ca.crt", certificate),
        ("tls.crt", certificate),
    ];
    save_files(dir, files)
}

pub(super) fn ca_params(name: &str) -> Result<rcgen::CertificateParams, rcgen::Error> {
    let validity = Duration::from_secs(DAYS.unsigned_abs() * 86_400);
    let mut params = params(name, &[], Some(validity), SystemTime::now())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

pub(super) fn generate_ca(name: &str) -> Result<(String, KeyPair), PkiError> {
    let fail = |source| PkiError::Issue {
        name: name.to_owned(),
        source,
    };
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fail)?;
    let made = ca_params(name).and_then(|params| params.self_signed(&pair));
    Ok((made.map_err(fail)?.pem(), pair))
}

/// Writes the journal of a new CA in the place of `old`, which stays trusted for `overlap`.
pub(super) fn begin_rotation(old: &Issuer, overlap: Duration) -> Result<(), PkiError> {
    let fail = |source| PkiError::Issue {
        name: old.name.clone(),
        source,
    };
    let now = Timestamp::now();
    // A new name, so that a peer that does not know it reports "unknown issuer", not "bad signature".
    let name = format!("{} {now:.0}", old.name);
    let (certificate, pair) = generate_ca(&name)?;
    let mut params = ca_params(&name).map_err(fail)?;
    params.use_authority_key_identifier_extension = true;
    let cross = params.signed_by(&pair, &old.signer()?).map_err(fail)?.pem();
    // By a clock that is behind, it would be over when the clock is right again.
    let until = old.clock().saturating_add(overlap);
    let mut retired = old.retired.clone();
    retired.push(RetiredCa {
        certificate: old.certificate.clone(),
        cross,
        replaced: now,
        until: until.unwrap_or(Timestamp::MAX),
    });
    let journal = RotationJournal {
        certificate,
        key: Zeroizing::new(pair.serialize_pem()),
        retired,
    };
    write_json(&journal_file(&old.dir), &journal)
}

pub(super) fn journal_file(dir: &Path) -> PathBuf {
    dir.join("rotation.json")
}

/// Carries out the replacement in the journal, begun just now or before a crash.
pub(super) fn finish_rotation(dir: &Path) -> Result<(), PkiError> {
    let path = journal_file(dir);
    let Some(journal) = read_json::<RotationJournal>(&path)? else {
        return Ok(());
    };
    write_json(&dir.join("retired.json"), &journal.retired)?;
    save_ca(dir, &journal.certificate, &journal.key)?;
    remove_file(&path).map_err(|source| PkiError::File {
        op: "removing",
        path,
        source,
    })
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, PkiError> {
    let fail = |source| PkiError::File {
        op: "reading",
        path: path.to_owned(),
        source,
    };
    if !path.exists() {
        return Ok(None);
    }
    let text = Zeroizing::new(read(path)?);
    let value = serde_json::from_str(&text);
    value.map(Some).map_err(|e| fail(io::Error::from(e)))
}

pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), PkiError> {
    let fail = |source| PkiError::File {
        op: "writing",
        path: path.to_owned(),
        source,
    };
    let text = serde_json::to_vec(value).map_err(|e| fail(e.into()))?;
    write_file(path, &Zeroizing::new(text), PRIVATE).map_err(fail)
}
