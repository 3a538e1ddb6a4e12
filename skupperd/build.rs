//! Builds the BPF programs, to be embedded in the daemon.

#[path = "build/programs.rs"]
mod programs;
#[path = "build/toolchain.rs"]
mod toolchain;

use std::{
    env, fs,
    path::{Path, PathBuf},
};
use toolchain::OVERRIDE;

/// The binaries of the crate with the programs. The daemon loads each of these objects with all its maps.
const OBJECTS: [&str; 2] = ["skupper-ebpf", "skupper-accel"];

/// Help text for a failed build.
const ADVICE: &str = "run `cargo xtask setup`, or build without eBPF: \
    --no-default-features --features daemon,cli";

fn main() {
    if env::var_os("CARGO_FEATURE_EBPF").is_none() {
        println!("cargo::rerun-if-changed=build.rs");
        return;
    }
    if let Err(reason) = build() {
        for line in reason.lines() {
            println!("cargo::error=eBPF programs: {line}");
        }
        println!("cargo::error={ADVICE}");
    }
}

fn build() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let out = PathBuf::from(variable("OUT_DIR")?);
    // Not Cargo.lock: every new dependency of any crate would rebuild the programs.
    for file in ["skupperd/build.rs", "skupperd/build", programs::PACKAGE] {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
    println!("cargo::rerun-if-env-changed={OVERRIDE}");

    let (endian, arch) = (
        variable("CARGO_CFG_TARGET_ENDIAN")?,
        variable("CARGO_CFG_TARGET_ARCH")?,
    );
    let objects = programs::build(&root, &shared_target_dir(&out), (&endian, &arch))?;
    for object in OBJECTS {
        let built = objects.join(object);
        let embedded = out.join(object);
        fs::copy(&built, &embedded).map_err(|e| {
            let (built, embedded) = (built.display(), embedded.display());
            format!("copying {built} to {embedded}: {e}")
        })?;
    }
    Ok(())
}

/// One target directory for all profiles and feature sets: the programs are always built the same
/// way, and building `core` takes a minute.
fn shared_target_dir(out: &Path) -> PathBuf {
    // OUT_DIR is <target>/[<triple>/]<profile>/build/<package>-<hash>/out.
    let build = out
        .ancestors()
        .find(|dir| dir.file_name().is_some_and(|name| name == "build"));
    build
        .and_then(|dir| dir.parent()?.parent())
        .unwrap_or(out)
        .join("ebpf")
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|e| format!("{name}: {e}"))
}
