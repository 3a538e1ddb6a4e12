//! `skupper system generate-bundle`: a site in one file, to be set up on a host that has only our
//! packages.

use super::{Failure, Outcome, archive::Archive, invalid, output, place::Place};
use crate::{
    manifest::to_yaml,
    model::check_name,
    operate::{self, Bundle},
    store::write_file,
};
use anyhow::anyhow;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use std::{
    fs,
    path::{Path, PathBuf},
};

const INSTALL: &str = include_str!("bundle/install.sh");

/// What unpacks a script's own end and runs what is in it; the number of its lines comes first.
const UNPACK: &str = "#!/bin/sh\n\
    # Sets up a Skupper site on this host: -h says how. The archive begins after the last line.\n\
    set -eu\n\
    umask 077\n\
    dir=$(mktemp -d)\n\
    trap 'rm -rf \"$dir\"' EXIT\n\
    tail -n +@LINE@ \"$0\" | tar -xzf - -C \"$dir\"\n\
    sh \"$dir/install.sh\" \"$@\"\n\
    exit\n";

#[derive(Debug, Args)]
pub(super) struct Wish {
    /// Name of the bundle
    name: String,
    /// Directory of the resources [default: those of the namespace]
    #[arg(long, value_name = "DIR")]
    input: Option<PathBuf>,
    /// What is made
    #[arg(long = "type", value_enum, default_value_t)]
    form: Form,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Form {
    /// An archive with a script install.sh
    #[default]
    Tarball,
    /// A script that has the archive in itself
    ShellScript,
}

pub(super) fn run(place: &Place, wish: &Wish) -> Outcome {
    check_name(&wish.name).map_err(|e| invalid(format!("bundle name is not valid: {e}")))?;
    let namespace = place.layout.namespace(place.name());
    let namespace = match &wish.input {
        None => namespace,
        Some(dir) if !dir.exists() => return Err(invalid("The input path does not exist")),
        Some(dir) if !dir.is_dir() => return Err(invalid("The input path must be a directory")),
        Some(dir) => namespace.with_input(dir),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let bundle = runtime.block_on(operate::bundle(&namespace))?;
    let packed = pack(&bundle, place.name().as_str())?;
    let (ending, mode, bytes) = match wish.form {
        Form::Tarball => ("tar.gz", 0o600, packed),
        Form::ShellScript => ("sh", 0o700, script(&packed)),
    };
    let dir = place.layout.state().join("bundles");
    let path = dir.join(format!("{}.{ending}", wish.name));
    write(&dir, &path, &bytes, mode).map_err(|e| anyhow!("{}: {e}", path.display()))?;
    output::print(&format!(
        "Installation bundle available at: {}",
        path.display()
    ))?;
    output::print(&format!("Default namespace: {}", place.name()))?;
    output::print("Default platform: linux")
}

/// There are keys in it: nobody else may read it.
fn write(dir: &Path, path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    write_file(path, bytes, mode)
}

fn pack(bundle: &Bundle, namespace: &str) -> Result<Vec<u8>, Failure> {
    let mut archive = Archive::new(Timestamp::now());
    let mut resources = String::new();
    for document in &bundle.documents {
        resources.push_str("---\n");
        resources.push_str(&to_yaml(document).map_err(anyhow::Error::from)?);
    }
    archive.add("install.sh", 0o700, INSTALL.as_bytes())?;
    archive.add("resources.yaml", 0o600, resources.as_bytes())?;
    archive.add("site", 0o600, bundle.site.as_bytes())?;
    archive.add("namespace", 0o600, namespace.as_bytes())?;
    archive.finish()
}

fn script(packed: &[u8]) -> Vec<u8> {
    let line = UNPACK.lines().count() + 1;
    let mut script = UNPACK.replace("@LINE@", &line.to_string()).into_bytes();
    script.extend(packed);
    script
}
