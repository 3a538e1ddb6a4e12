//! Syntax of names, hosts and ports: one set of rules for command and daemon, and types whose values
//! follow them.

use serde::{Deserialize, Serialize};
use std::{borrow::Borrow, fmt, net::IpAddr, ops::Deref, str::FromStr};

const NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])*(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])*)*$";
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Longest name of a resource: `AttachedConnectorBinding-<name>.yaml` is a file name, of 255 bytes
/// at most.
const MAX_NAME: usize = 225;
/// Longest routing key and host name (RFC 1035).
const MAX_ROUTING_KEY: usize = 253;
/// Longest label (RFC 1123).
const MAX_LABEL: usize = 63;
/// Longest identity of a site; Kubernetes gives 36 characters.
const MAX_SITE_ID: usize = 128;

/// Why a text is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    #[error("value must not be empty")]
    Empty,
    #[error("value is longer than {0} characters")]
    TooLong(usize),
    #[error("value does not match this regular expression: {0}")]
    Pattern(&'static str),
    #[error("a valid IP address or hostname is expected")]
    Host,
    #[error("a routing key has no white space, and does not begin with _ $ / amqp: or mc/")]
    RoutingKey,
    #[error("unix: must be followed by an absolute path of at most {0} bytes")]
    UnixPath(usize),
    #[error(
        "not a selector of this platform: unit=NAME, slice=NAME, user-unit=[UID:]NAME, cgroup=/PATH, \
         exe=/PATH or uid=NUMBER"
    )]
    Selector,
    #[error("only letters, digits and the characters - . _ are allowed")]
    SiteId,
    #[error("{0} is not a port (1..65535)")]
    Port(i64),
}

fn label(text: &str) -> bool {
    let edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(edge)
        && bytes.last().copied().is_some_and(edge)
        && bytes.iter().all(|c| edge(*c) || *c == b'-')
}

fn length(text: &str, max: usize) -> Result<(), SyntaxError> {
    match text.len() {
        0 => Err(SyntaxError::Empty),
        n if n > max => Err(SyntaxError::TooLong(max)),
        _ => Ok(()),
    }
}

fn labels(text: &str) -> Result<(), SyntaxError> {
    if text.split('.').all(label) {
        Ok(())
    } else {
        Err(SyntaxError::Pattern(NAME))
    }
}

/// Names of resources and credentials.
pub fn check_name(text: &str) -> Result<(), SyntaxError> {
    length(text, MAX_NAME)?;
    labels(text)
}

/// Skupper's command asks for a name, its manifests for any text: it is an address of the network.
fn check_routing_key(text: &str) -> Result<(), SyntaxError> {
    length(text, MAX_ROUTING_KEY)?;
    // Routers take addresses that begin so for their own, or cut the beginning off.
    let reserved = ["_", "$", "/", "amqp:", "mc/"];
    let is_reserved = reserved.iter().any(|start| text.starts_with(start));
    if is_reserved || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(SyntaxError::RoutingKey);
    }
    Ok(())
}

pub fn check_namespace(text: &str) -> Result<(), SyntaxError> {
    length(text, MAX_LABEL)?;
    if label(text) {
        Ok(())
    } else {
        Err(SyntaxError::Pattern(LABEL))
    }
}

/// Hosts: IP addresses, or names in lower case.
pub fn check_host(text: &str) -> Result<(), SyntaxError> {
    if text.is_empty() {
        return Err(SyntaxError::Empty);
    }
    if text.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let part = |text: &str| {
        // No double hyphen, except in the prefix of international names (xn--).
        let plain = text.strip_prefix("xn--").unwrap_or(text);
        text.len() <= MAX_LABEL && label(text) && label(plain) && !plain.contains("--")
    };
    let name = text.len() <= MAX_ROUTING_KEY && text.split('.').all(part);
    // All digits and dots is an address, and then a malformed one.
    let address_like = text.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    if name && !address_like {
        Ok(())
    } else {
        Err(SyntaxError::Host)
    }
}

fn check_site_id(text: &str) -> Result<(), SyntaxError> {
    length(text, MAX_SITE_ID)?;
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"-._".contains(&c);
    if text.bytes().all(allowed) {
        Ok(())
    } else {
        Err(SyntaxError::SiteId)
    }
}

/// A port from an integer of any size.
pub fn parse_port(port: i64) -> Result<u16, SyntaxError> {
    u16::try_from(port)
        .ok()
        .filter(|port| *port > 0)
        .ok_or(SyntaxError::Port(port))
}

macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes a text that follows the rules.
            pub fn new(text: impl Into<String>) -> Result<Self, SyntaxError> {
                let text = text.into();
                $check(&text)?;
                Ok(Self(text))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = SyntaxError;

            fn from_str(text: &str) -> Result<Self, SyntaxError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = SyntaxError;

            fn try_from(text: String) -> Result<Self, SyntaxError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }
    };
}

checked_text! {
    Namespace, check_namespace
}
checked_text! {
    /// Name of a resource or of credentials.
    Name, check_name
}
checked_text! {
    /// Name that ties listeners to connectors all over the network.
    RoutingKey, check_routing_key
}
checked_text! {
    SiteId, check_site_id
}
checked_text! {
    /// IP address, or host name in lower case.
    Host, check_host
}

impl Namespace {
    /// The namespace when none is named.
    pub fn default_namespace() -> Self {
        Self(super::DEFAULT_NAMESPACE.to_owned())
    }
}

impl Host {
    /// The address, when it is one and no name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self(ip.to_string())
    }
}

#[cfg(test)]
mod tests;
