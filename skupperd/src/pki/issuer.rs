//! CAs of a site: made on first need, replaced when they are due, and trusted for an overlap afterwards.
//!
//! [`ensure_issuer`] and [`rotated_issuer`] are the only ways to one; both hold the lock of its
//! directory, since the daemon and the command may come first at the same time. Files there: `tls.crt`,
//! `tls.key`, `retired.json` (CAs in their overlap), `issued.jsonl` (what it signed).
//!
//! In the overlap peers recognise each other whichever of the two CAs they know: servers trust clients
//! of both, and present a certificate of the new CA together with a cross certificate, which the old CA
//! has signed for the new one. The old key is needed for that once and is removed. A replacement is
//! first written to a journal, `rotation.json`: after a crash the next call finishes it.

mod rotation;

use super::{
    PkiError,
    identity::{identify_pem, issued},
    template::{EARLY, RENEW_DAYS, read},
};
use crate::{
    model::{Secret, SiteSettings},
    store::lock,
};
use jiff::Timestamp;
use rcgen::KeyPair;
use rotation::{begin_rotation, finish_rotation, generate_ca, read_json, save_ca, write_json};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use zeroize::Zeroizing;

/// A CA and its key.
#[derive(Clone)]
pub struct Issuer {
    dir: PathBuf,
    name: String,
    certificate: String,
    key: Zeroizing<String>,
    retired: Vec<RetiredCa>,
    /// The user supplied it: it is never replaced.
    is_supplied: bool,
}

/// A CA that signs no more and is trusted until its overlap ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredCa {
    /// PEM.
    pub certificate: String,
    /// Certificate (PEM) that it has signed for the CA after it.
    pub cross: String,
    /// When the CA after it was made; certificates count in whole seconds.
    pub replaced: Timestamp,
    /// End of the overlap.
    pub until: Timestamp,
}

/// When the site's own CAs are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// CAs made before this time are replaced, once it has come.
    pub before: Option<Timestamp>,
    /// How long a replaced CA is trusted.
    pub overlap: Duration,
}

impl Rotation {
    pub fn of(settings: &SiteSettings) -> Self {
        Self {
            before: settings.rotate_issuers_before,
            overlap: settings.issuer_overlap,
        }
    }
}

impl Default for Rotation {
    fn default() -> Self {
        Self::of(&SiteSettings::default())
    }
}

impl Issuer {
    /// A CA that the user supplied. What it signs is recorded in `dir`.
    pub(super) fn supplied(dir: PathBuf, name: &str, secret: Secret) -> Self {
        Self {
            dir,
            name: name.to_owned(),
            certificate: secret.certificate,
            key: secret.key,
            retired: Vec::new(),
            is_supplied: true,
        }
    }

    /// PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The certificates without the key.
    pub fn public(&self) -> Secret {
        Secret {
            ca: self.trusted(),
            certificate: self.certificate.clone(),
            ..Secret::default()
        }
    }

    /// Whether the user supplied it.
    pub fn is_supplied(&self) -> bool {
        self.is_supplied
    }

    /// CAs that it has replaced, the latest one last.
    pub fn retired(&self) -> &[RetiredCa] {
        &self.retired
    }

    pub fn expires(&self) -> Option<Timestamp> {
        Some(validity(&self.certificate)?.1)
    }

    /// When it is replaced, or an overlap ends: the earlier of the two.
    pub fn next_change(&self) -> Option<Timestamp> {
        let month = jiff::SignedDuration::from_secs(RENEW_DAYS * 24 * 3600);
        let expires = self.expires().filter(|_| !self.is_supplied);
        let replaced = expires.and_then(|e| e.checked_sub(month).ok());
        self.overlapping().map(|r| r.until).chain(replaced).min()
    }

