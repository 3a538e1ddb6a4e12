//! D-Bus: `io.skupper.Skupper1`, with which everything can be done that the command can do.
//!
//! `/io/skupper/Skupper1` has the methods and is an ObjectManager; below it is an object for each
//! resource, `<namespace>/<kind>/<name>`, whose properties follow the resource's status and tell of
//! changes. Work on files runs on threads of its own, a few at a time: no call holds another.

mod authority;
mod error;
mod manager;
mod objects;
mod publish;
mod serve;

pub use error::Error;
pub use serve::{Bus, Control, serve};

/// Well-known name of the service.
pub const NAME: &str = "io.skupper.Skupper1";
/// Path of the service's own object.
pub const PATH: &str = "/io/skupper/Skupper1";
