//! The service on Debian's own kernels in virtual machines: steering, and limits that containers
//! do not enforce.

use super::images::{available, make, vm};
use skupper_tests::{machine::packages, program};
use std::{fs, path::Path, process::Command};

#[test]
fn shipped_limits_hold_5000_connections_and_low_memory_sheds_load_on_kernel_6_1() {
    limits("bookworm", "6.1.");
}

#[test]
fn shipped_limits_hold_5000_connections_and_low_memory_sheds_load_on_kernel_6_12() {
    limits("trixie", "6.12.");
}

fn limits(suite: &str, kernel: &str) {
    if !available() {
        return;
    }
    let Some(debs) = packages("deb") else { return };
    let files = tempfile::tempdir().expect("a directory");
    let testbed = Path::new(env!("CARGO_MANIFEST_DIR")).join("testbed");
    let copy = |from: &Path, name: &str| {
        fs::copy(from, files.path().join(name)).expect("a copy");
    };
    for (number, deb) in debs.iter().enumerate() {
        // Uncompressed, because decompression would dominate the time in the emulator.
        let tree = tempfile::tempdir().expect("a directory");
        let again = files.path().join(format!("{number}.deb"));
        for (word, more) in [
            ("-R", [deb.as_path(), tree.path()]),
            ("-b", [tree.path(), &again]),
        ] {
            let words = ["--nocheck", "-Znone", word];
            let done = Command::new("dpkg-deb").args(words).args(more).output();
            let done = done.expect("dpkg-deb");
            assert!(
                done.status.success(),
                "{}",
                String::from_utf8_lossy(&done.stderr)
            );
        }
    }
    copy(&program("hold"), "hold");
    copy(&testbed.join("limits"), "run");
    make(suite);
    let output = vm("run", suite, &[files.path()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    // Not at the start of a line: systemd resets the terminal first.
    assert!(said.contains(&format!("kernel {kernel}")), "{said}");
}
