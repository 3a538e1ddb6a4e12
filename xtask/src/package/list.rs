//! The packages and their files.
//!
//! Files below `packaging/root` are installed at the same path; this list assigns them to packages.
//! A file that is added there is in the deb and in the rpm.

use super::Format;

pub(super) const MAINTAINER: &str = "skupperd project <noreply@skupper.io>";

pub(super) const COPYRIGHT: &str = "2026 the skupperd authors";

pub(super) struct Package {
    pub(super) name: &'static str,
    /// One line, without a period.
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    /// Prefixes of its paths. Other files go to the first package.
    pub(super) has: &'static [&'static str],
    /// Dependencies of the deb besides linked libraries.
    pub(super) deb_depends: &'static [&'static str],
    pub(super) rpm_requires: &'static [&'static str],
    /// Recommended packages; their names are the same for deb and rpm.
    pub(super) recommends: &'static [&'static str],
    /// Whether it has units, and therefore scripts in `packaging/deb` and `packaging/rpm`.
    pub(super) service: bool,
}

pub(super) const PACKAGES: [Package; 2] = [
    Package {
        name: "skupperd",
        summary: "Skupper sites for plain Linux hosts",
        description: "Skupper makes TCP services reachable between hosts that cannot reach each \
            other. Links with mutual TLS join sites into a network; clients of a listener in one \
            site reach the servers of a connector with the same routing key in another. This \
            daemon makes a host a site, without containers and without Kubernetes, and joins \
            networks of other Skupper sites.",
        has: &[],
        deb_depends: &["systemd"],
        rpm_requires: &["systemd"],
        recommends: &["skupper"],
        service: true,
    },
    Package {
        name: "skupper",
        summary: "Command for Skupper sites on Linux hosts",
        description: "Creates sites, links, listeners and connectors of skupperd, and shows \
            their status. With manual pages and completions for bash, zsh and fish.",
        has: &[
            "usr/bin/skupper",
            "usr/share/bash-completion/",
            "usr/share/doc/skupper/",
            "usr/share/fish/",
            "usr/share/licenses/skupper/",
            "usr/share/lintian/overrides/skupper",
            "usr/share/man/man1/",
            "usr/share/man/man5/",
            "usr/share/man/man7/",
            "usr/share/zsh/",
        ],
        deb_depends: &[],
        rpm_requires: &[],
        recommends: &["skupperd"],
        service: false,
    },
];

/// The package of a file.
pub(super) fn owner(path: &str) -> &'static Package {
    let [first, others @ ..] = &PACKAGES;
    let has = |package: &&Package| {
        package.has.iter().any(|begin| {
            // A file, or everything in a directory.
            path == *begin || (begin.ends_with('/') && path.starts_with(begin))
        })
    };
    others.iter().find(has).unwrap_or(first)
}

/// The installed path of a file in this format, if it is included. The staged tree has Debian's
/// paths.
pub(super) fn install_path(path: &str, format: Format) -> Option<String> {
    if format == Format::Deb {
        return Some(path.to_owned());
    }
    if path.starts_with("usr/share/lintian/") || path.contains("/changelog.Debian") {
        return None;
    }
    // Debian's zsh uses its own directory.
    Some(path.replace("zsh/vendor-completions", "zsh/site-functions"))
}

/// File mode: programs are executable.
pub(super) fn mode(path: &str) -> &'static str {
    if path.starts_with("usr/bin/") {
        "755"
    } else {
        "644"
    }
}

/// Whether a file is configuration, whose changes an upgrade keeps.
pub(super) fn is_config(path: &str) -> bool {
    path.starts_with("etc/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_in_the_package_that_names_it_or_in_the_first() {
        for (path, package) in [
            ("usr/bin/skupper", "skupper"),
            ("usr/bin/skupperd", "skupperd"),
            ("usr/share/man/man1/skupper-site.1.gz", "skupper"),
            ("usr/share/man/man8/skupperd.8.gz", "skupperd"),
            ("usr/share/doc/skupper/copyright", "skupper"),
            ("usr/share/doc/skupperd/copyright", "skupperd"),
            ("usr/share/dbus-1/system.d/of-tomorrow.conf", "skupperd"),
        ] {
            assert_eq!(owner(path).name, package, "{path}");
        }
    }

    #[test]
    fn an_rpm_has_nothing_of_debians() {
        let rpm = |path| install_path(path, Format::Rpm);
        assert_eq!(rpm("usr/share/lintian/overrides/skupperd"), None);
        assert_eq!(rpm("usr/share/doc/skupperd/changelog.Debian.gz"), None);
        assert_eq!(
            rpm("usr/share/zsh/vendor-completions/_skupper").as_deref(),
            Some("usr/share/zsh/site-functions/_skupper")
        );
        assert_eq!(
            rpm("etc/default/skupperd").as_deref(),
            Some("etc/default/skupperd")
        );
    }
}
