//! Builds the BPF programs with a cargo of their own. Shared by the build script and `cargo xtask demo`,
//! which starts this build first: it runs for a minute on one core, and cargo starts the build script
//! when no dependency is left to build.

use crate::toolchain::{self, Toolchain};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

/// The crate with the programs.
pub(crate) const PACKAGE: &str = "skupper-ebpf";

/// Builds the programs for a host of this endianness and architecture. Returns the directory of the
/// objects below `target_dir`.
pub(crate) fn build(
    root: &Path,
    target_dir: &Path,
    (endian, arch): (&str, &str),
) -> Result<PathBuf, String> {
    let toolchain = Toolchain::find()?;
    let linker = toolchain::linker()?;
    let target = match endian {
        "big" => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let arch = match arch {
        arch if arch.starts_with("riscv64") => "riscv64",
        arch => arch,
    };
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
            PACKAGE,
            "--bins",
            "--target",
            target,
            "-Zbuild-std=core",
        ])
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(root)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env(linker_variable, &linker)
        // The daemon's profile does not suit this target: bpf-linker links bitcode itself, and
        // generates BTF from the debug information.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("starting cargo of {}: {e}", toolchain.sysroot.display()))?;
    if !output.status.success() {
        return Err(format!(
            "{}\nthe build with {} failed (its LLVM is {}: {} needs the same)",
            String::from_utf8_lossy(&output.stderr).trim_end(),
            toolchain.sysroot.display(),
            toolchain.llvm,
            linker.display()
        ));
    }
    Ok(target_dir.join(target).join("release"))
}
