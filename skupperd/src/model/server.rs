//! Where a connector's server is: a host, a Unix socket of this host, or what a selector finds.

use super::{Host, Selector, SyntaxError};
use serde::{Serialize, Serializer};
use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// What the path of a Unix socket begins with where a host would be.
const UNIX: &str = "unix:";
/// Longest path of a Unix socket: `sun_path` of unix(7) with the zero behind it.
const MAX_PATH: usize = 107;

/// Host of a server: an address or a name, or `unix:` and the path of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerHost {
    /// An address or a name.
    Network(Host),
    /// The path of a Unix socket, absolute.
    Unix(PathBuf),
    /// Servers of this host, as they come and go.
    Workload(Selector),
}

impl ServerHost {
    /// The path, of a Unix socket.
    pub fn unix(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Network(_) | Self::Workload(_) => None,
        }
    }

    /// What selects its servers.
    pub fn selector(&self) -> Option<&Selector> {
        match self {
            Self::Workload(selector) => Some(selector),
            Self::Network(_) | Self::Unix(_) => None,
        }
    }
}

impl FromStr for ServerHost {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let Some(path) = text.strip_prefix(UNIX) else {
            return Host::new(text).map(Self::Network);
        };
        let sound = path.starts_with('/') && !path.ends_with('/') && !path.contains('\0');
        if sound && path.len() <= MAX_PATH {
            Ok(Self::Unix(path.into()))
        } else {
            Err(SyntaxError::UnixPath(MAX_PATH))
        }
    }
}

impl fmt::Display for ServerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(host) => f.write_str(host),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            Self::Workload(selector) => selector.fmt(f),
        }
    }
}

impl Serialize for ServerHost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_socket_is_a_host_of_a_server() {
        let good: ServerHost = "unix:/run/app/app.sock".parse().unwrap();
        assert_eq!(good.unix(), Some(Path::new("/run/app/app.sock")));
        assert_eq!(good.to_string(), "unix:/run/app/app.sock");
        let host: ServerHost = "localhost".parse().unwrap();
        assert_eq!(
            (host.unix(), host.to_string().as_str()),
            (None, "localhost")
        );
        let long = format!("unix:/{}", "a".repeat(MAX_PATH));
        for bad in [
            "unix:",
            "unix:a",
            "unix:./a",
            "unix:/a/",
            "unix:/a\0b",
            "unix:@a",
            &long,
        ] {
            let error = bad.parse::<ServerHost>().unwrap_err();
            assert_eq!(error, SyntaxError::UnixPath(MAX_PATH), "{bad}");
        }
    }
}
