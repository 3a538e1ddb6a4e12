//! Runs the fuzz targets without a fuzzer: each runs its seeds, which must reach the code that they
//! are for, and a bounded number of mutations.

use proptest::{prelude::*, sample::Index, test_runner::TestRunner};
use skupper_tests::fuzz;
use std::fs;

#[test]
fn every_target_has_its_file_and_its_seeds() {
    let names = |dir: &str| {
        let entries = fs::read_dir(fuzz::home().join(dir)).expect("a directory");
        let mut names: Vec<String> = entries
            .map(|entry| {
                let path = entry.expect("an entry").path();
                let stem = path.file_stem().expect("a name");
                stem.to_string_lossy().into_owned()
            })
            .collect();
        names.sort();
        names
    };
    let targets = fuzz::TARGETS.map(|(name, _)| name);
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("seeds"), targets);
}

/// Seeds and a part of the text that their target returns: it proves how far the seed got.
const EXPECTED: &[(&str, &str, &str)] = &[
    ("answer", "good", "Secret Link"),
    ("answer", "chunked", "Secret Link"),
    ("answer", "until-close", "Secret Link"),
    (
        "answer",
        "refused",
        "403: Redemption of access token refused",
    ),
    ("answer", "not-asked-for", "unexpected Secret other"),
    ("answer", "no-http", "invalid HTTP version"),
    ("connection", "edge-C", "45 events"),
    ("connection", "edge-L", "38 events"),
    ("connection", "interior-control-C", "46 events"),
    ("connection", "interior-control-L", "45 events"),
    ("credentials", "server.der", "server; server: fit"),
    ("credentials", "texts", "server; server: fit"),
    ("credentials", "ca.der", "CA: fit"),
    ("manifest", "answer.yaml", "Secret Link 0 bad"),
    ("manifest", "token.yaml", "AccessToken 0 bad"),
    ("manifest", "secrets.yaml", "Secret Secret Secret 0 bad"),
    ("manifest", "wrong.yaml", "5 bad"),
    ("message", "value", "value"),
    ("message", "lsu-1", "message"),
    ("message", "stream-1", "stream"),
    ("observer", "get", "GET 200; open"),
    ("observer", "pipelined", "GET 200, HEAD 204, POST 404; open"),
    ("observer", "chunked", "PUT 200; open"),
    ("observer", "upgrade", "GET 101; upgraded"),
    ("observer", "until-close", "GET 200; open"),
    ("observer", "http2", "POST 404, GET 200; open"),
    ("observer", "tables", "GET 200, OTHER 302; open"),
    ("observer", "http2-malformed", "GET -; malformed"),
    ("observer", "smtp", "; not HTTP"),
    ("request", "right-code", "HTTP/1.1 500"),
    ("request", "chunked", "HTTP/1.1 500"),
    ("request", "one-dot-zero", "HTTP/1.0 500"),
    ("request", "wrong-code", "HTTP/1.1 403"),
    ("request", "unknown", "HTTP/1.1 404"),
    ("request", "get", "HTTP/1.1 405"),
    ("request", "bad-name", "HTTP/1.1 400"),
    ("request", "too-long", "HTTP/1.1 400"),
    ("router", "each", "12 good 0 bad"),
    ("router", "side-C", "18 good 0 bad"),
    ("site", "neighbour", "23 steps 1 connections 0 open"),
    ("site", "neighbour", "served 1"),
    ("site", "edge", "1 connections 1 open"),
    ("site", "edge", "served 1"),
    ("site", "client", "1 connections 1 open"),
    ("site", "flood", "218 steps 1 connections 1 open"),
    ("site", "hidden", "15 steps 1 connections 0 open"),
    ("site", "many", "8 connections 2 open"),
    ("site", "many", "served 1"),
    ("site", "mute", "served 1"),
];

#[test]
fn seeds_reach_the_code_they_are_for() {
    let mut seen = 0;
    for (target, body) in fuzz::TARGETS {
        for (seed, data) in fuzz::seeds(target) {
            let result = body(&data);
            println!("{target}/{seed}: {result}");
            for (.., expected) in EXPECTED
                .iter()
                .filter(|(t, s, _)| (*t, *s) == (target, &*seed))
            {
                assert!(result.contains(expected), "{target}/{seed}: {result}");
                seen += 1;
            }
        }
    }
    assert_eq!(seen, EXPECTED.len(), "a seed is missing");
}

