//! Package managers: apt of Debian and Ubuntu, dnf of Fedora and its derivatives.

use crate::sh;
use anyhow::{Result, bail};
use nix::unistd::geteuid;
use std::process::Command;

/// The package manager of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distribution {
    Apt,
    Dnf,
    /// Unknown.
    Other,
}

impl Distribution {
    pub(super) fn detect() -> Self {
        // Decided by os-release: Debian can have dnf too, for building images.
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        Self::of(&release)
    }

    fn of(os_release: &str) -> Self {
        let ids = os_release.lines().filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            ["ID", "ID_LIKE"]
                .contains(&key)
                .then(|| value.trim_matches('"'))
        });
        for id in ids.flat_map(str::split_whitespace) {
            match id {
                "debian" | "ubuntu" => return Self::Apt,
                "fedora" | "rhel" => return Self::Dnf,
                _ => {}
            }
        }
        Self::Other
    }

    /// Whether all of these packages are installed.
    pub(super) fn installed(self, package: &str) -> bool {
        match self {
            Self::Apt => {
                let status = sh::output("dpkg-query", &["-W", "-f", "${Status}", package]);
                status.is_some_and(|s| {
                    s.starts_with("install ok installed") || s.starts_with("hold ok installed")
                })
            }
            Self::Dnf => sh::output("rpm", &["-q", "--whatprovides", package]).is_some(),
            Self::Other => false,
        }
    }

    /// Names of packages that can be installed and match a pattern of the package manager.
    pub(super) fn available(self, pattern: &str) -> Vec<String> {
        let listing = match self {
            Self::Apt => sh::output("apt-cache", &["search", "--names-only", pattern]),
            Self::Dnf => sh::output("dnf", &["-q", "repoquery", "--qf", "%{name}\n", pattern]),
            Self::Other => None,
        };
        let listing = listing.unwrap_or_default();
        listing
            .lines()
            .filter_map(|l| Some(l.split_whitespace().next()?.to_owned()))
            .collect()
    }

    /// The version that would be installed.
    pub(super) fn candidate(self, package: &str) -> Option<String> {
        let (listing, key) = match self {
            Self::Apt => (
                sh::output("apt-cache", &["policy", package])?,
                "Candidate: ",
            ),
            Self::Dnf => {
                let format = "Candidate: %{version}\n";
                (
                    sh::output("dnf", &["-q", "repoquery", "--qf", format, package])?,
                    "Candidate: ",
                )
            }
            Self::Other => return None,
        };
        let version = listing
            .lines()
            .find_map(|line| line.trim().strip_prefix(key))?;
        (version != "(none)").then(|| version.to_owned())
    }

    /// Updates the package lists; dnf does that itself.
    pub(super) fn refresh(self) -> Result<()> {
        match self {
            Self::Apt => sh::run(as_root("apt-get").args(["update", "-qq"])),
            Self::Dnf | Self::Other => Ok(()),
        }
    }

    pub(super) fn install(self, packages: &[String]) -> Result<()> {
        match self {
            Self::Apt => {
                self.refresh()?;
                // Another apt may be running, as on a machine that has just booted.
                let wait = ["-o", "DPkg::Lock::Timeout=600"];
                // No progress bar.
                let quiet = ["-o", "Dpkg::Use-Pty=0"];
                sh::run(
                    as_root("apt-get")
                        .args(wait)
                        .args(quiet)
                        .args(["install", "-y", "-qq", "--no-install-recommends"])
                        .args(packages),
                )
            }
            Self::Dnf => sh::run(as_root("dnf").args(["install", "-y", "-q"]).args(packages)),
            Self::Other => bail!(
                "neither Debian, Ubuntu nor Fedora: install what corresponds to {} by hand",
                packages.join(" ")
            ),
        }
    }
}

/// A command that runs as root: with sudo when we are not.
fn as_root(program: &str) -> Command {
    // Through env, because sudo clears the environment.
    let mut command = if geteuid().is_root() {
        Command::new("env")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("env");
        sudo
    };
    command.args(["DEBIAN_FRONTEND=noninteractive", program]);
    command
}

#[cfg(test)]
mod tests {
    use super::Distribution::{self, Apt, Dnf, Other};

    #[test]
    fn distributions_and_derivatives_are_recognised() {
        let of = Distribution::of;
        assert_eq!(of("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n"), Apt);
        assert_eq!(of("ID=ubuntu\nID_LIKE=debian\n"), Apt);
        assert_eq!(of("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"), Apt);
        assert_eq!(of("ID=fedora\nVERSION_ID=43\n"), Dnf);
        assert_eq!(of("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"), Dnf);
        assert_eq!(of("ID=arch\n"), Other);
        assert_eq!(of("VARIANT_ID=debian\n"), Other);
        assert_eq!(of(""), Other);
    }
}
