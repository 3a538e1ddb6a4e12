//! `skupper debug steer` and `sweep`: the eBPF state of listeners in the kernel.

use crate::cli::{
    CommandResult, Failure, kernel_state,
    output::{self, OutputArgs},
    show,
    target::CommandTarget,
};
use anyhow::anyhow;
use serde_json::{Value, json};

pub(super) fn run(target: &CommandTarget, format: &OutputArgs) -> CommandResult {
    let encoding = format.encoding()?;
    let listing = target.steering()?.ok_or_else(|| {
        Failure::Failed(anyhow!(
            "skupperd is not running: start it with skupper system start"
        ))
    })?;
    if let Some(encoding) = encoding {
        return output::document(&listing, encoding);
    }
    output::print(&output::lines(&[
        ("Steering", kernel_state::steering(&listing)),
        ("Acceleration", kernel_state::acceleration(&listing)),
        ("Clients in a restart", kernel_state::restart(&listing)),
    ]))?;
    let rows = |of: &str, row: fn(&Value) -> Vec<String>| -> Vec<Vec<String>> {
        listing[of]
            .as_array()
            .into_iter()
            .flatten()
            .map(row)
            .collect()
    };
    let bindings = rows("bindings", |v| {
        let text = |path: &str| show::text(v, path);
        vec![
            format!("{}/{}", text("/address"), text("/prefix")),
            text("/ports"),
            text("/namespace"),
            text("/listener"),
            text("/routingKey"),
            text("/steered"),
            text("/refused"),
        ]
    });
    if !bindings.is_empty() {
        output::print("")?;
        let header = [
            "ADDRESS",
            "PORTS",
            "NAMESPACE",
            "LISTENER",
            "ROUTING-KEY",
            "STEERED",
            "REFUSED",
        ];
        output::table(&header, &bindings)?;
    }
    let sockets = rows("sockets", |v| {
        let text = |path: &str| show::text(v, path);
        vec![text("/worker"), text("/address"), text("/adopted")]
    });
    if !sockets.is_empty() {
        output::print("")?;
        output::table(&["WORKER", "SOCKET", "ADOPTED"], &sockets)?;
    }
    Ok(())
}

#[cfg(feature = "ebpf")]
pub(super) fn sweep(format: &OutputArgs) -> CommandResult {
    let encoding = format.encoding()?;
    let removed = crate::steer::sweep().map_err(anyhow::Error::from)?;
    if let Some(encoding) = encoding {
        return output::document(&json!({ "removed": removed }), encoding);
    }
    for dir in &removed {
        output::print(&format!("{} removed", dir.display()))?;
    }
    match removed.is_empty() {
        true => output::print("Nothing to remove"),
        false => Ok(()),
    }
}

#[cfg(not(feature = "ebpf"))]
pub(super) fn sweep(format: &OutputArgs) -> CommandResult {
    match format.encoding()? {
        Some(encoding) => output::document(&json!({ "removed": [] }), encoding),
        None => output::print("Nothing to remove: this program is built without eBPF"),
    }
}
