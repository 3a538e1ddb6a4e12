//! What the daemon reports of the kernel's part in listeners, as text.

use serde_json::Value;

/// Whether the kernel steers, and if not, why.
pub(super) fn steering(listing: &Value) -> String {
    on_or_why(&listing["enabled"], &listing["reason"], "on", "off")
}

/// Whether the kernel can accelerate connections, and if not, why.
pub(super) fn acceleration(listing: &Value) -> String {
    let acceleration = &listing["acceleration"];
    on_or_why(
        &acceleration["enabled"],
        &acceleration["reason"],
        "on",
        "off",
    )
}

/// What happens to new clients while the daemon restarts.
pub(super) fn restart(listing: &Value) -> String {
    on_or_why(
        &listing["kept"],
        &listing["keptReason"],
        "wait",
        "are refused",
    )
}

fn on_or_why(enabled: &Value, reason: &Value, yes: &str, no: &str) -> String {
    match (enabled.as_bool(), reason.as_str()) {
        (Some(true), _) => yes.to_owned(),
        (_, Some(reason)) => format!("{no}: {reason}"),
        (_, None) => no.to_owned(),
    }
}
