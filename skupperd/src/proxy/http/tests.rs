//! Conversations and what is told of them, in any pieces.

use super::*;
use crate::link::ledger::Protocol;
use hpack::{Decoder, Field};
use proptest::prelude::*;

/// What is told of an exchange, without times.
type Seen = (u32, &'static str, Option<u16>, u64, u64);

/// Shows a conversation in pieces of these lengths, in turn.
fn watch(look: Look, talk: &[(Speaker, Vec<u8>)], pieces: &[usize]) -> (Vec<Seen>, Option<Over>) {
    let mut observer = Observer::new(look);
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
            if let Err(why) = observer.see(*from, &bytes[..n], now, &mut tell) {
                over = Some(why);
                break 'talk;
            }
            bytes = &bytes[n..];
        }
    }
    if over.is_none() {
        observer.end(Speaker::Server, now, &mut tell);
    }
    observer.finish(now, &mut tell);
    (seen, over)
}

fn c(text: &str) -> (Speaker, Vec<u8>) {
    (Speaker::Client, text.replace('\n', "\r\n").into_bytes())
}

fn s(text: &str) -> (Speaker, Vec<u8>) {
    (Speaker::Server, text.replace('\n', "\r\n").into_bytes())
}

/// A conversation with what is told of it.
type Case = (Look, Vec<(Speaker, Vec<u8>)>, Vec<Seen>, Option<Over>);

