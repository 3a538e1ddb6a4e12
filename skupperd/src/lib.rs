//! skupperd: Skupper sites for plain Linux hosts.

pub mod amqp;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod daemon;
pub mod link;
pub mod manifest;
pub mod model;
pub mod pki;
pub mod plan;
pub mod proxy;
pub mod reconcile;
pub mod router;
pub mod steer;
pub mod store;
pub mod sys;
pub mod telemetry;
