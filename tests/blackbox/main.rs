//! Daemons and the command over real sockets on loopback, each site in a directory of its own.

mod access_control;
mod attached_connectors;
mod bundles;
mod certificates;
mod cli;
mod cli_flags;
mod cli_on_files;
mod cli_units;
mod cli_without_daemon;
mod clock;
mod connections;
mod connectors;
mod console;
mod console_api;
mod contract;
mod daemon;
mod dbus;
mod dbus_callers;
mod documentation;
mod edges;
mod failover;
mod fuzz_seeds;
mod grant_server;
mod health_checks;
mod hostile;
mod http_requests;
mod input_errors;
mod links;
mod listeners;
mod logs;
mod manual_pages;
mod metrics;
mod migration;
mod multi_key_listeners;
mod not_running;
mod performance;
mod real_programs;
mod router_access;
mod scopes;
mod service_manager;
mod shutdown;
mod sites;
mod stalled_disk;
mod streams;
mod tls;
mod tls_streams;
mod tokens;
mod vanflow;

use skupper_tests::fuzz::heap::Heap;

/// Counts allocations per thread: tests of decoders measure the memory that hostile input takes.
#[global_allocator]
static HEAP: Heap = Heap;
