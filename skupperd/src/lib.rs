//! skupperd: Skupper sites for plain Linux hosts.
//!
//! # Modules, lowest first; each uses only those above it
//!
//! | layer | modules |
//! |---|---|
//! | 0 | [`model`]: resources and statuses; [`amqp`]: the protocol engine, sans-I/O |
//! | 1 | [`manifest`]: YAML to `model`, settings (`manifest::settings`); [`router`]: routing, sans-I/O; [`sys`]: system calls; [`telemetry`]: logs |
//! | 2 | [`store`]: directories and files; [`pki`]: certificates; [`netlink`]: sockets and routes of the kernel; [`http_server`]: what the HTTP servers share |
//! | 3 | [`steer`]: accept sockets, acceleration, BPF |
//! | 4 | [`link`]: TLS and AMQP on a socket; [`flows`]: records of connections; [`access`]: grants and tokens; [`workload`]: servers that selectors match, clients of this host |
//! | 5 | [`service`]: policies of listeners and connectors, the snapshot of a site that workers have; [`http_observer`]: HTTP requests of a connection, sans-I/O |
//! | 6 | [`messages`]: messages between the core and the workers |
//! | 7 | [`peering`]: dialling and accepting links; [`listen`]: where listeners accept clients |
//! | 8 | [`core`]: the control thread; [`worker`]: a data-plane thread |
//! | 9 | [`proxy`]: TCP connections and the streams they are bridged to; [`observe`]: metrics, connections, API, console; [`simulation`]: a site without sockets, for tests |
//! | 10 | [`reconcile`]: makes what runs match the resources, and reports their statuses |
//! | 11 | [`operate`]: operations on a namespace |
//! | 12 | [`control`]: D-Bus, the daemon's service and the command's client |
//! | 13 | [`daemon`]: wiring; [`cli`]: the `skupper` command |
//!
//! # Threads, tasks and channels
//!
//! - **main** runs [`reconcile`]: resources -> desired state -> plan -> requests to the core
//!   ([`core::CoreRequest`]); states of links and listeners -> status files. Files are read and written on
//!   threads for blocking work, so a disk that stalls stops no thread named here. Tasks beside the loop:
//!   the grant server of each namespace with grants ([`access::GrantServer`]), one for each connection to
//!   it, and one for each token that is being redeemed; they wake the loop when they have a result.
//!   Readers of statuses ([`observe`], [`control`], the status line of the service manager) follow a
//!   `watch` channel of the loop, which changes once statuses are on disk; lists over D-Bus read a second
//!   one, which changes before. One task keeps the connection to the bus; calls that use files run on
//!   those threads too, a few at a time. One task feeds the watchdog while every event loop answers it.
//! - **core** owns each site's [`router::Router`] and the tasks that dial and accept, and assigns
//!   connections to workers. It takes events from one channel ([`messages::CoreEvent`]) and never blocks.
//! - **worker-N** owns sockets: a task for each connection of a link (`link::driver`), one for each
//!   TCP connection ([`proxy`]). It takes commands from one channel ([`messages::Command`]).
//!
//! ```text
//! files -> main -- request --> core -- Command --> worker 0..N
//!   status files <- changed ----'  ^--- CoreEvent ---'
//! ```
//!
//! Records of connections are in a [`flows::FlowLog`]. Each worker writes its own part and takes no lock
//! for bytes; readers lock a part for as long as it takes to copy pointers. A listener's HTTP observer
//! ([`http_observer`]) adds the requests that it observes. While another router of the network subscribes to
//! them, the core sends these records, with those of links and services, as vanflow records
//! (`flows::vanflow`, `core::site`).
//!
//! Workers see the network through a [`service::view::SiteView`], an immutable snapshot that is replaced as
//! a whole. One worker carries a stream from socket to socket: client, accept socket of worker k, frame on
//! worker k's data connection, TLS record sealed in place, server. No step of that path takes a lock or
//! crosses a channel. Only when the next connection belongs to another worker is the client handed over,
//! once at the start, or the stream relayed. A listener with TLS, several routing keys or allowed users has
//! a policy ([`service::policy::ListenerPolicies`]) that workers look up when they accept.
//!
//! # From one process to the next
//!
//! Listening sockets and the BPF program outlive the process ([`steer::SteeringHandover`]): the service
//! manager has copies of the sockets, which the thread **fd-store** sends it ([`sys::DescriptorStore`]), and
//! the program is pinned. The next process adopts both first. Bindings of listeners stay as they are until
//! all resources are applied; only then do workers accept, and unclaimed sockets are closed.
//!
//! # A site in the core
//!
//! `core::site` has a component for each subject: links that are dialled, connected peers, accesses,
//! services, AMQP clients, edges, the uplink of an edge, vanflow. A component changes its own fields and
//! adds effects (commands to workers, inputs of the router, a new view), which the site applies in one
//! place.
//!
//! An edge site takes no part in routing: its router knows one uplink and the addresses that are reachable
//! over it (`core::site::uplink`). A site that serves edges (`core::site::edges`) treats each as a client of
//! this host whose connection carries streams: to workers it is a link like any other.

pub mod access;
pub mod amqp;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(any(feature = "daemon", feature = "cli"))]
pub mod control;
pub mod core;
#[cfg(feature = "daemon")]
pub mod daemon;
pub mod flows;
pub mod http_observer;
pub mod http_server;
pub mod link;
pub mod listen;
pub mod manifest;
pub mod messages;
pub mod model;
pub mod netlink;
pub mod observe;
pub mod operate;
pub mod peering;
pub mod pki;
pub mod proxy;
pub mod reconcile;
pub mod router;
pub mod service;
pub mod simulation;
pub mod steer;
pub mod store;
pub mod sys;
pub mod telemetry;
pub mod worker;
pub mod workload;
