//! haproxy: two processes in TCP mode, with certificates of both sides.

use super::{Addresses, PeerContext, put};
use crate::process::Process;
use anyhow::Result;
use std::{path::Path, process::Command};

/// More connections than the load opens. haproxy does not start if the limit of descriptors is below
/// twice this number.
const GLOBAL: &str = "\
global
  maxconn 3000
defaults
  mode tcp
  maxconn 3000
  timeout connect 5s
  timeout client 1h
  timeout server 1h
";

pub(super) fn start(ctx: &PeerContext, addresses: &Addresses, dir: &Path) -> Result<Vec<Process>> {
    let Addresses {
        listen,
        link,
        target,
    } = addresses;
    let (ca, server, client) = (
        ctx.certificate("ca.crt"),
        ctx.certificate("server.pem"),
        ctx.certificate("client.pem"),
    );
    let tls = "verify required ssl-min-ver TLSv1.3";
    let sides = [
        (
            "server",
            format!(
                "  bind {link} ssl crt {server} ca-file {ca} {tls}\n  server target {target}\n"
            ),
        ),
        (
            "client",
            format!("  bind {listen}\n  server link {link} ssl crt {client} ca-file {ca} {tls}\n"),
        ),
    ];
    let mut processes = Vec::new();
    for (side, lines) in sides {
        let file = format!("{side}.cfg");
        put(dir, &file, &format!("{GLOBAL}listen {side}\n{lines}"))?;
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f", &file]);
        let name = format!("haproxy-{side}");
        processes.push(Process::start(&name, &mut command, dir)?);
    }
    Ok(processes)
}
