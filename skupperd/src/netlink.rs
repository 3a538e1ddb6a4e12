//! The kernel's answers over netlink: who listens, who is connected, local routes.
//!
//! The crates of rust-netlink are not used. `netlink-packet-route` 0.34 has 52,000 lines and brings
//! derives of zerocopy, for three kinds of messages that [`local_routes`] makes in 25 lines.
//! `netlink-packet-sock-diag` 0.5 does not know the control group of a socket (`INET_DIAG_CGROUP_ID`),
//! by which selectors find the servers of a unit.
//!
//! A request blocks its thread until the kernel has answered. Callers are the search for servers, on a
//! thread for blocking work, steering, which looks for sockets of other programs, and service addresses.
//! Only routes are changed, and only those with our protocol number.

pub mod listeners;
pub mod local_routes;
pub(crate) mod sock_diag;
pub(crate) mod socket;
