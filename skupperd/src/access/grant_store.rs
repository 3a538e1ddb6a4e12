//! The access grants of a namespace: their codes, deadlines and counts of redemptions, in a file.
//!
//! A [`GrantStore`] owns that file, the resources of the grants, and what redeemers are offered. The
//! reconcile loop sets both ([`GrantStore::set_grants`], [`GrantStore::set_offer`]), has them saved
//! ([`GrantStore::save`]) and reads what statuses show ([`GrantStore::info`]); the grant server redeems
//! ([`GrantStore::redeem`]). Saving and redeeming wait for the disk, so they run on threads for blocking
//! work; everything else never does.
//!
//! A grant is created with its resource, is open until its deadline or until all its redemptions are
//! used, and is removed with its resource. Its id, code and deadline stay the same across restarts.
//!
//! A redemption is on disk before its response is sent: a crash never allows more redemptions than the
//! resource does. Whatever can fail is done before that, so a failed redemption does not count.
//!
//! The store opens no sockets, does not limit attempts (the server does), and gives out no certificate
//! without counting it.

use super::link_documents;
use crate::{
    model::{AccessGrant, Code, Endpoint, Link, Name, Settings, check_name},
    pki::{self, Issuer, PkiError},
    store::{PRIVATE, read_text, write_file},
};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::Arc,
};

/// Version of the file. A later one is neither read nor overwritten.
const VERSION: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum GrantStoreError {
    #[error("cannot {op} {}", path.display())]
    File {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} has version {found}; this program supports up to {VERSION}: upgrade it", path.display())]
    Version { path: PathBuf, found: u32 },
    #[error("cannot generate a code")]
    Code(#[from] PkiError),
}

/// Why a redemption is refused. Status and text are those of the Go implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Method,
    /// The body or a header is invalid.
    Body,
    /// The subject is not a name, or one of the site itself.
    Subject,
    /// There is no such grant, or it has expired.
    Unknown,
    UsedUp,
    WrongCode,
    /// Too many wrong codes from this address.
    TooMany,
    /// The site has no link access.
    NoEndpoints,
    /// The issuer is missing or failed to sign.
    NoIssuer,
    /// The redemption could not be recorded.
    Internal,
}

impl Refusal {
    pub fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::Body | Self::Subject => 400,
            Self::Unknown | Self::UsedUp => 404,
            Self::WrongCode => 403,
            Self::TooMany => 429,
            Self::NoEndpoints | Self::NoIssuer => 500,
            Self::Internal => 503,
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            Self::Method => "Only POST is supported",
            Self::Body => "Request body not valid",
            Self::Subject => "Requested subject not valid",
            Self::Unknown => "No such claim",
            Self::UsedUp => "No such access granted",
            Self::WrongCode => "Redemption of access token refused",
            Self::TooMany => "Too many attempts",
            Self::NoEndpoints => "No valid endpoints found for site",
            Self::NoIssuer => "Could not get issuer for requested certificate",
            Self::Internal => "Internal error",
        }
    }
}

/// What a site offers to clients that redeem a token.
#[derive(Clone)]
pub struct LinkOffer {
    /// Where the site accepts links.
    pub endpoints: Vec<Endpoint>,
    /// CAs that verify the site, when they differ from that of the issuer.
    pub authority: Option<String>,
    /// Hosts of the site. No certificate for others has one as its subject: clients that know only
    /// common names would take its holder for the site.
    pub hosts: BTreeSet<String>,
    /// Issuers of credentials by `spec.issuer` of the grants; `None` is the site's own.
    pub issuers: BTreeMap<Option<Name>, Issuer>,
}

