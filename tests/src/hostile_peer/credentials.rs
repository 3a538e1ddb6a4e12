//! Credentials of links, as they are in the documents that a site gives away.

use crate::{site::Site, tls};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use std::net::SocketAddr;

/// A client certificate with its key, and the CA of the site that it is for.
#[derive(Clone)]
pub struct Credentials {
    pub ca: String,
    pub own: tls::Pair,
}

impl Credentials {
    /// New credentials of a link to this site, as `skupper link generate` makes them.
    pub fn generate(site: &Site, addr: SocketAddr) -> Self {
        Self::of(&site.link(addr, 1))
    }

    /// The credentials in the documents of a link.
    pub fn of(documents: &str) -> Self {
        let secret = serde_yaml::Deserializer::from_str(documents)
            .filter_map(|document| serde_yaml::Value::deserialize(document).ok())
            .find(|document| document["kind"] == "Secret")
            .expect("a Secret");
        let text = |name: &str| {
            let text = secret["data"][name].as_str().expect("base64");
            String::from_utf8(STANDARD.decode(text).expect("base64")).expect("PEM")
        };
        Self {
            ca: text("ca.crt"),
            own: (text("tls.crt"), text("tls.key")),
        }
    }
}
