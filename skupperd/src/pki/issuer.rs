//! CAs: one of our own is made on first need and replaced with an overlap, in which what the old one
//! has signed is still good.
//!
//! In the overlap both ends recognise each other whichever CA they know: those who let others in trust
//! both CAs, and show a certificate of the new CA along with one that the old CA has given to it. The
//! old key is needed for that once and is gone afterwards.

use super::{
    PkiError,
    identity::identify_pem,
    issue::{DAYS, EARLY, RENEW_DAYS, params, read, save},
};
use crate::{
    model::Secret,
    store::{PRIVATE, lock, write_file},
};
use jiff::Timestamp;
use rcgen::{BasicConstraints, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};
use zeroize::Zeroizing;

/// Time in which a CA and the one before it are both trusted, when nothing else is asked for.
pub const OVERLAP: Duration = Duration::from_secs(30 * 24 * 3600);

/// A CA and its key.
#[derive(Clone)]
pub struct Issuer {
    dir: PathBuf,
    name: String,
    certificate: String,
    key: Zeroizing<String>,
    retired: Vec<Retired>,
    /// The user supplied it: it is not ours to replace.
    given: bool,
}

/// A CA that signs nothing any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// Its certificate (PEM).
    pub certificate: String,
    /// What it has signed for the CA after it.
    pub cross: String,
    /// When the CA after it was made, more exactly than that one's certificate can say.
    pub replaced: Timestamp,
    /// When what it has signed stops being good.
    pub until: Timestamp,
}

/// When CAs of our own are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Those that were made before this time are; nothing happens while it lies ahead.
    pub before: Option<Timestamp>,
    /// How long a replaced one is trusted.
    pub overlap: Duration,
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            before: None,
            overlap: OVERLAP,
        }
    }
}

/// A replacement on its way into the files: written first and as a whole, so that a crash between two
/// of them loses neither CA.
#[derive(Serialize, Deserialize)]
struct Step {
    certificate: String,
    key: Zeroizing<String>,
    retired: Vec<Retired>,
}

impl Issuer {
    /// A CA that the user supplied. `dir`: where what it signs is noted.
    pub(super) fn given(dir: PathBuf, name: &str, secret: Secret) -> Self {
        Self {
            dir,
            name: name.to_owned(),
            certificate: secret.certificate,
            key: secret.key,
            retired: Vec::new(),
            given: true,
        }
    }

    /// Its certificate (PEM).
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its certificate, and no key.
    pub fn public(&self) -> Secret {
        Secret {
            ca: self.trusted(),
            certificate: self.certificate.clone(),
            ..Secret::default()
        }
    }

    /// CAs it has replaced, the last one last.
    pub fn retired(&self) -> &[Retired] {
        &self.retired
    }

    /// End of its validity.
    pub fn expires(&self) -> Option<Timestamp> {
        Some(validity(&self.certificate)?.1)
    }

    /// When it, or what it trusts, changes next by itself.
    pub fn changes(&self) -> Option<Timestamp> {
        let month = jiff::SignedDuration::from_secs(RENEW_DAYS * 24 * 3600);
        let expires = self.expires().filter(|_| !self.given);
        let replaced = expires.and_then(|e| e.checked_sub(month).ok());
        self.overlapping().map(|r| r.until).chain(replaced).min()
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn overlapping(&self) -> impl Iterator<Item = &Retired> {
        let now = Timestamp::now();
        self.retired.iter().filter(move |r| r.until > now)
    }

    /// Certificates (PEM) of the CAs whose clients are good: this one, and those in their overlap.
    pub fn trusted(&self) -> String {
        let retired = self.overlapping().map(|r| r.certificate.as_str());
        [self.certificate.as_str()]
            .into_iter()
            .chain(retired)
            .collect()
    }

    /// Certificates (PEM) that lead from this CA to those in their overlap.
    pub(super) fn cross(&self) -> String {
        // The later ones first: a chain is read from its leaf.
        let mut chain: Vec<&str> = self.overlapping().map(|r| r.cross.as_str()).collect();
        chain.reverse();
        chain.concat()
    }

    pub(super) fn signer(&self) -> Result<rcgen::Issuer<'static, KeyPair>, PkiError> {
        let fail = |source| PkiError::Issue {
            name: self.name.clone(),
            source,
        };
        let key = KeyPair::from_pem(&self.key).map_err(fail)?;
        rcgen::Issuer::from_ca_cert_pem(&self.certificate, key).map_err(fail)
    }

    /// It is to be replaced by now.
    fn is_due(&self, rotation: &Rotation) -> bool {
        let now = Timestamp::now();
        let Some(validity) = validity(&self.certificate) else {
            return false;
        };
        let made = match self.retired.last() {
            Some(last) => last.replaced,
            None => validity
                .0
                .saturating_add(jiff::SignedDuration::from_secs(EARLY))
                .unwrap_or(now),
        };
        let asked = rotation
            .before
            .is_some_and(|before| before <= now && made < before);
        let left = validity.1.as_second() - now.as_second();
        // One made while the clock was ahead is not good before that time comes.
        asked || left < RENEW_DAYS * 24 * 3600 || validity.0 > now
    }
}

