//! Secrets: their data, and their documents without it.

use super::{
    checks::{Problem, field},
    raw,
};
use crate::model;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use std::collections::BTreeMap;
use zeroize::{Zeroize, Zeroizing};

/// The type of Secret that must have a certificate with its key.
const TLS: &str = "kubernetes.io/tls";
/// Public parts of a Secret.
const PUBLIC: [&str; 3] = ["ca.crt", "tls.crt", "connect.json"];
/// Where `kubectl apply` keeps a copy of the whole resource.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The credentials of a Secret.
pub(super) fn convert(raw: &raw::Secret) -> Result<model::Secret, Problem> {
    let secret = model::Secret {
        ca: part(raw, "ca.crt")?.to_string(),
        certificate: part(raw, "tls.crt")?.to_string(),
        key: part(raw, "tls.key")?,
        proxy: proxy(raw)?,
    };
    if raw.secret_type.as_deref() == Some(TLS) {
        for (name, text) in [("tls.crt", &secret.certificate), ("tls.key", &*secret.key)] {
            if text.is_empty() {
                return Err(field(
                    &format!("data.{name}"),
                    format!("is required by type {TLS}"),
                ));
            }
        }
    }
    Ok(secret)
}

/// The proxy that a Secret describes, if it describes one.
fn proxy(raw: &raw::Secret) -> Result<Option<model::HttpProxy>, Problem> {
    let (_, host) = text(raw, "host")?;
    let (path, port) = text(raw, "port")?;
    let ((_, user), (_, password)) = (text(raw, "username")?, text(raw, "password")?);
    if host.is_empty() || port.is_empty() {
        return Ok(None);
    }
    let number = port.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let number = number.ok_or_else(|| field(&path, "is not a port (1..65535)"))?;
    Ok(Some(model::HttpProxy {
        host: host.trim().to_owned(),
        port: number,
        login: (!user.is_empty()).then(|| (user.to_string(), password)),
    }))
}

/// A part as PEM; empty when there is none.
fn part(raw: &raw::Secret, name: &str) -> Result<Zeroizing<String>, Problem> {
    let (path, text) = text(raw, name)?;
    if !text.is_empty() && !text.contains("-----BEGIN ") {
        return Err(field(&path, "is not PEM"));
    }
    Ok(text)
}

/// Path and text of a part; empty if there is none.
fn text(raw: &raw::Secret, name: &str) -> Result<(String, Zeroizing<String>), Problem> {
    let get = |data: &Option<BTreeMap<_, Option<raw::HiddenText>>>| {
        let text = data.as_ref()?.get(name)?.as_ref()?;
        Some(text.0.clone()).filter(|text| !text.is_empty())
    };
    // As in Kubernetes, plain text wins.
    let (path, text) = if let Some(text) = get(&raw.string_data) {
        (format!("stringData.{name}"), text)
    } else {
        let path = format!("data.{name}");
        let Some(encoded) = get(&raw.data) else {
            return Ok((path, Zeroizing::default()));
        };
        let compact: Zeroizing<Vec<u8>> = Zeroizing::new(
            encoded
                .bytes()
                .filter(|c| !c.is_ascii_whitespace())
                .collect(),
        );
        let bytes = STANDARD.decode(compact.as_slice());
        let bytes = Zeroizing::new(bytes.map_err(|_| field(&path, "is not base64"))?);
        let text = std::str::from_utf8(&bytes).map_err(|_| field(&path, "is not text"))?;
        (path, Zeroizing::new(text.to_owned()))
    };
    Ok((path, text))
}

/// Removes secrets from a document: confidential data of a Secret, the code of a grant or token, and
/// copies of them in annotations.
pub fn redact(document: &mut Value) {
    for data in ["data", "stringData"] {
        let Some(data) = document.get_mut(data).and_then(Value::as_object_mut) else {
            continue;
        };
        for (name, value) in data.iter_mut() {
            if !PUBLIC.contains(&name.as_str()) {
                wipe(value);
            }
        }
        data.retain(|name, _| PUBLIC.contains(&name.as_str()));
    }
    for code in ["spec", "status"] {
        if let Some(mut code) = document
            .get_mut(code)
            .and_then(Value::as_object_mut)
            .and_then(|o| o.remove("code"))
        {
            wipe(&mut code);
        }
    }
    let annotations = document
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut);
    if let Some(mut copy) = annotations.and_then(|a| a.remove(LAST_APPLIED)) {
        wipe(&mut copy);
    }
}

pub(super) fn redact_annotations(annotations: &mut BTreeMap<String, String>) {
    if let Some(mut copy) = annotations.remove(LAST_APPLIED) {
        copy.zeroize();
    }
}

fn wipe(value: &mut Value) {
    if let Value::String(text) = value {
        text.zeroize();
    }
}
