//! What is remembered of a namespace between runs.

use super::{Done, Executor};
use crate::store::{SHARED, read_text, write_file};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io, time::SystemTime};

/// Version of the memory file; a later one is not touched.
const MEMORY_VERSION: u32 = 1;

/// What is remembered of a namespace between runs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Memory {
    version: u32,
    pub(super) site_id: String,
    /// Ports of link accesses that were chosen here, by access and role.
    #[serde(default)]
    pub(super) ports: BTreeMap<String, u16>,
}

impl Executor {
    /// Identity and ports from earlier runs; made on first need.
    pub(super) fn remember(&mut self, uid: Option<&str>) -> Result<&mut Memory, String> {
        if self.memory.is_none() {
            let path = self.namespace.internal().join("site.json");
            let memory = match read_text(&path) {
                Ok(text) => serde_json::from_str::<Memory>(&text)
                    .map_err(|e| format!("reading {}: {e}", path.display()))?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => Memory {
                    version: MEMORY_VERSION,
                    site_id: uid.map_or_else(new_id, str::to_owned),
                    ports: BTreeMap::new(),
                },
                Err(e) => return Err(format!("reading {}: {e}", path.display())),
            };
            if memory.version > MEMORY_VERSION {
                return Err(format!(
                    "{} is of version {}, and this program knows {MEMORY_VERSION}",
                    path.display(),
                    memory.version
                ));
            }
            self.memory = Some(memory);
            self.save()?;
        }
        self.memory.as_mut().ok_or_else(|| "no memory".to_owned())
    }

    /// A port that was chosen here in an earlier run.
    pub(in crate::reconcile) fn port(&mut self, of: &str) -> Option<u16> {
        self.memory.as_ref()?.ports.get(of).copied()
    }

    /// Remembers a port that was chosen here.
    pub(in crate::reconcile) fn keep_port(&mut self, of: &str, port: u16) -> Done {
        let ports = &mut self.remember(None)?.ports;
        if ports.insert(of.to_owned(), port) == Some(port) {
            return Ok(());
        }
        self.save()
    }

    pub(super) fn save(&self) -> Done {
        let path = self.namespace.internal().join("site.json");
        let text = serde_json::to_string_pretty(&self.memory)
            .map_err(|e| format!("encoding {}: {e}", path.display()))?;
        write_file(&path, text.as_bytes(), SHARED)
            .map_err(|e| format!("writing {}: {e}", path.display()))
    }
}

pub(in crate::reconcile) fn new_id() -> String {
    let mut bytes = [0; 16];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        // The system has no randomness: time still tells sites apart.
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        bytes = now.as_nanos().to_be_bytes();
    }
    // Version 4, variant 1 (RFC 9562).
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
