//! The grants of a site, and who gets what for a code. No sockets here.

use super::link_documents;
use crate::{
    model::{AccessGrant, Code, Endpoint, Link, Name},
    pki::{self, Issuer, PkiError},
    store::{PRIVATE, read_text, write_file},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io, path::PathBuf};

/// Version of the file of grants; a later one is not touched.
const VERSION: u32 = 1;

/// What went wrong with the grants themselves.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The file of grants.
    #[error("{op} {}", path.display())]
    File {
        /// What was being done.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// Reason.
        #[source]
        source: io::Error,
    },
    /// The file was written by a later version.
    #[error("{} is of version {found}, and this program knows {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// No code could be made.
    #[error("making a code")]
    Code(#[from] PkiError),
}

/// Why a redemption is refused. Status and text are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not a POST.
    Method,
    /// The body does not read as a code.
    Body,
    /// Nobody knows the grant, or it is over.
    Unknown,
    /// All its redemptions were used.
    UsedUp,
    /// The wrong code.
    WrongCode,
    /// Too many wrong codes from there.
    TooMany,
    /// The site has no way in for links.
    NoEndpoints,
    /// The issuer could not be used.
    NoIssuer,
    /// The redemption could not be recorded.
    Internal,
}

impl Refusal {
    /// HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::Body => 400,
            Self::Unknown | Self::UsedUp => 404,
            Self::WrongCode => 403,
            Self::TooMany => 429,
            Self::NoEndpoints | Self::NoIssuer => 500,
            Self::Internal => 503,
        }
    }

    /// Body of the answer.
    pub fn text(self) -> &'static str {
        match self {
            Self::Method => "Only POST is supported",
            Self::Body => "Request body not valid",
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

/// What the site offers to whoever redeems a token.
#[derive(Clone)]
pub struct Offer {
    /// Where links come in.
    pub endpoints: Vec<Endpoint>,
    /// CAs by which the site is recognised, when they are not that of the issuer.
    pub authority: Option<String>,
    /// Issuers of credentials: by the grant's name for it, and the site's own.
    pub issuers: BTreeMap<Option<Name>, Issuer>,
}

/// A grant as it is kept: everything but what its resource says.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    id: String,
    code: String,
    expires: Timestamp,
    redemptions: u32,
}

#[derive(Default, Serialize, Deserialize)]
struct File {
    version: u32,
    grants: BTreeMap<Name, Kept>,
}

/// What a redemption gives.
#[derive(Debug)]
pub struct Redeemed {
    /// The Link and its credentials.
    pub documents: String,
    /// Of which grant.
    pub grant: Name,
    /// Whom the certificate names.
    pub subject: String,
    /// Its serial number.
    pub serial: String,
}

/// What can be told of a grant.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Last part of its URL.
    pub id: String,
    /// Its code.
    pub code: Code,
    /// End of its validity.
    pub expires: Timestamp,
    /// Successful redemptions so far.
    pub redemptions: u32,
}

/// The grants of a site. A redemption is on disk before its answer leaves, so that a count is never
/// passed, however the daemon ends.
pub struct Desk {
    path: PathBuf,
    file: File,
    /// What the resources say.
    specs: BTreeMap<Name, AccessGrant>,
    offer: Offer,
}

impl Desk {
    /// The grants that were kept in a file; none when there is no such file.
    pub fn open(path: PathBuf) -> Result<Self, DeskError> {
        let fail = |source| DeskError::File {
            op: "reading",
            path: path.clone(),
            source,
        };
        let file: File = match read_text(&path) {
            Ok(text) => serde_json::from_str(&text).map_err(|e| fail(e.into()))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => File::default(),
            Err(e) => return Err(fail(e)),
        };
        if file.version > VERSION {
            let found = file.version;
            return Err(DeskError::Version { path, found });
        }
        Ok(Self {
            path,
            file,
            specs: BTreeMap::new(),
            offer: Offer {
                endpoints: Vec::new(),
                authority: None,
                issuers: BTreeMap::new(),
            },
        })
    }

    fn save(&mut self) -> Result<(), DeskError> {
        self.file.version = VERSION;
        let fail = |source| DeskError::File {
            op: "writing",
            path: self.path.clone(),
            source,
        };
        let text = serde_json::to_string_pretty(&self.file).map_err(|e| fail(e.into()))?;
        write_file(&self.path, text.as_bytes(), PRIVATE).map_err(fail)
    }

    /// What redeemers get from now on.
    pub fn offer(&mut self, offer: Offer) {
        self.offer = offer;
    }

