//! What strangers send, as they might send it: one function for each decoder that reads octets of
//! others. `fuzz/` feeds them without end (`cargo xtask fuzz`), `tests/fuzz_seeds.rs` with the seeds
//! and changes of them.
//!
//! A body returns for every input: it must not panic, and [`heap::bounded`] holds it to memory in
//! proportion to the input. What it returns tells how far the input got, so that a test can see that
//! the seeds reach what they are meant to reach.

mod access;
mod amqp;
mod credentials;
pub mod heap;
mod manifest;
mod router;

pub use access::{answer, request};
pub use amqp::{connection, message};
pub use credentials::credentials;
pub use manifest::manifest;
pub use router::router;

use std::{fs, path::Path};

/// A body: gives a word or more about how far the input got.
pub type Body = fn(&[u8]) -> String;

/// Every body by the name of its target, of its file in `fuzz/fuzz_targets` and of its seeds.
pub const TARGETS: [(&str, Body); 7] = [
    ("answer", answer),
    ("connection", connection),
    ("credentials", credentials),
    ("manifest", manifest),
    ("message", message),
    ("request", request),
    ("router", router),
];

/// The top of the fuzz crate.
pub fn home() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz"))
}

/// The seeds of a target by name, in order.
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

/// Takes parts off the front, each behind its length in two octets; the last may be cut short.
fn parts(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (part, rest) = rest.split_at(length);
        data = rest;
        Some(part)
    })
}
