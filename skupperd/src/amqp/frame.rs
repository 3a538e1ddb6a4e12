//! Frames (OASIS AMQP 1.0 part 2.3).

use bytes::{BufMut, BytesMut};

/// Protocol header of AMQP 1.0 (part 2.2).
pub const AMQP_HEADER: [u8; 8] = *b"AMQP\x00\x01\x00\x00";
/// Protocol header of its SASL layer (part 5.3.2).
pub const SASL_HEADER: [u8; 8] = *b"AMQP\x03\x01\x00\x00";
/// Type of an AMQP frame.
pub const AMQP: u8 = 0;
/// Type of a SASL frame.
pub const SASL: u8 = 1;
/// Size of a frame's fixed header.
pub const HEADER: usize = 8;
/// Every peer must take frames of this size (part 2.3.1).
pub const MIN_MAX_FRAME: usize = 512;

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than a frame header.
    #[error("frame size {0} is below the size of a frame header")]
    Short(usize),
    /// Longer than our max-frame-size.
    #[error("frame of {size} bytes exceeds the maximum of {max}")]
    Long {
        /// Size it claims.
        size: usize,
        /// Largest that is allowed.
        max: usize,
    },
    /// Data offset outside the frame.
    #[error("data offset {0} is outside the frame")]
    Offset(u8),
    #[error("unknown frame type {0}")]
    Kind(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the frame, header included.
    pub size: usize,
    /// Where its body begins.
    pub body: usize,
    /// AMQP or SASL.
    pub kind: u8,
    pub channel: u16,
}

impl Header {
    /// Parses the header at the start of `buf`; `None`: incomplete.
    pub fn parse(buf: &[u8], max: usize) -> Result<Option<Self>, FrameError> {
        let Some(&[a, b, c, d, offset, kind, hi, lo]) = buf.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let size = u32::from_be_bytes([a, b, c, d]) as usize;
        let body = usize::from(offset) * 4;
        if size < HEADER {
            return Err(FrameError::Short(size));
        }
        if size > max {
            return Err(FrameError::Long { size, max });
        }
        if body < HEADER || body > size {
            return Err(FrameError::Offset(offset));
        }
        if kind > SASL {
            return Err(FrameError::Kind(kind));
        }
        Ok(Some(Self {
            size,
            body,
            kind,
            channel: u16::from_be_bytes([hi, lo]),
        }))
    }
}

/// Writes a whole frame.
pub fn put(kind: u8, channel: u16, body: &[u8], out: &mut BytesMut) {
    out.put_u32((HEADER + body.len()) as u32);
    out.put_slice(&[2, kind]);
    out.put_u16(channel);
    out.put_slice(body);
}
