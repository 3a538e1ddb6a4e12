use super::{ExpectedProtocol, MessageSender, PREFACE, Report, watch};
use crate::flows::StopReason;

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
pub(super) fn mixed() -> (Vec<(MessageSender, Vec<u8>)>, Vec<Report>) {
    let client = |frames: Vec<Vec<u8>>| (MessageSender::Client, frames.concat());
    let server = |frames: Vec<Vec<u8>>| (MessageSender::Server, frames.concat());
    let talk = vec![
        (MessageSender::Client, PREFACE.to_vec()),
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
fn http2_exchanges_are_reported() {
    let (talk, expected) = mixed();
    for protocol in [ExpectedProtocol::Auto, ExpectedProtocol::Http2] {
        for pieces in [&[usize::MAX][..], &[1], &[2, 3, 7, 11]] {
            assert_eq!(watch(protocol, &talk, pieces), (expected.clone(), None));
        }
    }
}

#[test]
fn malformed_http2_ends_the_observation() {
    let begun = |frames: &[Vec<u8>]| {
        let bytes = [PREFACE.to_vec(), frame(4, 0, 0, &[]), frames.concat()].concat();
        watch(
            ExpectedProtocol::Auto,
            &[(MessageSender::Client, bytes)],
            &[100],
        )
        .1
    };
    let (malformed, limit) = (
        Some(Some(StopReason::Malformed)),
        Some(Some(StopReason::Limit)),
    );
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