    /// Makes the grants these, and no others. New ones get a code and a deadline.
    pub fn set(
        &mut self,
        wanted: BTreeMap<Name, AccessGrant>,
        now: Timestamp,
        mut new_id: impl FnMut() -> String,
    ) -> Result<(), DeskError> {
        let before = self.file.grants.len();
        self.file.grants.retain(|name, _| wanted.contains_key(name));
        let mut changed = self.file.grants.len() != before;
        for (name, grant) in &wanted {
            let kept = self.file.grants.get_mut(name);
            match (kept, &grant.code) {
                (Some(kept), Some(code)) if !code.matches(kept.code.as_bytes()) => {
                    code.reveal().clone_into(&mut kept.code);
                    changed = true;
                }
                (Some(_), _) => {}
                (None, code) => {
                    let code = code.clone().map_or_else(pki::new_code, Ok)?;
                    // A window that no calendar holds ends with it.
                    let expires = now
                        .checked_add(grant.expiration_window)
                        .unwrap_or(Timestamp::MAX);
                    let kept = Kept {
                        id: new_id(),
                        code: code.reveal().to_owned(),
                        expires,
                        redemptions: 0,
                    };
                    tracing::info!(
                        grant = %name,
                        redemptions_allowed = grant.redemptions_allowed,
                        expires = %expires,
                        "access grant is open"
                    );
                    self.file.grants.insert(name.clone(), kept);
                    changed = true;
                }
            }
        }
        self.specs = wanted;
        if changed { self.save() } else { Ok(()) }
    }

    /// What can be told of a grant.
    pub fn seen(&self, name: &Name) -> Option<Seen> {
        let kept = self.file.grants.get(name)?;
        Some(Seen {
            id: kept.id.clone(),
            code: Code::new(kept.code.as_str()),
            expires: kept.expires,
            redemptions: kept.redemptions,
        })
    }

    /// Redeems the grant of that id. `name`: of the token, which becomes that of the Link; `subject`:
    /// who asks, which becomes that of the certificate.
    pub fn redeem(
        &mut self,
        id: &str,
        code: &[u8],
        name: Option<Name>,
        subject: Option<&str>,
        now: Timestamp,
    ) -> Result<Redeemed, Refusal> {
        let found = self.file.grants.iter().find(|(_, kept)| kept.id == id);
        let (grant, kept) = found.ok_or(Refusal::Unknown)?;
        let spec = self.specs.get(grant).ok_or(Refusal::Unknown)?;
        let grant = grant.clone();
        if now >= kept.expires {
            return Err(Refusal::Unknown);
        }
        if kept.redemptions >= spec.redemptions_allowed {
            return Err(Refusal::UsedUp);
        }
        if !Code::new(kept.code.as_str()).matches(code) {
            return Err(Refusal::WrongCode);
        }
        if self.offer.endpoints.is_empty() {
            return Err(Refusal::NoEndpoints);
        }
        let issuer = self.offer.issuers.get(&spec.issuer);
        let issuer = issuer.ok_or(Refusal::NoIssuer)?;
        let name = name.unwrap_or_else(|| grant.clone());
        let subject = subject.filter(|s| !s.is_empty()).unwrap_or(&name);
        let subject = subject.to_owned();
        // Everything that can fail comes before the count.
        let mut secret = pki::issue_client(issuer, &subject).map_err(|error| {
            tracing::error!(grant = %grant, error = crate::telemetry::chain(&error), "issuing");
            Refusal::NoIssuer
        })?;
        if let Some(authority) = &self.offer.authority {
            secret.ca.clone_from(authority);
        }
        let serial = pki::identify_pem(&secret.certificate).map(|i| i.serial);
        let link = Link {
            endpoints: self.offer.endpoints.clone(),
            tls_credentials: name.clone(),
            cost: 1,
            settings: BTreeMap::new(),
        };
        let documents = link_documents(&name, link, secret).map_err(|error| {
            tracing::error!(grant = %grant, %error, "writing the answer");
            Refusal::Internal
        })?;
        self.count(&grant, 1);
        if let Err(error) = self.save() {
            tracing::error!(grant = %grant, error = crate::telemetry::chain(&error), "redemption");
            self.count(&grant, -1);
            return Err(Refusal::Internal);
        }
        Ok(Redeemed {
            documents,
            grant,
            subject,
            serial: serial.unwrap_or_default(),
        })
    }

    fn count(&mut self, grant: &Name, by: i32) {
        if let Some(kept) = self.file.grants.get_mut(grant) {
            kept.redemptions = kept.redemptions.saturating_add_signed(by);
        }
    }
}

#[cfg(test)]
mod tests;
