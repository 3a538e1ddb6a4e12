//! The layers, and which module may name what.

use super::scan::What;
use Modules::{Never, Only};

/// All rules for one source tree.
pub(super) struct Rules {
    /// Modules by layer, the lowest first.
    pub(super) layers: &'static [&'static [&'static str]],
    /// Uses within a layer that are meant: the first uses the second.
    pub(super) sideways: &'static [(&'static str, &'static str)],
    pub(super) crates: &'static [Crates],
    /// Modules that get the time as an argument.
    pub(super) no_clock: &'static [&'static str],
    /// The one module with `unsafe` code.
    pub(super) unsafe_in: &'static str,
    pub(super) exceptions: &'static [Exception],
}

/// Where some crates may be named.
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
    pub(super) fn allows(&self, module: &str) -> bool {
        match self.modules {
            Only(modules) => modules.contains(&module),
            Never(modules) => !modules.contains(&module),
        }
    }
}

/// A file that may do what its module may not, and why. One that is not needed is an error.
pub(super) struct Exception {
    /// From the top of the source tree.
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
    pub(super) fn matches(&self, file: &str, what: &What) -> bool {
        let name = match what {
            What::Module(name) | What::Crate(name) => name,
            What::Clock(_) => "clock",
            What::Unsafe => "unsafe",
        };
        self.file == file && self.what == name
    }
}

impl Rules {
    pub(super) fn layer(&self, module: &str) -> Option<usize> {
        self.layers.iter().position(|layer| layer.contains(&module))
    }
}

pub(super) const RULES: Rules = Rules {
    layers: &[
        &["model", "amqp"],
        &["manifest", "router", "sys", "telemetry"],
        &["store", "pki", "steer"],
        &["link", "access", "workload"],
        &["proxy", "observe"],
        &["plan", "reconcile"],
        &["operate"],
        &["control"],
        &["daemon", "cli"],
    ],
    // The loop carries out plans; key files are written the way store writes files.
    sideways: &[("reconcile", "plan"), ("pki", "store")],
    crates: &[
        Crates {
            names: &["tokio"],
            modules: Never(&["model", "amqp", "manifest", "router", "plan"]),
            reason: "it takes bytes, events and time, and gives bytes, events and timers",
        },
        Crates {
            names: &["rustls", "tokio_rustls"],
            modules: Only(&["link", "pki", "access", "proxy"]),
            reason: "TLS ends in link, access and proxy",
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
    no_clock: &["model", "amqp", "manifest", "router", "plan"],
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
            file: "link/accept.rs",
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
};
