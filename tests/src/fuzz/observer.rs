//! HTTP between a client and a server that both send anything.

use super::{heap, parts};
use skupperd::{
    flows::Exchange,
    http_observer::{ExpectedProtocol, HttpObserver, MessageSender, ObservedEnd},
};
use std::time::Instant;

/// Memory of an observer, with the list of what it reports.
const BASE: usize = 16 * 1024;
/// Per input byte: a stream takes ten bytes of a frame, an entry of a table two of a header.
const EACH: usize = 128;
/// Input that can add to the memory: all tables have a bound.
const MAX_COUNTED: usize = 8 * 1024;

/// Returns the reported exchanges and why the observation ended.
fn watch(
    expected: ExpectedProtocol,
    talk: &[(MessageSender, &[u8])],
    now: Instant,
) -> (Vec<Exchange>, Result<(), ObservedEnd>) {
    let mut seen = Vec::new();
    let mut observer = HttpObserver::new(expected);
    let on_exchange = &mut |exchange: Exchange| {
        // No more than that is needed to compare two runs.
        if seen.len() < 64 {
            seen.push(exchange);
        }
    };
    let mut talk = talk.iter();
    let result = talk.try_for_each(|(from, bytes)| match bytes {
        [] => {
            observer.end(*from, now, on_exchange);
            Ok(())
        }
        _ => observer.observe(*from, bytes, now, on_exchange),
    });
    observer.finish(now, on_exchange);
    (seen, result)
}

/// The first byte selects the expected protocol. Each of the other parts is preceded by its length and
/// a byte, whose lowest bit is the sender; an empty part is the end of that direction. Returns the
/// reported exchanges and how the observation ended.
pub fn observer(data: &[u8]) -> String {
    let Some((first, data)) = data.split_first() else {
        return String::new();
    };
    let expected = match first % 3 {
        0 => ExpectedProtocol::Auto,
        1 => ExpectedProtocol::Http1,
        _ => ExpectedProtocol::Http2,
    };
    let talk = parts(data).filter_map(|part| part.split_first());
    let talk: Vec<_> = talk
        .map(|(from, bytes)| match from & 1 {
            0 => (MessageSender::Client, bytes),
            _ => (MessageSender::Server, bytes),
        })
        .collect();
    let now = Instant::now();
    let (seen, result) = heap::bounded(data.len().min(MAX_COUNTED), BASE, EACH, || {
        watch(expected, &talk, now)
    });
    // What is reported does not depend on how the bytes arrive.
    let bytes = talk.iter().flat_map(|(from, bytes)| {
        let end = bytes.is_empty().then_some((*from, *bytes));
        let bytes = bytes.chunks(1).map(|byte| (*from, byte));
        bytes.chain(end)
    });
    let bytes: Vec<_> = bytes.collect();
    assert_eq!(watch(expected, &bytes, now), (seen.clone(), result));
    let seen: Vec<String> = seen
        .iter()
        .map(|exchange| {
            let status = exchange.status.map(|status| status.to_string());
            format!("{} {}", exchange.method, status.as_deref().unwrap_or("-"))
        })
        .collect();
    let end = match result {
        Ok(()) => "open",
        Err(None) => "not HTTP",
        Err(Some(reason)) => reason.as_str(),
    };
    format!("{}; {end}", seen.join(", "))
}
