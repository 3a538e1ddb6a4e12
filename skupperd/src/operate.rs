//! Operations on a namespace that the command and the D-Bus service share, with the same error texts.
//!
//! The command calls them where no daemon is on the bus, and [`crate::control`] for its callers, on
//! threads for blocking work. They work on the files of the namespace, with the lock of an
//! [`Editor`](crate::store::Editor) for every change: the daemon notices changed files and applies them.
//!
//! Before a resource is written it is checked against the others of its namespace. A change of several
//! resources is done completely or not at all.
//!
//! They check no permissions (the D-Bus service does), call no daemon, and print nothing. Only
//! [`redeem()`] uses the network.

mod adopt;
mod bundle;
mod change;
mod documents;
mod issuer;
mod link;
mod resources;
mod revoke;
mod token;

pub use adopt::adopt;
pub use bundle::{Bundle, bundle};
pub use change::{check, create, edge_without_access, merge, update, without_positions};
pub use documents::{NOT_RUNNING, documents, documents_with, input_errors};
pub use issuer::{issuers, rotate};
pub use link::{LinkOptions, generate as generate_link};
pub use resources::{
    AppliedResource, ApplyEffect, Deleter, Existing, ParsedText, apply, delete, desired, find,
    namespaces, parse_documents, remove, remove_namespace, write,
};
pub use revoke::{RevokedCertificate, revoke};
pub use token::{GrantOptions, grant, grant_state, redeem, site, token};

use crate::{pki::PkiError, store::StoreError, telemetry::chain};

#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// Invalid arguments or resources, one line for each error. Nothing was changed.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
    #[error("{0}")]
    Failed(String),
}

type OperateResult<T> = Result<T, OperateError>;

/// Error lines of what needs a site, where the namespace has none.
pub const NO_SITE: [&str; 2] = [
    "there is no active site in this namespace",
    "Create one with: skupper site create NAME",
];

fn no_site() -> OperateError {
    OperateError::Invalid(NO_SITE.map(str::to_owned).to_vec())
}

fn invalid(text: impl Into<String>) -> OperateError {
    OperateError::Invalid(vec![text.into()])
}

impl From<StoreError> for OperateError {
    fn from(error: StoreError) -> Self {
        match error {
            // The daemon would refuse the resource when it reads it.
            StoreError::Refused(error) => invalid(error.to_string()),
            other => Self::Failed(chain(&other)),
        }
    }
}

impl From<PkiError> for OperateError {
    fn from(error: PkiError) -> Self {
        Self::Failed(chain(&error))
    }
}

impl From<serde_json::Error> for OperateError {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(chain(&error))
    }
}

impl From<serde_yaml::Error> for OperateError {
    fn from(error: serde_yaml::Error) -> Self {
        Self::Failed(chain(&error))
    }
}

impl From<crate::model::SyntaxError> for OperateError {
    fn from(error: crate::model::SyntaxError) -> Self {
        invalid(error.to_string())
    }
}
