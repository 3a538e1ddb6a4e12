//! The layers, and the modules that may use restricted crates.

use super::scan::Subject;
use Modules::{Never, Only};

/// All rules for one source tree.
pub(super) struct Rules {
    /// Modules by layer, the lowest first.
    pub(super) layers: &'static [&'static [&'static str]],
    /// Allowed uses within a layer: the first uses the second.
    pub(super) sideways: &'static [(&'static str, &'static str)],
    pub(super) crates: &'static [Crates],
    /// Modules that get the time as an argument; see [`Crates`].
    pub(super) no_clock: &'static [&'static str],
    /// The one module with `unsafe` code.
    pub(super) unsafe_in: &'static str,
    pub(super) exceptions: &'static [Exception],
    /// Allowed circles of files.
    pub(super) circles: &'static [Circle],
}

/// Files of one room that use each other in a circle, and why they may. An entry without a circle
/// is an error.
pub(super) struct Circle {
    /// Paths from the root of the source tree.
    pub(super) files: &'static [&'static str],
    #[expect(
        dead_code,
        reason = "for the reader; a circle without a reason does not compile"
    )]
    pub(super) reason: &'static str,
}

/// Where some crates may be used. A module is a top-level module with everything below it, or a
/// path such as `reconcile/plan`.
pub(super) struct Crates {
    pub(super) names: &'static [&'static str],
    pub(super) modules: Modules,
    pub(super) reason: &'static str,
}

pub(super) enum Modules {
    Only(&'static [&'static str]),
    Never(&'static [&'static str]),
}

impl Crates {
    pub(super) fn allows(&self, file: &str) -> bool {
        match self.modules {
            Only(modules) => covers(modules, file),
            Never(modules) => !covers(modules, file),
        }
    }
}

/// Whether a file is one of these modules or is inside one.
pub(super) fn covers(modules: &[&str], file: &str) -> bool {
    let path = file.strip_suffix(".rs").unwrap_or(file);
    modules.iter().any(|module| {
        let inside = path.strip_prefix(module);
        inside.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// A file that may do what its module may not, and why. An unused exception is an error.
pub(super) struct Exception {
    /// Paths from the root of the source tree.
    pub(super) file: &'static str,
    /// A module, a crate, `clock` or `unsafe`.
    pub(super) what: &'static str,
    #[expect(
        dead_code,
        reason = "for the reader; an exception without a reason does not compile"
    )]
    pub(super) reason: &'static str,
}

impl Exception {
    pub(super) fn matches(&self, file: &str, what: &Subject) -> bool {
        let name = match what {
            Subject::Module(name) | Subject::Crate(name) => name,
            Subject::Clock(_) => "clock",
            Subject::Unsafe => "unsafe",
        };
        self.file == file && self.what == name
    }
}

impl Rules {
    pub(super) fn layer(&self, module: &str) -> Option<usize> {
        self.layers.iter().position(|layer| layer.contains(&module))
    }
}

/// Modules that take bytes, events and time, and return bytes, events and timers.
const SANS_IO: &[&str] = &[
    "model",
    "amqp",
    "manifest",
    "router",
    "http_observer",
    "reconcile/plan",
];

pub(super) const RULES: Rules = Rules {
    layers: &[
        &["model", "amqp"],
        &["manifest", "router", "sys", "telemetry"],
        &["store", "pki", "netlink", "http_server"],
        &["steer"],
        &["link", "flows", "access", "workload"],
        &["service", "http_observer"],
        &["messages"],
        &["peering", "listen"],
        &["core", "worker"],
        &["proxy", "observe", "simulation"],
        &["reconcile"],
        &["operate"],
        &["control"],
        &["daemon", "cli"],
    ],
    // pki writes key files with store.
    sideways: &[("pki", "store")],
    crates: &[
        Crates {
            names: &["tokio"],
            modules: Never(SANS_IO),
            reason: "it takes bytes, events and time, and returns bytes, events and timers",
        },
        Crates {
            names: &["rustls", "tokio_rustls"],
            modules: Only(&[
                "link", "pki", "access", "proxy", "core", "messages", "peering",
            ]),
            reason: "TLS ends in link, access and proxy; core and peering hold the configurations of links",
        },
        Crates {
            names: &["rcgen", "x509_parser"],
            modules: Only(&["pki"]),
            reason: "pki makes and reads certificates",
        },
        Crates {
            names: &["zbus", "zbus_polkit"],
            modules: Only(&["control"]),
            reason: "control is the D-Bus",
        },
        Crates {
            names: &["aya", "skupper_ebpf"],
            modules: Only(&["steer"]),
            reason: "steer holds the BPF programs",
        },
        Crates {
            names: &["inotify"],
            modules: Only(&["store"]),
            reason: "store watches the resources",
        },
        Crates {
            names: &["prometheus_client"],
            modules: Only(&["observe"]),
            reason: "observe gives the metrics",
        },
        Crates {
            names: &["nix", "libc"],
            modules: Only(&["sys"]),
            reason: "sys makes the system calls",
        },
        Crates {
            names: &["clap"],
            modules: Only(&["cli", "bin"]),
            reason: "arguments are read at the edge",
        },
        Crates {
            names: &["anyhow"],
            modules: Only(&["bin", "cli", "daemon"]),
            reason: "a library's errors have types",
        },
    ],
    no_clock: SANS_IO,
    unsafe_in: "sys",
    exceptions: &[
        Exception {
            file: "bin/skupperd.rs",
            what: "nix",
            reason: "root has other directories",
        },
        Exception {
            file: "cli.rs",
            what: "nix",
            reason: "root has other directories",
        },
        Exception {
            file: "daemon.rs",
            what: "nix",
            reason: "its own limit of descriptors",
        },
        Exception {
            file: "simulation.rs",
            what: "rustls",
            reason: "a RouterAccess has credentials, also where no TLS is spoken",
        },
        Exception {
            file: "peering/accept.rs",
            what: "nix",
            reason: "a peek that clears the readiness of its socket",
        },
        Exception {
            file: "worker/accept.rs",
            what: "nix",
            reason: "accept4, a safe form of it",
        },
        Exception {
            file: "proxy/local.rs",
            what: "nix",
            reason: "names EINPROGRESS",
        },
        Exception {
            file: "proxy/unix.rs",
            what: "nix",
            reason: "names EPROTOTYPE",
        },
    ],
    circles: &[],
};