fn validity(pem: &str) -> Option<(Timestamp, Timestamp)> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let validity = certificate.validity();
    let time = |t: x509_parser::time::ASN1Time| Timestamp::from_second(t.timestamp()).ok();
    Some((time(validity.not_before)?, time(validity.not_after)?))
}

/// The CA in `dir`; made when there is none.
pub fn ensure_issuer(dir: &Path, name: &str) -> Result<Issuer, PkiError> {
    let _turn = turn(dir)?;
    load(dir, name)
}

/// The CA in `dir`, replaced when its time has come.
pub fn rotated_issuer(dir: &Path, name: &str, rotation: &Rotation) -> Result<Issuer, PkiError> {
    let _turn = turn(dir)?;
    let issuer = load(dir, name)?;
    if !issuer.is_due(rotation) {
        return Ok(issuer);
    }
    replace(&issuer, rotation.overlap)?;
    let fresh = load(dir, name)?;
    tracing::warn!(
        issuer = name,
        serial = identify_pem(&fresh.certificate).map(|i| i.serial),
        trusted_until = fresh.retired.last().map(|r| r.until.to_string()),
        "CA is replaced; give remote sites new credentials before the old one's end"
    );
    Ok(fresh)
}

/// The daemon and the command may be the first at the same time: one makes it, the other waits.
fn turn(dir: &Path) -> Result<fs::File, PkiError> {
    let path = dir.join(".lock");
    lock(&path, true).map_err(|source| PkiError::File {
        op: "locking",
        path,
        source,
    })
}

fn load(dir: &Path, name: &str) -> Result<Issuer, PkiError> {
    finish(dir)?;
    let (certificate, key) = (dir.join("tls.crt"), dir.join("tls.key"));
    // The key is written last: without it nothing was signed.
    if !key.exists() {
        let (pem, pair) = make(name)?;
        save(dir, &of_ca(pem, Zeroizing::new(pair.serialize_pem())))?;
    }
    Ok(Issuer {
        certificate: read(&certificate)?,
        key: Zeroizing::new(read(&key)?),
        retired: read_json(&dir.join("retired.json"))?.unwrap_or_default(),
        dir: dir.to_owned(),
        name: name.to_owned(),
        given: false,
    })
}

fn of_ca(certificate: String, key: Zeroizing<String>) -> Secret {
    Secret {
        ca: certificate.clone(),
        certificate,
        key,
        ..Secret::default()
    }
}

fn ca_params(name: &str) -> Result<rcgen::CertificateParams, rcgen::Error> {
    let mut params = params(
        name,
        &[],
        Some(Duration::from_secs(DAYS.unsigned_abs() * 86_400)),
    )?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn make(name: &str) -> Result<(String, KeyPair), PkiError> {
    let fail = |source| PkiError::Issue {
        name: name.to_owned(),
        source,
    };
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fail)?;
    let made = ca_params(name).and_then(|params| params.self_signed(&pair));
    Ok((made.map_err(fail)?.pem(), pair))
}

/// A new CA in the place of `old`, which goes on being trusted for `overlap`.
fn replace(old: &Issuer, overlap: Duration) -> Result<(), PkiError> {
    let fail = |source| PkiError::Issue {
        name: old.name.clone(),
        source,
    };
    let now = Timestamp::now();
    // A name of its own: who does not know it says "unknown issuer" and not "bad signature".
    let name = format!("{} {now:.0}", old.name);
    let (certificate, pair) = make(&name)?;
    let mut params = ca_params(&name).map_err(fail)?;
    params.use_authority_key_identifier_extension = true;
    let cross = params.signed_by(&pair, &old.signer()?).map_err(fail)?.pem();
    let until = now.saturating_add(overlap);
    let mut retired = old.retired.clone();
    retired.push(Retired {
        certificate: old.certificate.clone(),
        cross,
        replaced: now,
        until: until.unwrap_or(Timestamp::MAX),
    });
    let step = Step {
        certificate,
        key: Zeroizing::new(pair.serialize_pem()),
        retired,
    };
    write_json(&journal(&old.dir), &step)
}

fn journal(dir: &Path) -> PathBuf {
    dir.join("rotation.json")
}

/// Puts a replacement in place that was decided on, now or before a crash.
fn finish(dir: &Path) -> Result<(), PkiError> {
    let path = journal(dir);
    let Some(step) = read_json::<Step>(&path)? else {
        return Ok(());
    };
    write_json(&dir.join("retired.json"), &step.retired)?;
    save(dir, &of_ca(step.certificate, step.key))?;
    fs::remove_file(&path).map_err(|source| PkiError::File {
        op: "removing",
        path,
        source,
    })
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, PkiError> {
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

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), PkiError> {
    let fail = |source| PkiError::File {
        op: "writing",
        path: path.to_owned(),
        source,
    };
    let text = serde_json::to_vec(value).map_err(|e| fail(e.into()))?;
    write_file(path, &Zeroizing::new(text), PRIVATE).map_err(fail)
}

#[cfg(test)]
mod tests;
