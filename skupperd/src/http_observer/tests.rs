//! Conversations and the exchanges that are reported of them, in any pieces.

mod h2;
mod hpack;

use super::*;
use crate::flows::Protocol;
use h2::mixed;
use proptest::prelude::*;

/// A reported exchange, without times.
type Report = (u32, &'static str, Option<u16>, u64, u64);

/// Shows a conversation in pieces of these lengths, in turn.
fn watch(
    protocol: ExpectedProtocol,
    talk: &[(MessageSender, Vec<u8>)],
    pieces: &[usize],
) -> (Vec<Report>, Option<ObservedEnd>) {
    let mut observer = HttpObserver::new(protocol);
    let now = Instant::now();
    let mut seen = Vec::new();
    let mut tell = |e: Exchange| {
        assert_eq!(e.stream != 0, e.protocol == Protocol::Http2);
        assert_eq!(e.latency.is_some(), e.status.is_some());
        seen.push((e.stream, e.method, e.status, e.sent, e.received));
    };
    let mut over = None;
    let mut pieces = pieces.iter().cycle();
    'talk: for (from, bytes) in talk {
        let mut bytes = &bytes[..];
        while !bytes.is_empty() {
            let n = (*pieces.next().unwrap()).clamp(1, bytes.len());
            if let Err(why) = observer.observe(*from, &bytes[..n], now, &mut tell) {
                over = Some(why);
                break 'talk;
            }
            bytes = &bytes[n..];
        }
    }
    if over.is_none() {
        observer.end(MessageSender::Server, now, &mut tell);
    }
    observer.finish(now, &mut tell);
    (seen, over)
}

fn c(text: &str) -> (MessageSender, Vec<u8>) {
    (
        MessageSender::Client,
        text.replace('\n', "\r\n").into_bytes(),
    )
}

fn s(text: &str) -> (MessageSender, Vec<u8>) {
    (
        MessageSender::Server,
        text.replace('\n', "\r\n").into_bytes(),
    )
}

/// A conversation with the exchanges that are reported of it.
type Case = (
    ExpectedProtocol,
    Vec<(MessageSender, Vec<u8>)>,
    Vec<Report>,
    Option<ObservedEnd>,
);

#[expect(clippy::too_many_lines, reason = "one entry for each conversation")]
fn cases() -> Vec<Case> {
    use ExpectedProtocol::{Auto, Http1, Http2};
    let ok = "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello";
    let long = format!(
        "GET /{} HTTP/1.1\nCookie: {}\n\n",
        "a".repeat(3000),
        "b".repeat(5000)
    );
    let malformed = Some(Some(StopReason::Malformed));
    let upgraded = Some(Some(StopReason::Upgraded));
    let get = |status, received| (0, "GET", Some(status), 0, received);
    vec![
        // Kept alive, and pipelined.
        (
            Auto,
            vec![
                c(
                    "GET / HTTP/1.1\n\nHEAD /x HTTP/1.1\n\nPOST /y HTTP/1.1\ncontent-length: 3\n\nabc",
                ),
                s(ok),
                s("HTTP/1.1 204 No Content\n\n"),
                s("HTTP/1.1 404 Not Found\nContent-Length: 0\n\n"),
            ],
            vec![
                get(200, 5),
                (0, "HEAD", Some(204), 0, 0),
                (0, "POST", Some(404), 3, 0),
            ],
            None,
        ),
        // A HEAD's answer has a length and no body; neither has 304.
        (
            Auto,
            vec![
                c("HEAD / HTTP/1.1\n\n"),
                s("HTTP/1.1 200 OK\nContent-Length: 500\n\n"),
                c("GET / HTTP/1.1\n\n"),
                s("HTTP/1.1 304 Not Modified\nContent-Length: 500\n\n"),
                c("GET / HTTP/1.1\n\n"),
                s(ok),
            ],
            vec![(0, "HEAD", Some(200), 0, 0), get(304, 0), get(200, 5)],
            None,
        ),
        // Chunks both ways, with an extension and a trailer.
        (
            Auto,
            vec![
                c(
                    "PUT / HTTP/1.1\nTransfer-Encoding: gzip, chunked\n\n5;x=y\nhello\n0a\n0123456789\n0\nA: b\n\n",
                ),
                s("HTTP/1.1 201 Created\ntransfer-encoding:chunked\n\n3\nabc\n0\n\n"),
                c("GET / HTTP/1.1\n\n"),
                s(ok),
            ],
            vec![(0, "PUT", Some(201), 15, 3), get(200, 5)],
            None,
        ),
        // Interim answers; a body that ends with the connection.
        (
            Auto,
            vec![
                c("POST / HTTP/1.0\nExpect: 100-continue\nContent-Length: 2\n\n"),
                s("HTTP/1.1 100 Continue\n\nHTTP/1.1 103 Early Hints\nLink: x\n\n"),
                c("ab"),
                s("HTTP/1.0 200\n\nwhatever follows\n\n\n"),
            ],
            vec![(0, "POST", Some(200), 2, 22)],
            None,
        ),
        // An answer before the request has ended, and one that never comes.
        (
            Auto,
            vec![
                c("POST / HTTP/1.1\nContent-Length: 10\n\n0123"),
                s("HTTP/1.1 413 Too Large\nContent-Length: 0\n\n"),
                c("456789GET / HTTP/1.1\n\n"),
            ],
            vec![(0, "POST", Some(413), 10, 0), (0, "GET", None, 0, 0)],
            None,
        ),
        (Auto, vec![c(&long), s(ok)], vec![get(200, 5)], None),
        // Other protocols from there on.
        (
            Auto,
            vec![
                c("GET / HTTP/1.1\nUpgrade: websocket\n\n"),
                s("HTTP/1.1 101 Switching\n\n\u{1}\u{2}"),
            ],
            vec![get(101, 0)],
            upgraded,
        ),
        (
            Auto,
            vec![c("CONNECT a:1 HTTP/1.1\n\n"), s("HTTP/1.1 200 OK\n\n\u{1}")],
            vec![(0, "CONNECT", Some(200), 0, 0)],
            upgraded,
        ),
        (
            Auto,
            vec![
                c("CONNECT a:1 HTTP/1.1\n\n"),
                s("HTTP/1.1 407 No\nContent-Length: 0\n\n"),
                c("GET / HTTP/1.1\n\n"),
                s(ok),
            ],
            vec![(0, "CONNECT", Some(407), 0, 0), get(200, 5)],
            None,
        ),
        // A method of one's own.
        (
            Http1,
            vec![c("BREW / HTTP/1.1\n\n"), s(ok)],
            vec![(0, "OTHER", Some(200), 0, 5)],
            None,
        ),
        (Auto, vec![c("BREW / HTTP/1.1\n\n")], vec![], Some(None)),
        // What is none of it.
        (Auto, vec![c("\u{16}\u{3}\u{1}")], vec![], Some(None)),
        (Auto, vec![c("GETTING on\n")], vec![], Some(None)),
        (Auto, vec![c("PRI * HTTP/1.1\n\n")], vec![], Some(None)),
        (
            Auto,
            vec![s("SSH-2.0-x\n"), c("GET / HTTP/1.1\n\n")],
            vec![],
            Some(None),
        ),
        (Http1, vec![s("220 hello\n")], vec![], malformed),
        (Http2, vec![c("GET / HTTP/1.1\n\n")], vec![], malformed),
        // What breaks the rules.
        (
            Auto,
            vec![c("GET / HTTP/1.1\nno colon\n\n")],
            vec![(0, "GET", None, 0, 0)],
            malformed,
        ),
        (Auto, vec![c("GET the thing\n")], vec![], malformed),
        (
            Auto,
            vec![c(
                "GET / HTTP/1.1\nContent-Length: 1\nContent-Length: 2\n\n",
            )],
            vec![(0, "GET", None, 0, 0)],
            malformed,
        ),
        (
            Auto,
            vec![c("POST / HTTP/1.1\nTransfer-Encoding: chunked\n\nxyz\n")],
            vec![(0, "POST", None, 0, 0)],
            malformed,
        ),
        (
            Auto,
            vec![c("GET / HTTP/1.1\n\n"), s("HTTP/1.1 20 OK\n\n")],
            vec![(0, "GET", None, 0, 0)],
            malformed,
        ),
        (
            Auto,
            vec![c("GET / HTTP/1.1\n\n"), s(ok), s(ok)],
            vec![get(200, 5)],
            malformed,
        ),
    ]
}

