//! skupperd: Skupper sites for plain Linux hosts.
//!
//! # Modules, lowest first; each uses only those above it
//!
//! | layer | modules |
//! |---|---|
//! | 0 | [`model`]: resources and statuses; [`amqp`]: the protocol engine, sans-I/O |
//! | 1 | [`manifest`]: YAML to `model`; [`router`]: routing, sans-I/O; [`sys`]: system calls; [`telemetry`]: logs |
//! | 2 | [`store`]: directories and files; [`pki`]: certificates; [`steer`]: accept sockets, acceleration, BPF |
//! | 3 | [`link`]: sockets, TLS, trunks; the core and the workers; [`access`]: grants and tokens; [`workload`]: servers that selectors stand for, clients of this host |
//! | 4 | [`proxy`]: TCP connections and the streams they are bridged to; [`observe`]: metrics, connections, API, console |
//! | 5 | [`plan`]: what has to be done, as data; [`reconcile`]: doing it, and saying how it stands |
//! | 6 | [`operate`]: what people do with a namespace |
//! | 7 | [`control`]: D-Bus, as the daemon serves it and as the command calls it |
//! | 8 | [`daemon`]: wiring; [`cli`]: the `skupper` command |
//!
//! # Threads, tasks and channels
//!
//! - **main** runs [`reconcile`]: manifests -> [`plan::plan`] -> executor -> calls into the core;
//!   what the core says of links and listeners -> status files. A slow disk holds nobody else.
//!   Tasks beside it: the grant server of each namespace that has grants ([`access::Server`]), one for
//!   each connection to it, one for each token that is being redeemed; they wake the loop when one is.
//!   Whoever shows statuses ([`observe`], [`control`], the service manager's status line) has them from
//!   one `watch` channel of the loop. A task keeps the connection to the bus; calls that work on files
//!   do so on threads for blocking work, a few at a time. A task feeds the watchdog while every event
//!   loop answers it.
//! - **core** owns each site's [`router::Router`], the dialling and accepting tasks, and decides which
//!   worker gets which connection. It takes events from one channel (`CoreEvent`) and never waits.
//! - **worker-N** owns sockets: a task for each connection of a link (`link::driver`), one for each
//!   TCP connection ([`proxy`]). It takes commands from one channel ([`link::worker::Command`]).
//!
//! ```text
//! files -> main -- call --> core -- Command --> worker 0..N
//!   status files <- changed -'  ^--- CoreEvent ---'
//! ```
//!
//! What workers tell of connections is in a [`link::ledger::Ledger`]: each writes a shelf of its own,
//! without a lock for bytes, and whoever watches reads them all. HTTP requests are in it too, as a
//! listener's observer (`proxy::http`) sees them pass. While somebody on the network listens, the core
//! takes news from the ledger and sends them, with all it knows itself, as upstream's records
//! (`link::vanflow`, `link::core::telling`).
//!
//! What workers know of the network is a [`link::view::SiteView`], replaced as a whole. A stream is
//! carried by one worker from socket to socket: client -> listener's accept socket on worker k ->
//! frame on worker k's data connection -> TLS record sealed in place -> ... -> server. Nothing on that
//! way takes a lock or crosses a channel; only when the next connection lives on another worker is
//! the client handed over (once, at the start) or the stream relayed. A listener that does more than
//! that, TLS or several routing keys, has a front ([`link::ends::Fronts`]) that workers look up when
//! they accept.
//!
//! # From one process to the next
//!
//! Listening sockets and the BPF program outlive the process ([`steer::Kept`]): the service manager has
//! copies of the sockets, which a thread **keeper** gives it ([`sys::Keeper`]), and the program is
//! pinned. The next process takes both up before anything else. Bindings of listeners go on as they
//! are until all resources are applied; only then workers accept, and what no listener has wanted ends.
//!
//! An edge site has no part in routing: its router knows one uplink and what that says can be
//! reached (`link::core`, `uplink`). Who serves edges (`edges` there) treats each as a client of this
//! host whose connection carries streams: workers see a link like any other.

pub mod access;
pub mod amqp;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(any(feature = "daemon", feature = "cli"))]
pub mod control;
#[cfg(feature = "daemon")]
pub mod daemon;
pub mod link;
pub mod manifest;
pub mod model;
pub mod observe;
pub mod operate;
pub mod pki;
pub mod plan;
pub mod proxy;
pub mod reconcile;
pub mod router;
pub mod steer;
pub mod store;
pub mod sys;
pub mod telemetry;
pub mod workload;
