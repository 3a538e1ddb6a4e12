//! BPF programs of skupperd: steering.
//!
//! On other targets this is an empty program, so that the workspace builds for the host.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod rt;
#[cfg(target_arch = "bpf")]
mod steer;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
