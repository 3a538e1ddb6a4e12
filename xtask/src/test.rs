//! `cargo xtask test`: everything that this machine can run. Says at the end what was skipped and
//! why; the last line is the sum.

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
    /// Leave out whole machines (levels 3 and 4), and tests that move or hold much
    #[arg(long)]
    quick: bool,
    /// More words for cargo nextest, such as a part of a test's name
    #[arg(last = true)]
    nextest: Vec<String>,
}

/// Tests that find the machine lacking say so in the file that this names.
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
            ("nextest, other ways", other_ways),
            ("doc tests", doc_tests),
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

/// What the tests take. Machines of their own, and what is installed in them, are for root only: for
/// others that is minutes of set-up for tests that skip themselves.
fn groups(args: &Args) -> &'static [Group] {
    if args.quick || !geteuid().is_root() {
        &[Group::Build, Group::Test]
    } else {
        &[Group::Build, Group::Test, Group::Package]
    }
}

fn nextest(args: &Args, skipped: &mut Vec<String>) -> Result<Counts> {
    // The black-box tests start the programs, which are not theirs to build.
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
        skipped.push(format!("{} tests: left out by {why}", counts.skipped));
    }
    let on_their_own = read_skips(&log)?;
    counts.skip_of_passed(on_their_own.len());
    skipped.extend(on_their_own);
    ensure!(ok || counts.failed > 0, "it ended badly: see above");
    Ok(counts)
}

/// Steering and acceleration, as environment variables have it that daemons and the tests' harness
/// read. What is run anyway is the first switched on, and the second not asked for.
const WAYS: [(&str, &str); 3] = [("auto", "auto"), ("off", "auto"), ("off", "off")];

/// The tests of the main job that carry traffic. Left out is what moves or holds much.
const MAIN_JOB: &str = "binary(/^(services|ends)$/) \
    and not test(/thousands|large_transfers|100_mb|60_s|1_gib|rings_and_meshes/)";

/// The main job in the other combinations of steering and acceleration on and off.
fn other_ways(args: &Args, skipped: &mut Vec<String>) -> Result<Counts> {
    let mut sum = Counts::default();
    if args.quick || !args.nextest.is_empty() {
        skipped.push(
            "the main job with steering and acceleration on and off: a part was asked for"
                .to_owned(),
        );
        return Ok(sum);
    }
    let words = [
        "nextest",
        "run",
        "--package",
        "skupper-tests",
        "--locked",
        "--profile",
        "ci",
    ];
    for (steering, acceleration) in WAYS {
        eprintln!("the main job with steering {steering}, acceleration {acceleration}");
        let mut command = sh::cargo(&words);
        command.args(["--filterset", MAIN_JOB]);
        command.env("SKUPPER_STEERING", steering);
        command.env("SKUPPER_TEST_ACCELERATION", acceleration);
        let (ok, lines) = tee(&mut command)?;
        let mut from_the_end = lines.iter().rev();
        let mut counts = from_the_end
            .find_map(|line| Counts::of_nextest(line))
            .context("no test was run: see above")?;
        ensure!(ok || counts.failed > 0, "it ended badly: see above");
        // Those that the filter leaves out are run the usual way.
        counts.skipped = 0;
        sum = sum + counts;
    }
    Ok(sum)
}

fn doc_tests(_: &Args, skipped: &mut Vec<String>) -> Result<Counts> {
    let (ok, lines) = tee(&mut sh::cargo(&[
        "test",
        "--workspace",
        "--doc",
        "--quiet",
        "--locked",
    ]))?;
    let counts = lines
        .iter()
        .filter_map(|line| Counts::of_libtest(line))
        .fold(Counts::default(), |sum, counts| sum + counts);
    if counts.skipped > 0 {
        skipped.push(format!("{} doc tests: marked ignore", counts.skipped));
    }
    ensure!(ok || counts.failed > 0, "it ended badly: see above");
    Ok(counts)
}

/// A line for each test that skipped itself.
fn read_skips(log: &Path) -> Result<Vec<String>> {
    if !log.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(log).with_context(|| log.display().to_string())?;
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    // A test that was tried twice is one.
    lines.sort();
    lines.dedup();
    Ok(lines)
}

/// Runs a command, passing on what it says as it says it. Returns whether it ended well, and the
/// lines of both its outputs.
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
    // The command holds the ends for writing: reading would not end while we have them too.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut lines = Vec::new();
    for line in BufReader::new(reader).lines() {
        let line = line?;
        eprintln!("{line}");
        lines.push(line);
    }
    Ok((child.wait()?.success(), lines))
}