/// The state of a grant: everything that its resource does not contain.
#[derive(Clone, Serialize, Deserialize)]
struct StoredGrant {
    id: String,
    code: String,
    expires: Timestamp,
    redemptions: u32,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct GrantsFile {
    version: u32,
    grants: BTreeMap<Name, StoredGrant>,
}

#[derive(Debug)]
pub struct Redemption {
    /// The Link and its credentials, as YAML.
    pub documents: String,
    pub grant: Name,
    pub subject: String,
    pub serial: String,
}

/// A grant as its status shows it.
#[derive(Clone, Debug)]
pub struct GrantInfo {
    /// Last part of the URL.
    pub id: String,
    pub code: Code,
    pub expires: Timestamp,
    pub redemptions: u32,
}

pub struct GrantStore {
    path: PathBuf,
    /// Locked for short: never while the disk is waited for.
    state: Mutex<GrantState>,
    /// Held by who changes the file, from reading the state until the change counts.
    turn: Mutex<()>,
}

struct GrantState {
    /// As it is on disk: a change counts once it is written.
    file: GrantsFile,
    specs: BTreeMap<Name, AccessGrant>,
    offer: LinkOffer,
}

/// The store that the reconcile loop changes and the server redeems from.
pub type SharedGrantStore = Arc<GrantStore>;

impl GrantState {
    /// The grant with this ID, if it can be redeemed with this code now.
    fn find(
        &self,
        id: &str,
        code: &[u8],
        now: Timestamp,
    ) -> Result<(&Name, &AccessGrant), Refusal> {
        let mut grants = self.file.grants.iter();
        let found = grants.find(|(_, stored)| stored.id == id);
        let (name, stored) = found.ok_or(Refusal::Unknown)?;
        let spec = self.specs.get(name).ok_or(Refusal::Unknown)?;
        if now >= stored.expires {
            return Err(Refusal::Unknown);
        }
        if stored.redemptions >= spec.redemptions_allowed {
            return Err(Refusal::UsedUp);
        }
        if !Code::new(stored.code.as_str()).matches(code) {
            return Err(Refusal::WrongCode);
        }
        if self.offer.endpoints.is_empty() {
            return Err(Refusal::NoEndpoints);
        }
        Ok((name, spec))
    }

    /// Whether the file has these grants and no others.
    fn is_saved(&self) -> bool {
        let has_code = |(name, spec): (&Name, &AccessGrant)| {
            let stored = self.file.grants.get(name);
            stored.is_some_and(|stored| {
                let code = spec.code.as_ref();
                code.is_none_or(|code| code.matches(stored.code.as_bytes()))
            })
        };
        self.file.grants.len() == self.specs.len() && self.specs.iter().all(has_code)
    }
}

impl GrantStore {
    pub fn shared(self) -> SharedGrantStore {
        Arc::new(self)
    }

    /// Reads the grants from a file. Without the file there are none.
    pub fn open(path: PathBuf) -> Result<Self, GrantStoreError> {
        let fail = |source| GrantStoreError::File {
            op: "read",
            path: path.clone(),
            source,
        };
        let file: GrantsFile = match read_text(&path) {
            Ok(text) => serde_json::from_str(&text).map_err(|e| fail(e.into()))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => GrantsFile::default(),
            Err(e) => return Err(fail(e)),
        };
        if file.version > VERSION {
            let found = file.version;
            return Err(GrantStoreError::Version { path, found });
        }
        let state = GrantState {
            file,
            specs: BTreeMap::new(),
            offer: LinkOffer {
                endpoints: Vec::new(),
                authority: None,
                hosts: BTreeSet::new(),
                issuers: BTreeMap::new(),
            },
        };
        Ok(Self {
            path,
            state: Mutex::new(state),
            turn: Mutex::default(),
        })
    }

    /// Writes the file, and then takes it for what the store has. The caller holds the turn.
    fn commit(&self, mut file: GrantsFile) -> Result<(), GrantStoreError> {
        file.version = VERSION;
        let fail = |source| GrantStoreError::File {
            op: "write",
            path: self.path.clone(),
            source,
        };
        let text = serde_json::to_string_pretty(&file).map_err(|e| fail(e.into()))?;
        write_file(&self.path, text.as_bytes(), PRIVATE).map_err(fail)?;
        self.state.lock().file = file;
        Ok(())
    }

    /// Sets what clients get from now on.
    pub fn set_offer(&self, offer: LinkOffer) {
        self.state.lock().offer = offer;
    }

    /// Replaces all grants. Those that are gone can be redeemed no more; new ones can once they are
    /// saved.
    pub fn set_grants(&self, wanted: BTreeMap<Name, AccessGrant>) {
        self.state.lock().specs = wanted;
    }

    /// Whether the grants are on disk.
    pub fn is_saved(&self) -> bool {
        self.state.lock().is_saved()
    }

