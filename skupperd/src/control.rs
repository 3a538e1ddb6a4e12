//! D-Bus: `io.skupper.Skupper1`, with which everything can be done that the command can do.
//!
//! `/io/skupper/Skupper1` has the methods and is an ObjectManager; below it is an object for each
//! resource, `<namespace>/<kind>/<name>`, whose properties follow the resource's status and tell of
//! changes. Work on files runs on threads of its own, a few at a time: no call holds another.

#[cfg(feature = "daemon")]
mod authority;
#[cfg(feature = "daemon")]
mod calls;
#[cfg(feature = "cli")]
mod client;
mod error;
#[cfg(feature = "daemon")]
mod job;
#[cfg(feature = "daemon")]
mod manager;
#[cfg(feature = "daemon")]
mod objects;
mod path;
#[cfg(feature = "daemon")]
mod publish;
#[cfg(feature = "daemon")]
mod serve;
#[cfg(feature = "cli")]
mod systemd;
#[cfg(feature = "daemon")]
mod units;
#[cfg(feature = "cli")]
mod wait;

#[cfg(feature = "cli")]
pub use client::{Absent, Client, Daemon};
pub use error::Error;
#[cfg(feature = "daemon")]
pub use job::restarting;
#[cfg(feature = "daemon")]
pub use serve::{Control, serve};
#[cfg(feature = "cli")]
pub use systemd::{Systemd, UnitState};
#[cfg(feature = "daemon")]
pub use units::units;
#[cfg(feature = "cli")]
pub use wait::{Goal, Waited};

/// Which bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// The host's; polkit judges callers.
    System,
    /// The user's own.
    Session,
}

impl std::fmt::Display for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::Session => "session",
        })
    }
}

/// Well-known name of the service.
pub const NAME: &str = "io.skupper.Skupper1";
/// Path of the service's own object.
pub const PATH: &str = "/io/skupper/Skupper1";
