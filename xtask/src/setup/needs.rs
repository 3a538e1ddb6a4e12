//! Programs and libraries from the distribution.

use super::distribution::Distribution;
use crate::sh;

/// A dependency: how to check for it, and its package.
pub(super) struct Need {
    has: Detection,
    apt: &'static str,
    dnf: &'static str,
}

enum Detection {
    /// A program on the path, from any source.
    Program(&'static str),
    /// The package itself: libraries and headers.
    Package,
    /// A program that succeeds with these arguments.
    Works(&'static str, &'static [&'static str]),
}

/// Package name where the distribution has none.
const NOWHERE: &str = "";

/// Packages that some releases lack; tests that need them are skipped there.
const WHERE_THERE_IS: &[&str] = &["chromium"];

const fn program(name: &'static str, apt: &'static str, dnf: &'static str) -> Need {
    Need {
        has: Detection::Program(name),
        apt,
        dnf,
    }
}

const CC: Need = program("cc", "gcc", "gcc");
const CURL: Need = program("curl", "curl", "curl");
const NGINX: Need = program("nginx", "nginx-light", "nginx-core");
const OPENSSL: Need = program("openssl", "openssl", "openssl");
const PKG_CONFIG: Need = program("pkg-config", "pkg-config", "pkgconf-pkg-config");
const LIBC: Need = Need {
    has: Detection::Package,
    apt: "libc6-dev",
    dnf: "glibc-devel",
};

pub(super) const BUILD: &[Need] = &[CC, LIBC];

pub(super) const TEST: &[Need] = &[
    CURL,
    NGINX,
    program("iperf3", "iperf3", "iperf3"),
    program("tinyproxy", "tinyproxy-bin", "tinyproxy"),
    program("dbus-daemon", "dbus-daemon", "dbus-daemon"),
    program("busctl", "systemd", "systemd"),
    program("faketime", "faketime", "libfaketime"),
    program("nft", "nftables", "nftables"),
    program("ip", "iproute2", "iproute"),
    program("setpriv", "util-linux", "util-linux"),
    program("shellcheck", "shellcheck", "ShellCheck"),
    program("chromium", "chromium", "chromium"),
    program("mandoc", "mandoc", "mandoc"),
    // python-qpid-proton, an independent AMQP peer, is built from source.
    CC,
    PKG_CONFIG,
    Need {
        has: Detection::Works("python3", &["-c", "import venv, ensurepip"]),
        apt: "python3-venv",
        dnf: "python3",
    },
    Need {
        has: Detection::Works(
            "python3",
            &[
                "-c",
                "import os, sysconfig as s; open(s.get_path('include') + '/Python.h')",
            ],
        ),
        apt: "python3-dev",
        dnf: "python3-devel",
    },
];

pub(super) const HAPROXY: &[Need] = &[program("haproxy", "haproxy", "haproxy")];

pub(super) const RATHOLE: &[Need] = &[
    CC,
    // For the file with its certificate and key.
    OPENSSL,
    // rathole uses OpenSSL.
    PKG_CONFIG,
    Need {
        has: Detection::Package,
        apt: "libssl-dev",
        dnf: "openssl-devel",
    },
];

pub(super) const PACKAGE: &[Need] = &[
    CC,
    program("strip", "binutils", "binutils"),
    program("dpkg-shlibdeps", "dpkg-dev", "dpkg-dev"),
    program("rpmbuild", "rpm", "rpm-build"),
    program("lintian", "lintian", NOWHERE),
    program("rpmlint", "rpmlint", "rpmlint"),
    program("systemd-nspawn", "systemd-container", "systemd-container"),
    program("mmdebstrap", "mmdebstrap", "mmdebstrap"),
    // For disks of virtual machines; the emulator is installed in a separate root directory.
    program("mke2fs", "e2fsprogs", "e2fsprogs"),
    program("xz", "xz-utils", "xz"),
];

pub(super) const FUZZ: &[Need] = &[
    CC,
    LIBC,
    // libFuzzer is built from source.
    program("c++", "g++", "gcc-c++"),
];

/// Missing packages.
pub(super) fn missing(needs: &[Need], distribution: Distribution) -> Vec<String> {
    needs
        .iter()
        .filter_map(|need| {
            let package = match distribution {
                Distribution::Dnf => need.dnf,
                Distribution::Apt | Distribution::Other => need.apt,
            };
            let met = match need.has {
                Detection::Program(name) => sh::has(name),
                Detection::Works(program, args) => sh::output(program, args).is_some(),
                // Without a known package manager the build reports missing libraries.
                Detection::Package => {
                    distribution == Distribution::Other || distribution.installed(package)
                }
            };
            let wanted = package != NOWHERE
                && (!WHERE_THERE_IS.contains(&package)
                    || distribution.candidate(package).is_some());
            (!met && wanted).then(|| package.to_owned())
        })
        .collect()
}