/// A mutation of an input, with its position.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    /// A part of the input is repeated.
    Repeat(Index, Index, u8),
    /// The rest comes from another seed.
    Splice(Index, Index, Index),
    End(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    let interesting = prop_oneof![
        any::<u8>(),
        prop::sample::select(b"\x00\x01\x7f\x80\xfe\xff\n\r:-& []{}\"'*".to_vec())
    ];
    prop_oneof![
        (at(), interesting.clone()).prop_map(|(at, to)| Change::Set(at, to)),
        (at(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (at(), prop::collection::vec(interesting, 1..9)).prop_map(|(at, x)| Change::Insert(at, x)),
        (at(), at()).prop_map(|(from, to)| Change::Remove(from, to)),
        (at(), at(), 1..20u8).prop_map(|(from, to, n)| Change::Repeat(from, to, n)),
        (at(), at(), at()).prop_map(|(at, seed, from)| Change::Splice(at, seed, from)),
        at().prop_map(Change::End),
    ]
}

fn apply(data: &mut Vec<u8>, change: &Change, seeds: &[(String, Vec<u8>)]) {
    // A position in the input or directly behind it.
    let position = |at: &Index, length: usize| at.index(length + 1);
    let length = data.len();
    let range = |a: &Index, b: &Index| {
        let (a, b) = (position(a, length), position(b, length));
        a.min(b)..a.max(b)
    };
    match change {
        Change::Set(at, to) => {
            if let Some(c) = data.get_mut(position(at, length)) {
                *c = *to;
            }
        }
        Change::Flip(at, bit) => {
            if let Some(c) = data.get_mut(position(at, length)) {
                *c ^= 1 << bit;
            }
        }
        Change::Insert(at, what) => {
            let at = position(at, length);
            data.splice(at..at, what.iter().copied());
        }
        Change::Remove(from, to) => drop(data.drain(range(from, to))),
        Change::Repeat(from, to, times) => {
            let range = range(from, to);
            let part = data[range.clone()].repeat(usize::from(*times));
            // At most 16 KiB, so that a case runs quickly.
            if part.len() < 16 * 1024 {
                data.splice(range.end..range.end, part);
            }
        }
        Change::Splice(at, seed, from) => {
            let (_, other) = &seeds[seed.index(seeds.len())];
            data.truncate(position(at, length));
            data.extend_from_slice(&other[position(from, other.len())..]);
        }
        Change::End(at) => data.truncate(position(at, length)),
    }
}

fn survives_changes(target: &str, cases: u32) {
    let (_, body) = fuzz::TARGETS
        .into_iter()
        .find(|(name, _)| *name == target)
        .expect("a target");
    let seeds = fuzz::seeds(target);
    let config = ProptestConfig {
        cases,
        // Findings become named regression tests instead.
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let inputs = (any::<Index>(), prop::collection::vec(change(), 0..5));
    let result = TestRunner::new(config).run(&inputs, |(seed, changes)| {
        let mut data = seeds[seed.index(seeds.len())].1.clone();
        for change in &changes {
            apply(&mut data, change, &seeds);
        }
        drop(body(&data));
        Ok(())
    });
    if let Err(e) = result {
        panic!("{target}: {e}");
    }
}

macro_rules! survives {
    ($($target:ident: $cases:literal),*) => {
        mod changed {
            $(#[test]
            fn $target() {
                super::survives_changes(stringify!($target), $cases);
            })*
        }
    };
}

survives! {
    answer: 1000, connection: 1000, credentials: 1000, manifest: 500, message: 5000, observer: 5000,
    request: 1000, router: 1000, site: 60
}

/// Programs of the hostile peer that no seed begins.
#[test]
fn a_site_survives_random_programs() {
    let config = ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let programs = prop::collection::vec(any::<u8>(), 0..1500);
    let result = TestRunner::new(config).run(&programs, |program| {
        drop(fuzz::site(&program));
        Ok(())
    });
    if let Err(e) = result {
        panic!("{e}");
    }
}
