//! Manifests, read as the daemon and the command read them.

mod accepted;
mod malformed;
