//! Kinds of resources, and what identifies one.

use super::{API_VERSION, Name};
use std::fmt;

/// A kind of resource, in the order in which resources are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Site,
    Connector,
    Listener,
    MultiKeyListener,
    Link,
    RouterAccess,
    AccessGrant,
    AccessToken,
    Secret,
    SecuredAccess,
    Certificate,
    AttachedConnector,
    AttachedConnectorBinding,
}

impl Kind {
    pub const ALL: [Self; 13] = [
        Self::Site,
        Self::Connector,
        Self::Listener,
        Self::MultiKeyListener,
        Self::Link,
        Self::RouterAccess,
        Self::AccessGrant,
        Self::AccessToken,
        Self::Secret,
        Self::SecuredAccess,
        Self::Certificate,
        Self::AttachedConnector,
        Self::AttachedConnectorBinding,
    ];

    /// As a manifest writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Site => "Site",
            Self::Connector => "Connector",
            Self::Listener => "Listener",
            Self::MultiKeyListener => "MultiKeyListener",
            Self::Link => "Link",
            Self::RouterAccess => "RouterAccess",
            Self::AccessGrant => "AccessGrant",
            Self::AccessToken => "AccessToken",
            Self::Secret => "Secret",
            Self::SecuredAccess => "SecuredAccess",
            Self::Certificate => "Certificate",
            Self::AttachedConnector => "AttachedConnector",
            Self::AttachedConnectorBinding => "AttachedConnectorBinding",
        }
    }

    /// Reads what a manifest writes; case counts.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// API version its manifests have.
    pub fn api_version(self) -> &'static str {
        if self == Self::Secret {
            "v1"
        } else {
            API_VERSION
        }
    }

    /// Its documents hold what others must not see: keys, or codes of tokens.
    pub fn is_confidential(self) -> bool {
        matches!(self, Self::Secret | Self::AccessGrant | Self::AccessToken)
    }

    /// Resources are set in the order of their ranks, and removed in the opposite one:
    /// clients are accepted when links and servers are in place.
    pub fn rank(self) -> u8 {
        match self {
            Self::RouterAccess => 1,
            Self::Link => 2,
            Self::Connector | Self::AttachedConnectorBinding => 3,
            Self::Listener | Self::MultiKeyListener => 4,
            _ => 0,
        }
    }

    /// This version of the daemon acts on it. Others are kept and say so in their status.
    pub fn is_served(self) -> bool {
        matches!(
            self,
            Self::Site
                | Self::Connector
                | Self::Listener
                | Self::MultiKeyListener
                | Self::Link
                | Self::RouterAccess
                | Self::AccessGrant
                | Self::AccessToken
                | Self::Secret
                | Self::Certificate
                | Self::AttachedConnector
                | Self::AttachedConnectorBinding
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Kind and name: what identifies a resource in its namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: Kind,
    pub name: Name,
}

impl Key {
    pub fn new(kind: Kind, name: Name) -> Self {
        Self { kind, name }
    }

    /// Name of the file that commands and the daemon keep it in: `<Kind>-<name>.yaml`.
    pub fn file_name(&self) -> String {
        format!("{}-{}.yaml", self.kind, self.name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}
