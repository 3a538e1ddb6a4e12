//! An HTTP request and its answer, as an observer reports them.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http10,
    Http11,
    Http2,
}

impl Protocol {
    /// As vanflow records have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// A request and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub protocol: Protocol,
    /// Stream of HTTP/2; 0 where there are none.
    pub stream: u32,
    /// Method. Unknown ones are reported as `OTHER`: a client must not fill memory with names.
    pub method: &'static str,
    /// Status; none when the connection or stream has ended before there was one.
    pub status: Option<u16>,
    /// When the head of the request began.
    pub start: Instant,
    /// From there to the head of the answer.
    pub latency: Option<Duration>,
    /// From there to the end of both.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub sent: u64,
    /// Bytes of the answer's body.
    pub received: u64,
}

/// Why a connection is not observed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// It is not what it began as, or breaks the rules of its protocol.
    Malformed,
    /// It needs more memory than is given for it.
    Limit,
    /// It goes on in another protocol.
    Upgraded,
}

impl StopReason {
    pub const ALL: [Self; 3] = [Self::Malformed, Self::Limit, Self::Upgraded];

    /// Label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Limit => "limit",
            Self::Upgraded => "upgraded",
        }
    }
}
