//! Certificates: the CAs of a site, the credentials that they sign, and rustls configurations.
//!
//! The daemon and the command call this room to get credentials: [`issuer_for`] and [`server_for`] take
//! those that the user supplied ([`supplied`]) and otherwise issue them ([`issue`]) with a CA of the
//! site's own ([`issuer`]), which is made on first need, replaced when it is due and then trusted for an
//! overlap. Every client certificate is recorded ([`identity`]), so that it can be
//! revoked. [`tls`] makes configurations for links and token redemption, [`service_tls`] those for
//! listeners and connectors.
//!
//! Keys are ECDSA P-256, files are written with mode 0600 by [`crate::store::write_file`]. No network,
//! no timers: callers ask [`renewal`] when to come back.

mod client;
mod identity;
mod issue;
mod issuer;
mod server_verifier;
mod service_tls;
mod supplied;
mod template;
mod tls;

pub use client::check_client;
pub use identity::{CertificateIdentity, identify, identify_pem, issued};
pub use issue::{
    CertificateRequest, Subject, certificate_hosts, ensure_certificate, ensure_server,
    issue_client, new_code, renewal,
};
pub use issuer::{Issuer, RetiredCa, Rotation, ensure_issuer, rotated_issuer};
pub use service_tls::{
    ServiceTlsClient, ServiceTlsServer, connector_config, listener_config, service_credentials,
};
pub use supplied::{
    CA_FILES, END_ENTITY_FILES, ServerCredentials, check, issuer_for, server_for,
    supplied_certificate, supplied_credentials, supplied_issuer, supplied_server,
};
pub use tls::{
    client_config, explain, grant_config, may_be_clock_skew, server_config, token_config,
};

use identity::authority;
use std::path::PathBuf;

/// CA that signs the server certificates of listeners that name no other.
pub const SERVICE_CA: &str = "skupper-service-ca";

/// CA that signs link credentials that name no other.
pub const SITE_CA: &str = "skupper-site-ca";

/// CA of the server where tokens are redeemed. It is not that of the links, so that a token stays valid
/// when the latter is replaced.
pub const GRANT_CA: &str = "skupper-grant-server-ca";

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{op} {}", path.display())]
    File {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("issuing certificate {name}")]
    Issue {
        name: String,
        #[source]
        source: rcgen::Error,
    },
    /// A CA that remote sites may trust has lost its key.
    #[error(
        "the key of CA {name} is missing: restore {} from a backup, or remove its directory and give \
         linked sites new tokens",
        path.display()
    )]
    KeyLost { name: String, path: PathBuf },
    #[error("the system's random number generator failed")]
    Randomness,
    /// A part of the credentials is not valid PEM.
    #[error("{what} of credentials {name}: {reason}")]
    Malformed {
        /// Such as `tls.key`.
        what: &'static str,
        name: String,
        reason: String,
    },
    /// The user supplied credentials that do not fit their purpose.
    #[error("credentials {name}: {reason}")]
    Unfit { name: String, reason: String },
    /// rustls refuses the credentials.
    #[error("cannot use credentials {name}")]
    Unusable {
        name: String,
        #[source]
        source: rustls::Error,
    },
}
