//! The toolchain of the BPF programs: a compiler with the sources of its standard library, and
//! bpf-linker with the same LLVM.

use super::{Step, cargo::Program, distribution::Distribution};
use crate::toolchain::{self, Toolchain};
use anyhow::{Result, bail};

/// LLVM versions that bpf-linker supports.
const LLVM: [u32; 2] = [22, 21];

/// The newest version that builds with the project's Rust.
const LINKER: &str = "bpf-linker@0.13.0";

const BY_HAND: &str = "either `rustup toolchain install nightly --component rust-src` and run this \
    again, or build without eBPF: --no-default-features --features daemon,cli";

/// The next thing to install, if any.
pub(super) fn plan(distribution: Distribution) -> Result<Option<Step>> {
    let Ok(toolchain) = Toolchain::find() else {
        if let Some(packages) = compiler(distribution) {
            return Ok(Some(Step::Packages(packages)));
        }
        // A new machine may have no package lists yet.
        distribution.refresh()?;
        let Some(packages) = compiler(distribution) else {
            bail!(BY_HAND)
        };
        return Ok(Some(Step::Packages(packages)));
    };
    if toolchain::linker().is_ok() {
        return Ok(None);
    }
    linker(distribution, toolchain.llvm).map(Some)
}

/// Packages with a compiler and its sources.
fn compiler(distribution: Distribution) -> Option<Vec<String>> {
    match distribution {
        Distribution::Apt => {
            // Debian has a newer compiler for its browsers; Ubuntu has many versions.
            let mut numbered = distribution.available("^rust-1[.][0-9]+-src$");
            numbered.sort_by_key(|name| std::cmp::Reverse(minor(name)));
            let numbered = numbered
                .first()
                .and_then(|name| name.strip_suffix("-src"))
                .map(|name| {
                    let version = name.trim_start_matches("rust-");
                    [
                        format!("rustc-{version}"),
                        format!("cargo-{version}"),
                        format!("{name}-src"),
                    ]
                });
            let web = ["rustc-web", "cargo-web", "rust-web-src"].map(str::to_owned);
            let plain = ["rustc", "cargo", "rust-src"].map(str::to_owned);
            [Some(web), numbered, Some(plain)]
                .into_iter()
                .flatten()
                .find(|[compiler, ..]| new_enough(distribution, compiler))
                .map(Vec::from)
        }
        Distribution::Dnf => new_enough(distribution, "rust")
            .then(|| ["rust", "cargo", "rust-src"].map(str::to_owned).to_vec()),
        Distribution::Other => None,
    }
}

fn new_enough(distribution: Distribution, compiler: &str) -> bool {
    distribution
        .candidate(compiler)
        .and_then(|v| minor(&v))
        .is_some_and(|n| n >= toolchain::OLDEST_RUST)
}

/// `N` of a Rust version `1.N` in a package's name or version.
fn minor(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("1.")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn linker(distribution: Distribution, llvm: u32) -> Result<Step> {
    if distribution == Distribution::Dnf && distribution.candidate("bpf-linker").is_some() {
        // The distribution's bpf-linker has the same LLVM as its compiler.
        return Ok(Step::Packages(vec!["bpf-linker".to_owned()]));
    }
    if !LLVM.contains(&llvm) {
        bail!("the compiler has LLVM {llvm}, {LINKER} takes {LLVM:?}: {BY_HAND}");
    }
    let (packages, prefix) = match distribution {
        Distribution::Apt => (
            vec![
                format!("llvm-{llvm}-dev"),
                format!("libpolly-{llvm}-dev"),
                "libzstd-dev".to_owned(),
                "zlib1g-dev".to_owned(),
                "g++".to_owned(),
            ],
            format!("/usr/lib/llvm-{llvm}"),
        ),
        Distribution::Dnf => {
            let packages = ["llvm-devel", "libzstd-devel", "zlib-devel", "gcc-c++"];
            (packages.map(str::to_owned).to_vec(), "/usr".to_owned())
        }
        Distribution::Other => bail!("install bpf-linker with LLVM {llvm} by hand, or {BY_HAND}"),
    };
    let missing: Vec<_> = packages
        .into_iter()
        .filter(|p| !distribution.installed(p))
        .collect();
    if !missing.is_empty() {
        return Ok(Step::Packages(missing));
    }
    let words = [
        "--no-default-features".to_owned(),
        format!("--features=llvm-{llvm}"),
    ];
    let env = ["LLVM_PREFIX".to_owned(), format!("LLVM_SYS_{llvm}1_PREFIX")];
    Ok(Step::Cargo(Program {
        package: LINKER.to_owned(),
        args: words.to_vec(),
        env: env.map(|name| (name, prefix.clone())).to_vec(),
    }))
}

#[cfg(test)]
mod tests {
    use super::minor;

    #[test]
    fn reads_rust_versions() {
        assert_eq!(minor("1.96.0+dfsg1-1~deb12u2"), Some(96));
        assert_eq!(minor("rust-1.85-src"), Some(85));
        assert_eq!(minor("1.63.0+dfsg1-2"), Some(63));
        assert_eq!(minor("2:3.4"), None);
    }
}
