//! `cargo xtask test`: lint, and every test that this machine can run. Reports skipped tests with
//! reasons at the end; the last line has the totals.

mod counts;

use crate::{
    lint,
    setup::{self, Group},
    sh,
};
use anyhow::{Context, Result, ensure};
use counts::Counts;
use nix::unistd::geteuid;
use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out levels 3 and 4, and tests that move much data or hold many connections
    #[arg(long)]
    quick: bool,
    /// Further arguments for cargo nextest, such as part of a test's name
    #[arg(last = true)]
    nextest: Vec<String>,
}

/// The variable with the path of the file to which a test writes why it skipped itself.
const SKIP_LOG: &str = "SKUPPER_SKIP_LOG";

pub(crate) fn run(args: &Args) -> ExitCode {
    let mut sum = Counts::default();
    let mut problems = Vec::new();
    let mut skipped = Vec::new();

    if let Err(e) = setup::ensure(groups(args)) {
        sum.failed += 1;
        problems.push(format!("set-up: {e:#}"));
    } else {
        if let Err(e) = lint::run() {
            sum.failed += 1;
            problems.push(format!("{e:#}"));
        }
        type Runner = fn(&Args, &mut Vec<String>) -> Result<Counts>;
        for (name, runner) in [
            ("nextest", nextest as Runner),
            ("nextest, combinations", combinations),
        ] {
            match runner(args, &mut skipped) {
                Ok(counts) => sum = sum + counts,
                Err(e) => {
                    sum.failed += 1;
                    problems.push(format!("{name}: {e:#}"));
                }
            }
        }
    }

    for problem in &problems {
        eprintln!("failed: {problem}");
    }
    for reason in &skipped {
        eprintln!("skipped: {reason}");
    }
    println!("{sum}");
    if sum.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Groups to install for the tests. Levels 3 and 4 need root: without root their tests skip
/// themselves, so their set-up is skipped too.
fn groups(args: &Args) -> &'static [Group] {
    if args.quick || !geteuid().is_root() {
        &[Group::Build, Group::Test]
    } else {
        &[Group::Build, Group::Test, Group::Package]
    }
}

fn nextest(args: &Args, skipped: &mut Vec<String>) -> Result<Counts> {
    // Black-box tests start the programs but do not build them.
    sh::run(&mut sh::cargo(&[
        "build",
        "--workspace",
        "--bins",
        "--locked",
    ]))?;
    let log = sh::target().join("skipped-tests");
    if log.exists() {
        fs::remove_file(&log).with_context(|| log.display().to_string())?;
    }
    let profile = if args.quick { "quick" } else { "ci" };
    let words = [
        "nextest",
        "run",
        "--workspace",
        "--locked",
        "--profile",
        profile,
    ];
    let mut command = sh::cargo(&words);
    command.args(&args.nextest).env(SKIP_LOG, &log);
    let (ok, lines) = tee(&mut command)?;
    let mut counts = lines
        .iter()
        .rev()
        .find_map(|line| Counts::of_nextest(line))
        .context("no test was run: see above")?;
    if counts.skipped > 0 {
        let why = if args.quick {
            "--quick"
        } else {
            "a filter, or marked #[ignore]"
        };
        skipped.push(format!("{} tests: excluded by {why}", counts.skipped));
    }
    let on_their_own = read_skips(&log)?;
    counts.skip_of_passed(on_their_own.len());
    skipped.extend(on_their_own);
    ensure!(ok || counts.failed > 0, "nextest failed: see above");
    Ok(counts)
}

/// Further combinations of steering and acceleration, as environment variables for the daemon and the
/// harness. The main run has steering on and acceleration off.
const COMBINATIONS: [(&str, &str); 3] = [("auto", "auto"), ("off", "auto"), ("off", "off")];

/// Tests of listeners and connectors that carry traffic, without those that move much data.
const TRAFFIC_TESTS: &str = "binary(=blackbox) \
    and test(/^(listeners|connectors|streams|multi_key_listeners|health_checks)::/) \
    and not test(/thousands|large_transfers|100_mb|60_s|1_gib|rings_and_meshes/)";

/// Runs the tests that carry traffic in the other combinations of steering and acceleration.
fn combinations(args: &Args, skipped: &mut Vec<String>) -> Result<Counts> {
    let mut sum = Counts::default();
    if args.quick || !args.nextest.is_empty() {
        skipped.push(
            "combinations of steering and acceleration: only part of the tests was requested"
                .to_owned(),
        );
        return Ok(sum);
    }
    // The whole workspace, as in the main run: other features of shared dependencies would build them anew.
    let words = [
        "nextest",
        "run",
        "--workspace",
        "--locked",
        "--profile",
        "ci",
    ];
    for (steering, acceleration) in COMBINATIONS {
        eprintln!("tests that carry traffic with steering {steering}, acceleration {acceleration}");
        let mut command = sh::cargo(&words);
        command.args(["--filterset", TRAFFIC_TESTS]);
        command.env("SKUPPER_STEERING", steering);
        command.env("SKUPPER_TEST_ACCELERATION", acceleration);
        let (ok, lines) = tee(&mut command)?;
        let mut from_the_end = lines.iter().rev();
        let mut counts = from_the_end
            .find_map(|line| Counts::of_nextest(line))
            .context("no test was run: see above")?;
        ensure!(ok || counts.failed > 0, "nextest failed: see above");
        // Tests that the filter excludes are counted in the main run.
        counts.skipped = 0;
        sum = sum + counts;
    }
    Ok(sum)
}

/// Reads a line for each test that skipped itself.
fn read_skips(log: &Path) -> Result<Vec<String>> {
    if !log.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(log).with_context(|| log.display().to_string())?;
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    // A test that ran twice counts once.
    lines.sort();
    lines.dedup();
    Ok(lines)
}

/// Runs a command and passes its output on as it comes. Returns whether it succeeded, and the lines of
/// both its outputs.
fn tee(command: &mut Command) -> Result<(bool, Vec<String>)> {
    let words = sh::words(command);
    eprintln!("+ {words}");
    let (reader, writer) = std::io::pipe()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("starting {words}"))?;
    // Drops our copies of the writing end, so that reading ends when the child closes its own.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut lines = Vec::new();
    for line in BufReader::new(reader).lines() {
        let line = line?;
        eprintln!("{line}");
        lines.push(line);
    }
    Ok((child.wait()?.success(), lines))
}