#[expect(clippy::too_many_lines, reason = "one entry for each conversation")]
fn cases() -> Vec<Case> {
    use Look::{Auto, Http1, Http2};
    let ok = "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello";
    let long = format!(
        "GET /{} HTTP/1.1\nCookie: {}\n\n",
        "a".repeat(3000),
        "b".repeat(5000)
    );
    let malformed = Some(Some(Unseen::Malformed));
    let upgraded = Some(Some(Unseen::Upgraded));
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
fn http1_is_told_as_it_was() {
    for (look, talk, expected, over) in cases() {
        for pieces in [&[usize::MAX][..], &[1], &[2, 3, 7]] {
            let (seen, ended) = watch(look, &talk, pieces);
            assert_eq!((&seen, ended), (&expected, over), "{talk:?}");
        }
    }
}

#[test]
fn a_head_has_a_longest_and_requests_that_wait_are_not_without_number() {
    let endless = format!("GET / HTTP/1.1\n{}", "a: b\n".repeat(60_000));
    let limit = Some(Some(Unseen::Limit));
    assert_eq!(watch(Look::Auto, &[c(&endless)], &[1000]).1, limit);
    let many = "GET / HTTP/1.1\n\n".repeat(300);
    let (seen, over) = watch(Look::Auto, &[c(&many)], &[1000]);
    assert_eq!((seen.len(), over), (256, limit));
}

fn unhex(text: &str) -> Vec<u8> {
    let text: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let pairs = text.chunks(2).map(|p| p.iter().collect::<String>());
    pairs.map(|p| u8::from_str_radix(&p, 16).unwrap()).collect()
}

/// The fields of a block that are told.
fn fields(decoder: &mut Decoder, hex: &str) -> Vec<Field> {
    let mut fields = Vec::new();
    decoder.block(&unhex(hex), |f| fields.push(f)).unwrap();
    fields.retain(|f| *f != Field::Other);
    fields
}

#[test]
fn header_blocks_of_the_standard_are_read() {
    // RFC 7541, C.3 and C.4: requests on one connection, plain and in the Huffman code.
    for blocks in [
        [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ],
        [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ],
    ] {
        let mut decoder = Decoder::default();
        for block in blocks {
            assert_eq!(fields(&mut decoder, block), [Field::Method("GET")]);
        }
    }
    // C.6: answers, with a table of 256 bytes that has to drop fields.
    let mut decoder = Decoder::default();
    assert_eq!(fields(&mut decoder, "3fe101"), []);
    for (block, status) in [
        (
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c7
             8f0b97c8e9ae82ae43d3",
            302,
        ),
        ("4883640effc1c0bf", 307),
        (
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335
             dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
            200,
        ),
    ] {
        assert_eq!(fields(&mut decoder, block), [Field::Status(status)]);
    }
    // Three fields are left.
    assert_eq!(fields(&mut decoder, "bebfc0"), []);
    let gone = decoder.block(&[0xc1], |_| ());
    assert_eq!(gone, Err(Unseen::Malformed));
    // Names in full, and a method of one's own, which is in the table from there on.
    let mut decoder = Decoder::default();
    let own = "40073a6d6574686f640442524557";
    assert_eq!(fields(&mut decoder, own), [Field::Method("OTHER")]);
    assert_eq!(fields(&mut decoder, "be"), [Field::Method("OTHER")]);
}

#[test]
fn header_blocks_that_break_the_rules_are_refused() {
    for (block, why) in [
        ("80", Unseen::Malformed),             // index 0
        ("be", Unseen::Malformed),             // no such field
        ("4107", Unseen::Malformed),           // cut short
        ("3fe1ffffff7f", Unseen::Malformed),   // an integer without end
        ("3fe1ff3f", Unseen::Limit),           // a table that is too large
        ("0081ff01", Unseen::Malformed),       // 8 bits of padding
        ("0084fffffffc00", Unseen::Malformed), // the end in a text
        ("480141", Unseen::Malformed),         // no status
    ] {
        let read = Decoder::default().block(&unhex(block), |_| ());
        assert_eq!(read, Err(why), "{block}");
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const GET: &[u8] = &[0x82];
const POST: &[u8] = &[0x83];
const OK: &[u8] = &[0x88];
const NOT_FOUND: &[u8] = &[0x8d];

/// Requests on streams that are mixed, with all that frames can have.
fn mixed() -> (Vec<(Speaker, Vec<u8>)>, Vec<Seen>) {
    let client = |frames: Vec<Vec<u8>>| (Speaker::Client, frames.concat());
    let server = |frames: Vec<Vec<u8>>| (Speaker::Server, frames.concat());
    let talk = vec![
        (Speaker::Client, PREFACE.to_vec()),
        client(vec![
            frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]),
            frame(1, 0x5, 1, GET),
            // Padded, with a priority, in three parts.
            frame(
                1,
                0x28,
                3,
                &[&[2u8, 0, 0, 0, 0, 9][..], POST, &[0, 0]].concat(),
            ),
            frame(9, 0, 3, &[0x84]),
            frame(9, 0x4, 3, &[]),
            frame(0, 0x8, 3, &[&[3u8][..], b"hello", &[0; 3]].concat()),
        ]),
        server(vec![
            frame(4, 0, 0, &[]),
            // A promise, whose fields count for the table.
            frame(
                5,
                0x4,
                1,
                &[&[0u8, 0, 0, 2][..], GET, &[0x40, 1, b'a', 1, b'b']].concat(),
            ),
            frame(1, 0x4, 3, &[0x08, 3, b'1', b'0', b'0']),
            frame(1, 0x4, 1, &[OK, &[0xbe]].concat()),
            frame(0, 0, 1, b"01234"),
            frame(1, 0x5, 2, OK),
        ]),
        client(vec![
            frame(1, 0x5, 5, GET),
            frame(1, 0x5, 7, GET),
            frame(3, 0, 5, &[0, 0, 0, 8]),
            frame(0, 0x1, 3, b"x"),
        ]),
        server(vec![
            frame(0, 0x1, 1, b"56789"),
            frame(1, 0x4, 3, NOT_FOUND),
            frame(0, 0, 3, b"abc"),
            // Trailers.
            frame(1, 0x5, 3, &[0x40, 1, b't', 1, b'x']),
            frame(0, 0x1, 5, b"late"),
        ]),
    ];
    let seen = vec![
        (5, "GET", None, 0, 0),
        (1, "GET", Some(200), 0, 10),
        (3, "POST", Some(404), 6, 3),
        (7, "GET", None, 0, 0),
    ];
    (talk, seen)
}

#[test]
fn http2_is_told_as_it_was() {
    let (talk, expected) = mixed();
    for look in [Look::Auto, Look::Http2] {
        for pieces in [&[usize::MAX][..], &[1], &[2, 3, 7, 11]] {
            assert_eq!(watch(look, &talk, pieces), (expected.clone(), None));
        }
    }
}

#[test]
fn http2_that_breaks_the_rules_is_given_up() {
    let begun = |frames: &[Vec<u8>]| {
        let bytes = [PREFACE.to_vec(), frame(4, 0, 0, &[]), frames.concat()].concat();
        watch(Look::Auto, &[(Speaker::Client, bytes)], &[100]).1
    };
    let (malformed, limit) = (Some(Some(Unseen::Malformed)), Some(Some(Unseen::Limit)));
    let part = frame(1, 0, 1, GET);
    assert_eq!(begun(&[part.clone(), frame(0, 0, 1, b"x")]), malformed);
    assert_eq!(begun(&[part.clone(), frame(9, 4, 3, b"")]), malformed);
    assert_eq!(begun(&[frame(9, 4, 1, GET)]), malformed);
    assert_eq!(begun(&[frame(1, 0xd, 1, &[9, 0x82])]), malformed);
    assert_eq!(begun(&[frame(1, 0x5, 1, &[0x84])]), malformed);
    let endless: Vec<Vec<u8>> = (0..70).map(|_| frame(9, 0, 1, &[0; 1000])).collect();
    assert_eq!(begun(&[part, endless.concat()]), limit);
    let many: Vec<Vec<u8>> = (0..1100).map(|n| frame(1, 0x5, 2 * n + 1, GET)).collect();
    assert_eq!(begun(&many), limit);
}

proptest! {
    /// However a conversation is cut, the same is told of it.
    #[test]
    fn pieces_change_nothing(pieces in prop::collection::vec(1usize..40, 1..20)) {
        for (look, talk, expected, over) in cases() {
            prop_assert_eq!(watch(look, &talk, &pieces), (expected, over));
        }
        let (talk, expected) = mixed();
        prop_assert_eq!(watch(Look::Auto, &talk, &pieces), (expected, None));
    }

    /// Whatever passes, nothing panics, and what is told depends on no cut.
    #[test]
    fn any_bytes_are_put_up_with(
        begin in prop::sample::select(vec![&PREFACE[..], b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n\r\n", b""]),
        parts in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..60)), 0..12),
        noise in prop::collection::vec((0usize..2000, any::<u8>()), 0..6),
        pieces in prop::collection::vec(1usize..40, 1..20),
    ) {
        let part = |(client, bytes): (bool, Vec<u8>)| match client {
            true => (Speaker::Client, bytes),
            false => (Speaker::Server, bytes),
        };
        let mut random = vec![(Speaker::Client, begin.to_vec())];
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
            for look in [Look::Auto, Look::Http1, Look::Http2] {
                prop_assert_eq!(watch(look, &talk, &pieces), watch(look, &talk, &[usize::MAX]));
            }
        }
    }
}
