//! Tests that cannot run on a machine say so, and are counted as skipped.

use std::{env, fs::OpenOptions, io::Write, thread};

/// Names the file that [`skip`] adds to; `cargo xtask test` sets it and reports what is there.
pub const LOG: &str = "SKUPPER_SKIP_LOG";

/// Says that the calling test does not run here, and why. The test then returns.
#[expect(clippy::print_stderr, reason = "the test's own output")]
pub fn skip(reason: &str) {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    eprintln!("skipped: {test}: {reason}");
    let Some(path) = env::var_os(LOG) else { return };
    // One write for a line: several tests add to the file at the same time.
    let line = format!("{test}: {reason}\n");
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
