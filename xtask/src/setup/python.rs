//! Python packages for the tests, in a virtual environment under `target`.

use crate::sh;
use anyhow::Result;
use std::{path::PathBuf, process::Command};

/// An independent AMQP implementation.
const PACKAGE: &str = "python-qpid-proton==0.40.0";

/// The directory of the virtual environment.
pub(crate) fn venv() -> PathBuf {
    sh::target().join("venv")
}

/// A file that marks a complete environment; an incomplete one is recreated.
fn stamp() -> PathBuf {
    venv().join("installed")
}

pub(super) fn missing() -> bool {
    std::fs::read_to_string(stamp()).ok().as_deref() != Some(PACKAGE)
}

pub(super) fn words() -> String {
    format!("with pip, in {}: {PACKAGE}", venv().display())
}

pub(super) fn install() -> Result<()> {
    let venv = venv();
    sh::run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&venv),
    )?;
    sh::run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", PACKAGE]))?;
    std::fs::write(stamp(), PACKAGE)?;
    Ok(())
}
