//! Credentials.

use std::fmt;
use zeroize::Zeroizing;

/// Credentials, each part a PEM text; a part that the resource does not have is empty.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    /// Trusted CAs (`ca.crt`).
    pub ca: String,
    /// Certificate chain (`tls.crt`).
    pub certificate: String,
    /// Private key (`tls.key`); wiped from memory when dropped.
    pub key: Zeroizing<String>,
    /// An HTTP proxy (`host`, `port`, and maybe `username` with `password`).
    pub proxy: Option<HttpProxy>,
}

/// An HTTP proxy for links that go out.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpProxy {
    pub host: String,
    pub port: u16,
    /// User name and password.
    pub login: Option<(String, Zeroizing<String>)>,
}

impl fmt::Debug for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Secret {
    /// There is a certificate with its key.
    pub fn has_certificate(&self) -> bool {
        !self.certificate.is_empty() && !self.key.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("ca", &Length(self.ca.len()))
            .field("certificate", &Length(self.certificate.len()))
            .field(
                "key",
                if self.key.is_empty() {
                    &"none"
                } else {
                    &"hidden"
                },
            )
            .finish()
    }
}

struct Length(usize);

impl fmt::Debug for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}