    /// Writes the files of the CA again if its certificate or its key is gone from the disk. Returns
    /// whether it was. What the CA has issued, and so could be revoked, is not known any more if that
    /// file is gone too.
    pub fn restore_if_lost(&self) -> Result<bool, PkiError> {
        let exists = |file: &str| self.dir.join(file).exists();
        if self.is_supplied || (exists("tls.crt") && exists("tls.key")) {
            return Ok(false);
        }
        let _lock = lock_dir(&self.dir)?;
        finish_rotation(&self.dir)?;
        let certificate = self.dir.join("tls.crt");
        if certificate.exists() && (exists("tls.key") || read(&certificate)? != self.certificate) {
            return Ok(false);
        }
        if !self.retired.is_empty() {
            write_json(&self.dir.join("retired.json"), &self.retired)?;
        }
        save_ca(&self.dir, &self.certificate, &self.key)?;
        Ok(true)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn overlapping(&self) -> impl Iterator<Item = &RetiredCa> {
        let now = Timestamp::now();
        self.retired.iter().filter(move |r| r.until > now)
    }

    /// Certificates (PEM) of the CAs whose clients are trusted: this one and those in their overlap.
    pub fn trusted(&self) -> String {
        let retired = self.overlapping().map(|r| r.certificate.as_str());
        [self.certificate.as_str()]
            .into_iter()
            .chain(retired)
            .collect()
    }

    /// Cross certificates (PEM) of the CAs in their overlap, the latest one first.
    pub(super) fn cross(&self) -> String {
        // A chain is read from its leaf.
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

    /// When it was made.
    fn made(&self) -> Option<Timestamp> {
        if let Some(last) = self.retired.last() {
            return Some(last.replaced);
        }
        let (begin, _) = validity(&self.certificate)?;
        let early = jiff::SignedDuration::from_secs(EARLY);
        begin.checked_add(early).ok()
    }

    /// Whether the clock of this host is behind the time from which the CA is valid: the clock is wrong
    /// now, or was when the CA was made.
    pub fn is_ahead_of_clock(&self) -> bool {
        validity(&self.certificate).is_some_and(|(begin, _)| begin > Timestamp::now())
    }

    /// The time, for what the CA signs: that of this host's clock, or when the CA was made if the clock
    /// is behind. A certificate that follows a wrong clock would have expired when the clock is right.
    pub(super) fn clock(&self) -> Timestamp {
        let now = Timestamp::now();
        match self.made() {
            Some(made) if self.is_ahead_of_clock() => made.max(now),
            _ => now,
        }
    }

    fn is_due(&self, rotation: &Rotation) -> bool {
        if self.is_ahead_of_clock() {
            // A clock says nothing about a CA that remote sites trust: it may be right again in a minute,
            // like that of a board without a battery. A CA that no site has yet may be replaced.
            return issued(&self.dir).is_ok_and(|all| all.is_empty()) && self.retired.is_empty();
        }
        let now = Timestamp::now();
        let Some((_, end)) = validity(&self.certificate) else {
            return false;
        };
        let made = self.made().unwrap_or(now);
        let asked = rotation
            .before
            .is_some_and(|before| before <= now && made < before);
        asked || end.as_second() - now.as_second() < RENEW_DAYS * 24 * 3600
    }
}

fn validity(pem: &str) -> Option<(Timestamp, Timestamp)> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let validity = certificate.validity();
    let time = |t: x509_parser::time::ASN1Time| Timestamp::from_second(t.timestamp()).ok();
    Some((time(validity.not_before)?, time(validity.not_after)?))
}

/// The CA in `dir`, made if there is none.
pub fn ensure_issuer(dir: &Path, name: &str) -> Result<Issuer, PkiError> {
    let _lock = lock_dir(dir)?;
    load(dir, name)
}

/// The CA in `dir`, made if there is none, and replaced if it is due.
pub fn rotated_issuer(dir: &Path, name: &str, rotation: &Rotation) -> Result<Issuer, PkiError> {
    let _lock = lock_dir(dir)?;
    let issuer = load(dir, name)?;
    if !issuer.is_due(rotation) {
        return Ok(issuer);
    }
    begin_rotation(&issuer, rotation.overlap)?;
    let fresh = load(dir, name)?;
    tracing::warn!(
        issuer = name,
        serial = identify_pem(&fresh.certificate).map(|i| i.serial),
        trusted_until = fresh.retired.last().map(|r| r.until.to_string()),
        "CA replaced; give remote sites new credentials before the old CA's overlap ends"
    );
    Ok(fresh)
}

/// The daemon and the command may come first at the same time: one makes the CA, the other waits.
fn lock_dir(dir: &Path) -> Result<fs::File, PkiError> {
    let path = dir.join(".lock");
    lock(&path, true).map_err(|source| PkiError::File {
        op: "locking",
        path,
        source,
    })
}

fn load(dir: &Path, name: &str) -> Result<Issuer, PkiError> {
    finish_rotation(dir)?;
    let (certificate, key) = (dir.join("tls.crt"), dir.join("tls.key"));
    // The certificate is written last: without it nothing was signed.
    if !certificate.exists() {
        let (pem, pair) = generate_ca(name)?;
        save_ca(dir, &pem, &Zeroizing::new(pair.serialize_pem()))?;
    }
    // Remote sites trust this CA: another one would cut their links.
    if !key.exists() {
        return Err(PkiError::KeyLost {
            name: name.to_owned(),
            path: key,
        });
    }
    Ok(Issuer {
        certificate: read(&certificate)?,
        key: Zeroizing::new(read(&key)?),
        retired: read_json(&dir.join("retired.json"))?.unwrap_or_default(),
        dir: dir.to_owned(),
        name: name.to_owned(),
        is_supplied: false,
    })
}

#[cfg(test)]
mod tests;
