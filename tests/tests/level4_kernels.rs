//! The service on kernels of Debian's own, in virtual machines: steering, and limits that containers
//! do not have.

use skupper_tests::{
    machine::{installed, packages},
    program,
    skip::skip,
    target,
};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// What a virtual machine takes, and the word of `cargo xtask setup` that brings it.
const NEEDS: [&str; 3] = ["mmdebstrap", "mke2fs", "xz"];

#[test]
fn r15_limits_as_shipped_hold_5000_connections_and_little_memory_sheds_load_on_kernel_6_1() {
    limits("bookworm", "6.1.");
}

#[test]
fn r15_limits_as_shipped_hold_5000_connections_and_little_memory_sheds_load_on_kernel_6_12() {
    limits("trixie", "6.12.");
}

fn limits(suite: &str, kernel: &str) {
    if cfg!(not(target_arch = "x86_64")) {
        return skip("the virtual machines are made for x86-64");
    }
    if !nix::unistd::geteuid().is_root() {
        return skip("machines of their own need root");
    }
    if let Some(missing) = NEEDS.iter().find(|need| !installed(need)) {
        return skip(&format!(
            "no {missing} here: cargo xtask setup package brings it"
        ));
    }
    let Some(debs) = packages("deb") else { return };
    let files = tempfile::tempdir().expect("a directory");
    let testbed = Path::new(env!("CARGO_MANIFEST_DIR")).join("testbed");
    let copy = |from: &Path, name: &str| {
        fs::copy(from, files.path().join(name)).expect("a copy");
    };
    for (number, deb) in debs.iter().enumerate() {
        // Not compressed: undoing that takes longer than anything else there.
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
    let vm = |word: &str, more: &[&Path]| {
        Command::new(testbed.join("vm"))
            .arg(word)
            .arg(target().join("machines"))
            .arg(suite)
            .args(more)
            .stdin(Stdio::null())
            .output()
            .expect("the script runs")
    };
    let made = vm("make", &[]);
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(made.status.success(), "{said}");
    let output = vm("run", &[files.path()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    // Not at the beginning of its line: systemd resets the terminal that it takes this for.
    assert!(said.contains(&format!("kernel {kernel}")), "{said}");
}