#[test]
fn http1_exchanges_are_reported() {
    for (protocol, talk, expected, over) in cases() {
        for pieces in [&[usize::MAX][..], &[1], &[2, 3, 7]] {
            let (seen, ended) = watch(protocol, &talk, pieces);
            assert_eq!((&seen, ended), (&expected, over), "{talk:?}");
        }
    }
}

#[test]
fn heads_and_pending_requests_are_bounded() {
    let endless = format!("GET / HTTP/1.1\n{}", "a: b\n".repeat(60_000));
    let limit = Some(Some(StopReason::Limit));
    assert_eq!(
        watch(ExpectedProtocol::Auto, &[c(&endless)], &[1000]).1,
        limit
    );
    let many = "GET / HTTP/1.1\n\n".repeat(300);
    let (seen, over) = watch(ExpectedProtocol::Auto, &[c(&many)], &[1000]);
    assert_eq!((seen.len(), over), (256, limit));
}

proptest! {
    /// The pieces of a conversation do not change the reports.
    #[test]
    fn reports_do_not_depend_on_how_input_is_split(pieces in prop::collection::vec(1usize..40, 1..20)) {
        for (protocol, talk, expected, over) in cases() {
            prop_assert_eq!(watch(protocol, &talk, &pieces), (expected, over));
        }
        let (talk, expected) = mixed();
        prop_assert_eq!(watch(ExpectedProtocol::Auto, &talk, &pieces), (expected, None));
    }

    /// No bytes cause a panic, and their pieces do not change the reports.
    #[test]
    fn arbitrary_bytes_do_not_panic(
        begin in prop::sample::select(vec![&PREFACE[..], b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n\r\n", b""]),
        parts in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..60)), 0..12),
        noise in prop::collection::vec((0usize..2000, any::<u8>()), 0..6),
        pieces in prop::collection::vec(1usize..40, 1..20),
    ) {
        let part = |(client, bytes): (bool, Vec<u8>)| match client {
            true => (MessageSender::Client, bytes),
            false => (MessageSender::Server, bytes),
        };
        let mut random = vec![(MessageSender::Client, begin.to_vec())];
        random.extend(parts.into_iter().map(part));
        // A good conversation with a few bytes that are not.
        let (mut damaged, _) = mixed();
        for (at, byte) in noise {
            let turn = at % damaged.len();
            let bytes = &mut damaged[turn].1;
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        for talk in [random, damaged] {
            for protocol in [ExpectedProtocol::Auto, ExpectedProtocol::Http1, ExpectedProtocol::Http2] {
                prop_assert_eq!(watch(protocol, &talk, &pieces), watch(protocol, &talk, &[usize::MAX]));
            }
        }
    }
}
