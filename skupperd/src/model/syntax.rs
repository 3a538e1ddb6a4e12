//! Syntax of names, hosts and ports: one set of rules for command and daemon.

use std::net::IpAddr;

/// Namespace when none is named.
pub const DEFAULT_NAMESPACE: &str = "default";

const NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])*(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])*)*$";
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Longest name (RFC 1123 subdomain) and label.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

fn label(text: &str) -> bool {
    let edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(edge)
        && bytes.last().copied().is_some_and(edge)
        && bytes.iter().all(|c| edge(*c) || *c == b'-')
}

/// Names of resources, routing keys and credentials.
pub fn check_name(text: &str) -> Result<(), String> {
    if text.len() > MAX_NAME {
        return Err(format!("value is longer than {MAX_NAME} characters"));
    }
    if text.split('.').all(label) {
        Ok(())
    } else {
        Err(format!(
            "value does not match this regular expression: {NAME}"
        ))
    }
}

/// Names of namespaces.
pub fn check_namespace(text: &str) -> Result<(), String> {
    if text.len() > MAX_LABEL {
        return Err(format!("value is longer than {MAX_LABEL} characters"));
    }
    if label(text) {
        Ok(())
    } else {
        Err(format!(
            "value does not match this regular expression: {LABEL}"
        ))
    }
}

/// Hosts of listeners and connectors.
pub fn check_host(text: &str) -> Result<(), String> {
    let name = text.len() <= MAX_NAME && text.split('.').all(|l| label(l) && l.len() <= MAX_LABEL);
    // All digits and dots is an address, and then a malformed one.
    let address_like = text.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    if text.parse::<IpAddr>().is_ok() || (name && !address_like) {
        Ok(())
    } else {
        Err("a valid IP address or hostname is expected".to_owned())
    }
}

/// A port as an integer of any size.
pub fn parse_port(port: i64) -> Result<u16, String> {
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{port} is not a port (1..65535)")),
    }
}
