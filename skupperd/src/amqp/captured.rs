//! Frames captured from skupper-routers (`tests/vectors`), for the tests of `amqp` and `router`.

use crate::amqp::{
    codec::Reader,
    frame::{self, Header},
    performative::Performative,
};
use bytes::Bytes;
use std::path::Path;

pub(crate) const FILES: [&str; 4] = [
    "interior-control.txt",
    "interior-data-1.txt",
    "interior-data-2.txt",
    "edge.txt",
];

pub(crate) struct CapturedFrame {
    pub(crate) file: &'static str,
    pub(crate) number: String,
    pub(crate) by_connector: bool,
    /// The whole frame, or the first bytes of a longer one.
    pub(crate) bytes: Vec<u8>,
    pub(crate) size: usize,
}

impl CapturedFrame {
    pub(crate) fn whole(&self) -> bool {
        self.bytes.len() == self.size
    }

    /// The frame, with zeros for the bytes that the capture leaves out.
    pub(crate) fn padded(&self) -> Bytes {
        let mut bytes = self.bytes.clone();
        bytes.resize(self.size, 0);
        bytes.into()
    }

    pub(crate) fn location(&self) -> String {
        format!("{} frame {}", self.file, self.number)
    }
}

pub(crate) fn load(file: &'static str) -> Vec<CapturedFrame> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/vectors")
        .join(file);
    let text = std::fs::read_to_string(&path).expect("captured frames");
    let mut all = Vec::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let Some((head, digits)) = line.rsplit_once(" | ") else {
            continue;
        };
        let words: Vec<&str> = head.split_whitespace().collect();
        let (true, Some(side)) = (words.len() > 3, words.get(1)) else {
            continue;
        };
        let digits = digits.trim().trim_end_matches("...");
        let bytes = hex::decode(digits).expect("hexadecimal digits");
        let size: usize = words[3].parse().expect("a size");
        all.push(CapturedFrame {
            file,
            number: words[0].to_owned(),
            by_connector: *side == "C",
            bytes,
            size,
        });
    }
    assert!(all.len() > 20, "{file} has only {} frames", all.len());
    all
}

pub(crate) fn performative(captured: &CapturedFrame) -> Option<(Header, Performative, usize)> {
    let padded = captured.padded();
    let head = Header::parse(&padded, 1 << 20)
        .expect("a header")
        .expect("a whole header");
    if head.kind != frame::AMQP || head.body == head.size {
        return None;
    }
    let mut reader = Reader::new(&padded[head.body..]);
    let performative = Performative::decode(&mut reader)
        .unwrap_or_else(|e| panic!("{}: {e}", captured.location()));
    Some((head, performative, padded.len() - reader.remaining()))
}

pub(crate) fn is_header(captured: &CapturedFrame) -> bool {
    captured.bytes.starts_with(b"AMQP")
}
