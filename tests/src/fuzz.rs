//! The bodies of the fuzz targets: one function for each decoder of remote bytes, and one for a whole
//! site under a peer that speaks nonsense. `cargo xtask fuzz` runs them with libFuzzer,
//! `tests/blackbox/fuzz_seeds.rs` with the seeds and mutations of them.
//!
//! A body must return for every input without a panic, and [`heap::bounded`] limits its memory in
//! proportion to the input. The returned text tells how far the input got, so that a test can check
//! that the seeds reach the code that they are for.

mod access;
mod amqp;
mod credentials;
pub mod heap;
mod manifest;
mod observer;
mod router;
mod site;

pub use access::{answer, request};
pub use amqp::{connection, message};
pub use credentials::credentials;
pub use manifest::manifest;
pub use observer::observer;
pub use router::router;
pub use site::site;

use std::{fs, path::Path};

/// Returns how far the input got, in a few words.
pub type Body = fn(&[u8]) -> String;

/// Every body by its name, which is that of its file in `fuzz/fuzz_targets` and of its seeds.
pub const TARGETS: [(&str, Body); 9] = [
    ("answer", answer),
    ("connection", connection),
    ("credentials", credentials),
    ("manifest", manifest),
    ("message", message),
    ("observer", observer),
    ("request", request),
    ("router", router),
    ("site", site),
];

/// The root of the fuzz crate.
pub fn home() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz"))
}

/// The seeds of a target, sorted by name.
pub fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = home().join("seeds").join(target);
    let mut seeds: Vec<_> = fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|entry| {
            let entry = entry.expect("a seed");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("a seed"))
        })
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{target} has no seeds");
    seeds
}

/// Splits the input into parts, each preceded by its length in two bytes; the last may be
/// truncated.
fn parts(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (part, rest) = rest.split_at(length);
        data = rest;
        Some(part)
    })
}
