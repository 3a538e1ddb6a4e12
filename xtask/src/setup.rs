//! `cargo xtask setup`: lists and installs missing dependencies. Quick when nothing is missing.
//!
//! Works in rounds, each of which finds, lists and installs what is missing: the LLVM version of
//! the BPF linker is known only once the compiler is installed.

mod cargo;
mod distribution;
mod ebpf;
mod needs;
mod python;

use anyhow::{Result, bail};
pub(crate) use cargo::rathole;
use clap::ValueEnum;
use distribution::Distribution;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to set up for
    #[arg(value_enum, default_values = ["build", "test"])]
    groups: Vec<Group>,
}

/// A purpose of the set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// Building the workspace, eBPF programs included
    Build,
    /// Lint and tests
    Test,
    /// haproxy, a peer of the benchmark
    Haproxy,
    /// rathole, a peer of the benchmark
    Rathole,
    /// Packages, their checks, and machines for testing them
    Package,
    /// Fuzzing
    Fuzz,
}

/// Something to install.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Packages(Vec<String>),
    /// A program to install with cargo.
    Cargo(cargo::Program),
    /// Components of the rustup toolchain in use.
    Rustup(Vec<&'static str>),
    /// Python packages for the tests.
    Python,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure(&args.groups)
}

/// Installs missing dependencies of these groups.
pub(crate) fn ensure(groups: &[Group]) -> Result<()> {
    let distribution = Distribution::detect();
    let mut done = Vec::new();
    loop {
        let steps = plan(groups, distribution)?;
        if steps.is_empty() {
            return Ok(());
        }
        if let Some(step) = steps.iter().find(|step| done.contains(*step)) {
            bail!("still missing after it was installed: {}", step.words());
        }
        eprintln!("setup: this is missing and will now be installed:");
        steps
            .iter()
            .for_each(|step| eprintln!("  {}", step.words()));
        for step in &steps {
            match step {
                Step::Packages(names) => distribution.install(names)?,
                Step::Cargo(program) => program.install()?,
                Step::Rustup(components) => cargo::add_components(components)?,
                Step::Python => python::install()?,
            }
        }
        done.extend(steps);
    }
}

/// What is missing and can be installed in this round, in order.
fn plan(groups: &[Group], distribution: Distribution) -> Result<Vec<Step>> {
    let mut packages = Vec::new();
    let mut others = Vec::new();
    if groups.contains(&Group::Build) {
        packages.extend(needs::missing(needs::BUILD, distribution));
        match ebpf::plan(distribution)? {
            Some(Step::Packages(names)) => packages.extend(names),
            step => others.extend(step),
        }
    }
    if groups.contains(&Group::Test) {
        packages.extend(needs::missing(needs::TEST, distribution));
        match cargo::components() {
            Some(Step::Packages(names)) => packages.extend(names),
            step => others.extend(step),
        }
        others.extend(cargo::missing(cargo::TEST));
        others.extend(python::missing().then_some(Step::Python));
    }
    if groups.contains(&Group::Haproxy) {
        packages.extend(needs::missing(needs::HAPROXY, distribution));
    }
    if groups.contains(&Group::Rathole) {
        packages.extend(needs::missing(needs::RATHOLE, distribution));
        others.extend(cargo::rathole_step());
    }
    if groups.contains(&Group::Package) {
        packages.extend(needs::missing(needs::PACKAGE, distribution));
        others.extend(cargo::missing(cargo::PACKAGE));
    }
    if groups.contains(&Group::Fuzz) {
        packages.extend(needs::missing(needs::FUZZ, distribution));
        others.extend(cargo::missing(cargo::FUZZ));
    }
    packages.sort();
    packages.dedup();
    let packages = (!packages.is_empty()).then_some(Step::Packages(packages));
    Ok(packages.into_iter().chain(others).collect())
}

impl Step {
    fn words(&self) -> String {
        match self {
            Self::Packages(names) => format!("packages of the distribution: {}", names.join(" ")),
            Self::Cargo(program) => program.words(),
            Self::Rustup(components) => format!("with rustup: {}", components.join(" ")),
            Self::Python => python::words(),
        }
    }
}
