//! The D-Bus service `io.skupper.Skupper1`, and its client, which the command uses.
//!
//! The object `/io/skupper/Skupper1` has the methods and is an ObjectManager. Below it is an object for
//! each resource, `<namespace>/<kind>/<name>`, whose properties follow the status of the resource and
//! emit `PropertiesChanged`. Methods that work on files run on blocking threads, a few at a time. Every
//! method that changes something asks [`authority`] first and logs the change with its caller
//! ([`audit`]); every user may read. Neither side decides what a resource means: the service calls
//! [`crate::operate`], and reads the snapshot that the reconcile loop publishes.

#[cfg(feature = "daemon")]
mod audit;
#[cfg(feature = "daemon")]
mod authority;
#[cfg(feature = "daemon")]
mod call_limits;
#[cfg(feature = "daemon")]
mod changes;
#[cfg(feature = "cli")]
mod client;
mod error;
#[cfg(feature = "daemon")]
mod manager;
#[cfg(feature = "daemon")]
mod objects;
mod path;
#[cfg(feature = "daemon")]
mod publish;
#[cfg(feature = "daemon")]
mod requests;
#[cfg(feature = "daemon")]
mod restart;
#[cfg(feature = "daemon")]
mod serve;
#[cfg(feature = "cli")]
mod systemd;
#[cfg(feature = "daemon")]
mod units;
#[cfg(feature = "cli")]
mod wait;

#[cfg(feature = "cli")]
pub use client::{BusConnectError, Daemon, DaemonClient};
pub use error::Error;
#[cfg(feature = "daemon")]
pub use restart::is_restarting;
#[cfg(feature = "daemon")]
pub use serve::{BusService, ControlContext, serve};
#[cfg(feature = "cli")]
pub use systemd::{Systemd, UnitState};
#[cfg(feature = "daemon")]
pub use units::units;
#[cfg(feature = "cli")]
pub use wait::{WaitGoal, WaitOutcome};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// The system bus; polkit decides about callers.
    System,
    /// The session bus of a user.
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

/// Well-known bus name.
pub const NAME: &str = "io.skupper.Skupper1";
/// Path of the object with the methods.
pub const PATH: &str = "/io/skupper/Skupper1";
