//! Images of the virtual machines. Building them takes longer than using them, on one processor, so
//! these tests build them beside other tests. `kernels` builds missing ones.

use skupper_tests::{machine::installed, skip::skip, target};
use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

/// Programs that virtual machines need; `cargo xtask setup package` installs them.
const NEEDS: [&str; 3] = ["mmdebstrap", "mke2fs", "xz"];

/// Whether virtual machines run here. If not, reports that the test is skipped.
pub(crate) fn available() -> bool {
    let missing = NEEDS.iter().find(|need| !installed(need));
    if cfg!(not(target_arch = "x86_64")) {
        skip("the virtual machines are made for x86-64");
    } else if !nix::unistd::geteuid().is_root() {
        skip("machines of their own need root");
    } else if let Some(missing) = missing {
        skip(&format!(
            "no {missing} here: cargo xtask setup package brings it"
        ));
    } else {
        return true;
    }
    false
}

/// Runs `testbed/vm`.
pub(crate) fn vm(word: &str, suite: &str, more: &[&Path]) -> Output {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("testbed/vm"))
        .arg(word)
        .arg(target().join("machines"))
        .arg(suite)
        .args(more)
        .stdin(Stdio::null())
        .output()
        .expect("the script runs")
}

/// Builds the image of a Debian release if it is missing.
pub(crate) fn make(suite: &str) {
    let made = vm("make", suite, &[]);
    let errors = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{errors}");
}

fn make_and_check(suite: &str) {
    if !available() {
        return;
    }
    make(suite);
    let dir = target().join("machines").join(format!("vm-{suite}"));
    for file in ["kernel", "initrd", "disk"] {
        assert!(dir.join(file).is_file(), "{file} of {suite}");
    }
}

#[test]
fn the_image_of_debian_12_is_made() {
    make_and_check("bookworm");
}

#[test]
fn the_image_of_debian_13_is_made() {
    make_and_check("trixie");
}