    /// Writes the grants to disk, if they differ. New ones get an id, a code and a deadline.
    pub fn save(
        &self,
        now: Timestamp,
        mut new_id: impl FnMut() -> String,
    ) -> Result<(), GrantStoreError> {
        let _turn = self.turn.lock();
        let (mut file, wanted) = {
            let state = self.state.lock();
            if state.is_saved() {
                return Ok(());
            }
            (state.file.clone(), state.specs.clone())
        };
        file.grants.retain(|name, _| wanted.contains_key(name));
        let mut opened = Vec::new();
        for (name, grant) in &wanted {
            let stored = file.grants.get_mut(name);
            match (stored, &grant.code) {
                (Some(stored), Some(code)) if !code.matches(stored.code.as_bytes()) => {
                    code.reveal().clone_into(&mut stored.code);
                }
                (Some(_), _) => {}
                (None, code) => {
                    let code = code.clone().map_or_else(pki::new_code, Ok)?;
                    // A deadline beyond the calendar is its end.
                    let expires = now
                        .checked_add(grant.expiration_window)
                        .unwrap_or(Timestamp::MAX);
                    let stored = StoredGrant {
                        id: new_id(),
                        code: code.reveal().to_owned(),
                        expires,
                        redemptions: 0,
                    };
                    opened.push((name.clone(), grant.redemptions_allowed, expires));
                    file.grants.insert(name.clone(), stored);
                }
            }
        }
        self.commit(file)?;
        for (grant, redemptions_allowed, expires) in opened {
            tracing::info!(%grant, redemptions_allowed, %expires, "access grant opened");
        }
        Ok(())
    }

    pub fn info(&self, name: &Name) -> Option<GrantInfo> {
        let state = self.state.lock();
        let stored = state.file.grants.get(name)?;
        Some(GrantInfo {
            id: stored.id.clone(),
            code: Code::new(stored.code.as_str()),
            expires: stored.expires,
            redemptions: stored.redemptions,
        })
    }

    /// Whether this grant can be redeemed with this code now.
    pub fn check(&self, id: &str, code: &[u8], now: Timestamp) -> Result<(), Refusal> {
        self.state.lock().find(id, code, now).map(drop)
    }

    /// Redeems the grant with this id. `name`: name for the Link, by default that of the grant;
    /// `subject`: subject for the certificate, by default `name`.
    pub fn redeem(
        &self,
        id: &str,
        code: &[u8],
        name: Option<Name>,
        subject: Option<&str>,
        now: Timestamp,
    ) -> Result<Redemption, Refusal> {
        let _turn = self.turn.lock();
        let (grant, issuer, offer) = {
            let state = self.state.lock();
            let (grant, spec) = state.find(id, code, now)?;
            (grant.clone(), spec.issuer.clone(), state.offer.clone())
        };
        let issuer = offer.issuers.get(&issuer).ok_or(Refusal::NoIssuer)?;
        let name = name.unwrap_or_else(|| grant.clone());
        let subject = subject.filter(|s| !s.is_empty()).unwrap_or(&name);
        if check_name(subject).is_err() || offer.hosts.contains(subject) {
            return Err(Refusal::Subject);
        }
        // Whatever can fail is done before counting.
        let mut secret = pki::issue_client(issuer, pki::Subject::Numbered(subject)).map_err(|error| {
            tracing::error!(grant = %grant, error = crate::telemetry::chain(&error), "cannot issue link certificate");
            Refusal::NoIssuer
        })?;
        if let Some(authority) = &offer.authority {
            secret.ca.clone_from(authority);
        }
        let identity = pki::identify_pem(&secret.certificate);
        let link = Link {
            endpoints: offer.endpoints,
            tls_credentials: name.clone(),
            cost: 1,
            settings: Settings::default(),
        };
        let documents = link_documents(&name, link, secret).map_err(|error| {
            tracing::error!(grant = %grant, %error, "cannot encode link documents");
            Refusal::Internal
        })?;
        let mut file = self.state.lock().file.clone();
        if let Some(stored) = file.grants.get_mut(&grant) {
            stored.redemptions = stored.redemptions.saturating_add(1);
        }
        if let Err(error) = self.commit(file) {
            tracing::error!(grant = %grant, error = crate::telemetry::chain(&error), "cannot record redemption");
            return Err(Refusal::Internal);
        }
        Ok(Redemption {
            documents,
            grant,
            subject: identity.as_ref().map_or("", |i| &i.subject).to_owned(),
            serial: identity.map(|i| i.serial).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests;
