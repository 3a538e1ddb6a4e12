//! `skupper debug steer` and `sweep`: what the kernel holds for listeners.

use crate::cli::{
    Failure, Outcome,
    output::{self, Format},
    place::Place,
    show,
};
use anyhow::anyhow;
use serde_json::{Value, json};

pub(super) fn run(place: &Place, format: &Format) -> Outcome {
    let encoding = format.encoding()?;
    let listing = place
        .steering()?
        .ok_or_else(|| Failure::Failed(anyhow!("skupperd is not running")))?;
    if let Some(encoding) = encoding {
        return output::document(&listing, encoding);
    }
    output::details(&[
        ("Steering", words(&listing)),
        ("Acceleration", accelerated(&listing)),
        ("Clients in a restart", kept(&listing)),
    ])?;
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
            "ROUTING KEY",
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

/// Whether the kernel steers, and why not.
pub(in crate::cli) fn words(listing: &Value) -> String {
    on_or_why(&listing["enabled"], &listing["reason"], "on", "off")
}

/// Whether connections are accelerated that ask for it, and why not.
pub(in crate::cli) fn accelerated(listing: &Value) -> String {
    let standing = &listing["acceleration"];
    on_or_why(&standing["enabled"], &standing["reason"], "on", "off")
}

/// What becomes of clients while the daemon is restarted.
fn kept(listing: &Value) -> String {
    on_or_why(
        &listing["kept"],
        &listing["keptReason"],
        "wait",
        "are refused",
    )
}

fn on_or_why(is: &Value, why: &Value, yes: &str, no: &str) -> String {
    match (is.as_bool(), why.as_str()) {
        (Some(true), _) => yes.to_owned(),
        (_, Some(why)) => format!("{no}: {why}"),
        (_, None) => no.to_owned(),
    }
}

#[cfg(feature = "ebpf")]
pub(super) fn sweep(format: &Format) -> Outcome {
    let encoding = format.encoding()?;
    let gone = crate::steer::sweep().map_err(anyhow::Error::from)?;
    if let Some(encoding) = encoding {
        return output::document(&json!({ "removed": gone }), encoding);
    }
    for dir in &gone {
        output::print(&format!("{} removed", dir.display()))?;
    }
    match gone.is_empty() {
        true => output::print("Nothing is left over"),
        false => Ok(()),
    }
}

#[cfg(not(feature = "ebpf"))]
pub(super) fn sweep(format: &Format) -> Outcome {
    match format.encoding()? {
        Some(encoding) => output::document(&json!({ "removed": [] }), encoding),
        None => output::print("Nothing is left over: this program is built without eBPF"),
    }
}
