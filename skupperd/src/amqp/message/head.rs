//! Whether the head of a delivery is complete, by the sizes of its sections alone: a peer may send it byte
//! by byte, and each look must cost next to nothing.

use super::{
    APPLICATION_PROPERTIES, DATA, DELIVERY_ANNOTATIONS, FOOTER, HEADER, MESSAGE_ANNOTATIONS,
    PROPERTIES, ROUTER_ANNOTATIONS, SEQUENCE, VALUE,
};
use crate::amqp::codec::{DecodeError, Reader};

/// Sections before the body: each kind once, and some that later versions may add.
const MAX_SECTIONS: usize = 16;

/// Everything before the body has arrived, and the first byte of the body.
pub(super) fn is_complete(buf: &[u8]) -> Result<bool, DecodeError> {
    match scan(buf) {
        Err(DecodeError::Truncated) => Ok(false),
        other => other,
    }
}

fn scan(buf: &[u8]) -> Result<bool, DecodeError> {
    let mut r = Reader::new(buf);
    for _ in 0..MAX_SECTIONS {
        match r.short_descriptor()? {
            ROUTER_ANNOTATIONS
            | PROPERTIES
            | APPLICATION_PROPERTIES
            | HEADER
            | DELIVERY_ANNOTATIONS
            | MESSAGE_ANNOTATIONS => r.skip()?,
            VALUE => return Ok(r.peek().is_some()),
            DATA | SEQUENCE | FOOTER => return Ok(true),
            _ => return Err(DecodeError::Type("message section")),
        }
    }
    Err(DecodeError::Limit("number of sections"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::cpu_time::{cpu_time, cpu_time_since};
    use crate::amqp::message::{MessageHead, StreamParse, encode_stream_head, parse_stream_head};
    use bytes::BytesMut;

    #[test]
    fn a_head_is_complete_with_the_first_byte_of_its_body() {
        let mut head = MessageHead::default();
        head.properties.content_type = Some("application/octet-stream".into());
        head.application_properties = vec![("k".into(), "v".repeat(300).into())];
        let mut bytes = BytesMut::new();
        encode_stream_head(&head, &mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(is_complete(&bytes[..cut]), Ok(false), "{cut}");
            assert_eq!(parse_stream_head(&bytes[..cut]), Ok(StreamParse::NeedMore));
        }
        assert_eq!(is_complete(&bytes), Ok(true));
    }

    #[test]
    fn sections_without_end_are_refused() {
        let sections = [0, 0x53, 0x70, 0x45].repeat(MAX_SECTIONS);
        assert!(is_complete(&sections).is_err());
    }

    #[test]
    fn parsing_a_head_that_comes_byte_by_byte_is_cheap() {
        // One map of 16,000 values: a look that decodes it takes a thousand times as long.
        let mut bytes = vec![0, 0x53, 0x74, 0xd1, 0, 0, 0x40, 0, 0, 0, 0x3e, 0x80];
        bytes.extend([0x40; 16_000]);
        let begin = cpu_time();
        for cut in 0..bytes.len() {
            assert_eq!(parse_stream_head(&bytes[..cut]), Ok(StreamParse::NeedMore));
        }
        assert!(cpu_time_since(begin).as_secs() < 2);
    }
}
