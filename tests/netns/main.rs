//! Daemons and eBPF programs. Each test has its own network namespace.

mod acceleration;
mod acceleration_streams;
mod bind_ranges;
mod broken_hosts;
mod ebpf_acceleration;
mod ebpf_fallback;
mod ebpf_pins;
mod ebpf_steering;
mod guide;
mod host_addresses;
mod network_namespaces;
mod pages;
mod selectors;
mod service_addresses;
mod slow_links;
mod steering;
mod steering_load;

use std::net::{Ipv4Addr, SocketAddr};

/// 127.0.0.`octet`.
fn loopback(octet: u8, port: u16) -> SocketAddr {
    loopback_in(0, octet, port)
}

/// 127.0.`third`.`octet`.
fn loopback_in(third: u8, octet: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, third, octet), port).into()
}
