//! `skupper system generate-bundle`: a site in one file, for a host that has only the packages.

use super::{CommandResult, Failure, archive::Archive, invalid, output, target::CommandTarget};
use crate::{
    manifest::to_yaml,
    model::check_name,
    operate::{self, Bundle},
    store::write_own,
};
use anyhow::anyhow;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use std::path::PathBuf;

const INSTALL: &str = include_str!("bundle/install.sh");

/// Head of a shell-script bundle: unpacks the archive behind the script and runs install.sh. @LINE@ is
/// the line at which the archive begins.
const UNPACK: &str = "#!/bin/sh\n\
    # Installs a Skupper site on this host; -h shows the options. The archive begins after the last line.\n\
    set -eu\n\
    umask 077\n\
    dir=$(mktemp -d)\n\
    trap 'rm -rf \"$dir\"' EXIT\n\
    tail -n +@LINE@ \"$0\" | tar -xzf - -C \"$dir\"\n\
    sh \"$dir/install.sh\" \"$@\"\n\
    exit\n";

#[derive(Debug, Args)]
pub(super) struct BundleOptions {
    /// Name of the bundle, and of the file
    name: String,
    /// Directory with the resource files [default: that of the namespace]
    #[arg(long, value_name = "DIR")]
    input: Option<PathBuf>,
    /// Form of the bundle: tarball (an archive with install.sh) or shell-script
    #[arg(
        long = "type",
        value_enum,
        hide_possible_values = true,
        default_value_t
    )]
    form: BundleForm,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum BundleForm {
    #[default]
    Tarball,
    ShellScript,
}

pub(super) fn run(target: &CommandTarget, options: &BundleOptions) -> CommandResult {
    check_name(&options.name).map_err(|e| invalid(format!("bundle name is not valid: {e}")))?;
    let namespace = target.layout.namespace(target.name());
    let namespace = match &options.input {
        None => namespace,
        Some(dir) if !dir.exists() => return Err(invalid("The input path does not exist")),
        Some(dir) if !dir.is_dir() => return Err(invalid("The input path must be a directory")),
        Some(dir) => namespace.with_input(dir),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let bundle = runtime.block_on(operate::bundle(&namespace))?;
    let packed = pack(&bundle, target.name().as_str())?;
    let (ending, mode, bytes) = match options.form {
        BundleForm::Tarball => ("tar.gz", 0o600, packed),
        BundleForm::ShellScript => ("sh", 0o700, script(&packed)),
    };
    let dir = target.layout.state().join("bundles");
    let path = dir.join(format!("{}.{ending}", options.name));
    // It contains keys, so only the owner may read it.
    write_own(&path, &bytes, mode).map_err(|e| anyhow!("{}: {e}", path.display()))?;
    output::print(&format!(
        "Installation bundle available at: {}",
        path.display()
    ))?;
    output::print(&format!("Default namespace: {}", target.name()))?;
    output::print("Default platform: linux")
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
