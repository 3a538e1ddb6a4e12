//! Builds the BPF programs, to be embedded in the daemon.

#[path = "build/toolchain.rs"]
mod toolchain;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
};
use toolchain::{OVERRIDE, Toolchain};

/// The crate with the programs.
const PROGRAMS: &str = "skupper-ebpf";

/// Its binaries, which are the objects' names for the daemon: each is loaded with all its maps.
const OBJECTS: [&str; 2] = ["skupper-ebpf", "skupper-accel"];

/// What is said when something is missing.
const ADVICE: &str = "run `cargo xtask setup`, or build without eBPF: \
    --no-default-features --features daemon,cli";

fn main() {
    if env::var_os("CARGO_FEATURE_EBPF").is_none() {
        println!("cargo::rerun-if-changed=build.rs");
        return;
    }
    if let Err(reason) = build() {
        println!("cargo::error=eBPF programs: {reason}");
        println!("cargo::error={ADVICE}");
    }
}

fn build() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let out = PathBuf::from(variable("OUT_DIR")?);
    // Not Cargo.lock: any new dependency of anybody would build the daemon anew.
    for file in ["skupperd/build.rs", "skupperd/build", PROGRAMS] {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
    println!("cargo::rerun-if-env-changed={OVERRIDE}");

    let toolchain = Toolchain::find()?;
    let linker = toolchain::linker()?;
    let target = match variable("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let arch = match variable("CARGO_CFG_TARGET_ARCH")? {
        arch if arch.starts_with("riscv64") => "riscv64".to_owned(),
        arch => arch,
    };
    let target_dir = shared_target_dir(&out);
    let linker_variable = format!(
        "CARGO_TARGET_{}_LINKER",
        target.to_uppercase().replace('-', "_")
    );
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Clink-arg=--btf".to_owned(),
        "-Dwarnings".to_owned(),
    ];

    let output = toolchain
        .cargo()
        .args([
            "build",
            "--release",
            "--locked",
            "--ignore-rust-version",
            "--quiet",
        ])
        .args([
            "--package",
            PROGRAMS,
            "--bins",
            "--target",
            target,
            "-Zbuild-std=core",
        ])
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(&root)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env(linker_variable, &linker)
        // The daemon's profile is not for this target: bpf-linker links bitcode by itself, and
        // makes the type information from the debug information.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("starting cargo of {}: {e}", toolchain.sysroot.display()))?;
    if !output.status.success() {
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            println!("cargo::error={line}");
        }
        return Err(format!(
            "the build with {} failed (its LLVM is {}: {} needs the same)",
            toolchain.sysroot.display(),
            toolchain.llvm,
            linker.display()
        ));
    }
    for object in OBJECTS {
        let built = target_dir.join(target).join("release").join(object);
        let embedded = out.join(object);
        fs::copy(&built, &embedded).map_err(|e| {
            let (built, embedded) = (built.display(), embedded.display());
            format!("copying {built} to {embedded}: {e}")
        })?;
    }
    Ok(())
}

/// One directory for all profiles and feature sets, beside theirs: the programs are always built
/// the same way, and `core` with them takes a minute.
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
