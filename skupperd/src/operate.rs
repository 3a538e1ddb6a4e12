//! What people do with a namespace, whichever way they ask: by the command on files, or over D-Bus.
//! The texts of refusals are the same for both.

mod adopt;
mod bundle;
mod change;
mod edit;
mod issuer;
mod link;
mod revoke;
mod token;

pub use adopt::adopted;
pub use bundle::{Bundle, bundle};
pub use change::{check, create, edge_without_access, merge, update};
pub use edit::{
    applied, apply, delete, documents, find, namespaces, remove, remove_namespace, wanted, write,
};
pub use issuer::{issuers, rotate};
pub use link::{LinkWish, generate as generate_link};
pub use revoke::{Revoked, revoke};
pub use token::{GrantWish, grant, granted, redeem, site, token};

use crate::{pki::PkiError, store::StoreError, telemetry::chain};

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// What was asked for makes no sense: a line for each thing that is wrong. Nothing was changed.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
    /// It could not be done.
    #[error("{0}")]
    Failed(String),
}

type Outcome<T> = Result<T, OperateError>;

fn invalid(text: impl Into<String>) -> OperateError {
    OperateError::Invalid(vec![text.into()])
}

impl From<StoreError> for OperateError {
    fn from(error: StoreError) -> Self {
        match error {
            // What would be refused when read.
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
