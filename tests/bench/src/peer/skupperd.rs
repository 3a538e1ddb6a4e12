//! skupperd: two sites with default settings, one link, a listener and a connector. Only what every
//! commit of the project understands: manifests, `link generate` and `system apply`.

use super::{Addresses, put};
use crate::process::Process;
use anyhow::{Context, Result, ensure};
use std::{
    env,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

/// The site of the server, which accepts the link, and the site of the clients.
const SITES: [&str; 2] = ["east", "west"];

pub(super) fn start(programs: &Path, addresses: &Addresses, dir: &Path) -> Result<Vec<Process>> {
    let [east, west] = SITES;
    for site in SITES {
        resource(dir, site, "Site", "{}")?;
    }
    let (ip, port) = (addresses.link.ip(), addresses.link.port());
    let access = format!("{{bindHost: {ip}, roles: [{{name: inter-router, port: {port}}}]}}");
    resource(dir, east, "RouterAccess", &access)?;
    resource(dir, east, "Connector", &service(addresses.target))?;
    resource(dir, west, "Listener", &service(addresses.listen))?;
    let link = skupper(
        programs,
        dir,
        &[
            "--root",
            east,
            "link",
            "generate",
            "--host",
            &ip.to_string(),
        ],
    )?;
    put(dir, "link.yaml", &link)?;
    skupper(
        programs,
        dir,
        &["--root", west, "system", "apply", "-f", "link.yaml"],
    )?;
    SITES
        .into_iter()
        .map(|site| {
            let mut command = command(programs, "skupperd");
            command.args(["--root", site]);
            Process::start(&format!("skupperd-{site}"), &mut command, dir)
        })
        .collect()
}

fn resource(dir: &Path, site: &str, kind: &str, spec: &str) -> Result<()> {
    let file = format!("{site}/namespaces/default/input/resources/{kind}.yaml");
    let text = format!(
        "apiVersion: skupper.io/v2alpha1\nkind: {kind}\nmetadata: {{name: {site}}}\nspec: {spec}\n"
    );
    put(dir, &file, &text)
}

fn service(addr: SocketAddr) -> String {
    let (ip, port) = (addr.ip(), addr.port());
    format!("{{routingKey: target, host: {ip}, port: {port}}}")
}

/// A program without the caller's settings for it.
fn command(programs: &Path, name: &str) -> Command {
    let mut command = Command::new(programs.join(name));
    for (variable, _) in env::vars_os() {
        if variable.to_string_lossy().starts_with("SKUPPER_") {
            command.env_remove(variable);
        }
    }
    command
}

/// Runs the command and returns what it prints.
fn skupper(programs: &Path, dir: &Path, args: &[&str]) -> Result<String> {
    let mut command = command(programs, "skupper");
    command.args(args).current_dir(dir).stdin(Stdio::null());
    let output = command.output().with_context(|| {
        let program = command.get_program().to_string_lossy();
        format!("starting {program}")
    })?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let words = args.join(" ");
    ensure!(
        output.status.success(),
        "skupper {words}: {}",
        errors.trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}
