//! Certificates: the site's own CA, what it signs, and what rustls needs of them.

mod ends;
mod given;
mod identity;
mod issue;
mod issuer;
mod tls;

pub use ends::{
    ClientCertificate, EndClient, EndServer, connector_config, given_end, listener_config,
};
pub use given::{
    OF_CA, OF_END, Served, check, given_certificate, given_files, given_server, issuer_for,
    server_for,
};
pub use identity::{Identity, canonical, identify, identify_pem, issued};
pub use issue::{Issued, Wish, ensure_certificate, ensure_server, issue_client, new_code, renewal};
pub use issuer::{Issuer, OVERLAP, Retired, Rotation, ensure_issuer, rotated_issuer};
pub use tls::{
    client_config, explain, grant_config, passes_with_time, server_config, token_config,
};

use identity::authority;
use std::path::PathBuf;

/// CA that signs what listeners show when nothing else is named.
pub const SERVICE_CA: &str = "skupper-service-ca";

/// CA that signs link credentials when nothing else is named.
pub const SITE_CA: &str = "skupper-site-ca";

/// CA of the server where tokens are redeemed: apart from that of the links, so that a token stays good
/// when the latter is replaced.
pub const GRANT_CA: &str = "skupper-grant-server-ca";

/// What went wrong with credentials.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{op} {}", path.display())]
    File {
        /// What was being done.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A certificate could not be made.
    #[error("issuing certificate {name}")]
    Issue {
        /// Its name.
        name: String,
        /// Reason.
        #[source]
        source: rcgen::Error,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Randomness,
    /// PEM that is not what it should be.
    #[error("{what} of credentials {name}: {reason}")]
    Malformed {
        /// Which part.
        what: &'static str,
        /// Name of the credentials.
        name: String,
        /// Reason.
        reason: String,
    },
    /// Credentials that the user supplied and that can not do what they are for.
    #[error("credentials {name}: {reason}")]
    Unfit {
        /// Name of the credentials.
        name: String,
        /// Reason.
        reason: String,
    },
    /// rustls does not take them.
    #[error("credentials {name} can not be used")]
    Unusable {
        /// Name of the credentials.
        name: String,
        /// Reason.
        #[source]
        source: rustls::Error,
    },
}
