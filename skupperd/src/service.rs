//! Services as workers see them: what a listener or connector does to connections beside carrying
//! them, and the snapshot of a site that it is part of.

pub mod allowed;
pub mod failures;
pub mod keys;
pub mod origin;
pub mod policy;
pub mod tls;
pub mod view;
