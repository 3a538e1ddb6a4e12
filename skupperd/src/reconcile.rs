//! Makes what runs match the resources on disk, and reports the status of each.
//!
//! [`run`] is the loop: it waits for changes of files, of the network and of servers, and has every
//! [`namespace`] synced. A namespace loads its resources, makes the desired state of them
//! ([`desired`]), compares it with what was applied ([`plan`]), carries out the steps, and sets the
//! status of each resource. A step that fails is reported in the status of its resource and tried
//! again; the other resources go on.
//!
//! The loop runs on the main thread; each sync, and each batch of status files, is work of a thread for
//! blocking work. It never touches sockets of services or links: it asks the core to.

mod attachments;
mod bind_ranges;
mod desired;
mod error;
mod hosts;
mod kind;
mod memory;
mod namespace;
mod netns_listeners;
mod observed;
mod plan;
mod policy;
mod report;
mod rights;
mod run;
mod runtime;
mod service_addresses;
mod service_names;
mod service_tls;
mod workloads;

pub(crate) use hosts::{host_names, reachable};
pub(crate) use kind::access_token::store_redeemed;

pub use run::{Reconciler, Reload};
