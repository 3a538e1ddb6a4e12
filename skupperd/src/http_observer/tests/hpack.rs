use super::super::hpack::{Decoder, HeaderField};
use crate::flows::StopReason;

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}

/// The fields of a block that are reported.
fn fields(decoder: &mut Decoder, hex: &str) -> Vec<HeaderField> {
    let mut fields = Vec::new();
    decoder.block(&unhex(hex), |f| fields.push(f)).unwrap();
    fields.retain(|f| *f != HeaderField::Other);
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
            assert_eq!(fields(&mut decoder, block), [HeaderField::Method("GET")]);
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
        assert_eq!(fields(&mut decoder, block), [HeaderField::Status(status)]);
    }
    // Three fields are left.
    assert_eq!(fields(&mut decoder, "bebfc0"), []);
    let gone = decoder.block(&[0xc1], |_| ());
    assert_eq!(gone, Err(StopReason::Malformed));
    // Names in full, and a method of one's own, which is in the table from there on.
    let mut decoder = Decoder::default();
    let own = "40073a6d6574686f640442524557";
    assert_eq!(fields(&mut decoder, own), [HeaderField::Method("OTHER")]);
    assert_eq!(fields(&mut decoder, "be"), [HeaderField::Method("OTHER")]);
}

#[test]
fn header_blocks_that_break_the_rules_are_refused() {
    for (block, why) in [
        ("80", StopReason::Malformed),             // index 0
        ("be", StopReason::Malformed),             // no such field
        ("4107", StopReason::Malformed),           // cut short
        ("3fe1ffffff7f", StopReason::Malformed),   // an integer without end
        ("3fe1ff3f", StopReason::Limit),           // a table that is too large
        ("0081ff01", StopReason::Malformed),       // 8 bits of padding
        ("0084fffffffc00", StopReason::Malformed), // the end in a text
        ("480141", StopReason::Malformed),         // no status
    ] {
        let read = Decoder::default().block(&unhex(block), |_| ());
        assert_eq!(read, Err(why), "{block}");
    }
}
