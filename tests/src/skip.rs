//! Tests that cannot run on a machine report it and are counted as skipped.

use std::{
    env,
    fs::OpenOptions,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    thread,
};

/// The variable with the path of the file that [`skip`] appends to; `cargo xtask test` reports its
/// lines.
pub const LOG: &str = "SKUPPER_SKIP_LOG";

/// Reports that the calling test does not run here, and why. The caller then returns.
#[expect(clippy::print_stderr, reason = "output of the test")]
pub fn skip(reason: &str) {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    eprintln!("skipped: {test}: {reason}");
    let Some(path) = env::var_os(LOG) else { return };
    // One write for each line: tests append to the file concurrently.
    let line = format!("{test}: {reason}\n");
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Whether a program can be run with these arguments. If not, reports that the test is skipped.
pub fn program_runs(program: &Path, args: &[&str]) -> bool {
    let runs = Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success());
    if !runs {
        let words = args.join(" ");
        skip(&format!("{} {words} does not run", program.display()));
    }
    runs
}
