//! rathole with its TLS transport. Its clients have no certificates; they use a token.

use super::{Addresses, PeerContext, put};
use crate::process::Process;
use anyhow::{Context, Result, ensure};
use std::{
    path::Path,
    process::{Command, Stdio},
};

const PASSWORD: &str = "benchmark";

pub(super) fn start(ctx: &PeerContext, addresses: &Addresses, dir: &Path) -> Result<Vec<Process>> {
    let Addresses {
        listen,
        link,
        target,
    } = addresses;
    write_identity(ctx, dir)?;
    let ca = ctx.certificate("ca.crt");
    // What rathole calls the server is where its users connect.
    let sides = [
        (
            "server",
            format!(
                "[server]\n\
                 bind_addr = \"{link}\"\n\
                 default_token = \"{PASSWORD}\"\n\
                 [server.transport]\n\
                 type = \"tls\"\n\
                 [server.transport.tls]\n\
                 pkcs12 = \"server.p12\"\n\
                 pkcs12_password = \"{PASSWORD}\"\n\
                 [server.services.target]\n\
                 bind_addr = \"{listen}\"\n"
            ),
        ),
        (
            "client",
            format!(
                "[client]\n\
                 remote_addr = \"{link}\"\n\
                 default_token = \"{PASSWORD}\"\n\
                 [client.transport]\n\
                 type = \"tls\"\n\
                 [client.transport.tls]\n\
                 trusted_root = \"{ca}\"\n\
                 hostname = \"localhost\"\n\
                 [client.services.target]\n\
                 local_addr = \"{target}\"\n"
            ),
        ),
    ];
    let mut processes = Vec::new();
    for (side, text) in sides {
        let file = format!("{side}.toml");
        put(dir, &file, &text)?;
        let mut command = Command::new(&ctx.rathole);
        command
            .args([&format!("--{side}"), &file])
            .env("RUST_LOG", "warn");
        let name = format!("rathole-{side}");
        processes.push(Process::start(&name, &mut command, dir)?);
    }
    Ok(processes)
}

/// Its server reads certificate and key from one file in PKCS #12.
fn write_identity(ctx: &PeerContext, dir: &Path) -> Result<()> {
    let mut openssl = Command::new("openssl");
    openssl
        .args(["pkcs12", "-export", "-out", "server.p12"])
        .args(["-in", &ctx.certificate("server.crt")])
        .args(["-inkey", &ctx.certificate("server.key")])
        .args(["-passout", &format!("pass:{PASSWORD}")])
        .current_dir(dir)
        .stdin(Stdio::null());
    let output = openssl.output().context("starting openssl")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "openssl pkcs12: {}", errors.trim());
    Ok(())
}
