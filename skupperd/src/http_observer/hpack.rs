//! Header compression (HPACK, RFC 7541), as far as an observer needs it: `:method` and `:status`.
//!
//! Of all other fields only the size is kept, which says when the dynamic table drops them. So a table
//! of any content has a small bounded size here, and no header is kept in memory. The
//! libraries for this keep every field.

use crate::flows::StopReason;
use std::collections::VecDeque;

/// Default size of a dynamic table (4.2), and the largest that is accepted.
const TABLE: usize = 4096;
const MOST: usize = 64 * 1024;
/// What a field weighs beside its text (4.1).
const OVERHEAD: usize = 32;
/// As much text of a field is looked at: longer than any method or pseudo field.
const KEPT: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderField {
    /// Nothing that matters here.
    Other,
    Method(&'static str),
    Status(u16),
}

/// A field's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeaderName {
    Other,
    Method,
    Status,
}

impl HeaderName {
    fn of(text: &[u8]) -> Self {
        match text {
            b":method" => Self::Method,
            b":status" => Self::Status,
            _ => Self::Other,
        }
    }

    fn field(self, value: &[u8]) -> Result<HeaderField, StopReason> {
        Ok(match self {
            Self::Other => HeaderField::Other,
            Self::Method => HeaderField::Method(super::method(value).ok_or(StopReason::Malformed)?),
            Self::Status => HeaderField::Status(super::status(value).ok_or(StopReason::Malformed)?),
        })
    }
}

impl HeaderField {
    fn name(self) -> HeaderName {
        match self {
            Self::Other => HeaderName::Other,
            Self::Method(_) => HeaderName::Method,
            Self::Status(_) => HeaderName::Status,
        }
    }
}

/// Lengths of the names in the static table (appendix A).
const NAMES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14,
    16, 13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10,
    25, 17, 10, 4, 3, 16,
];

/// A field of the static table; indices begin at 1.
fn fixed(index: usize) -> HeaderField {
    match index {
        2 => HeaderField::Method("GET"),
        3 => HeaderField::Method("POST"),
        8..=14 => HeaderField::Status([200, 204, 206, 304, 400, 404, 500][index - 8]),
        _ => HeaderField::Other,
    }
}

struct TableEntry {
    field: HeaderField,
    name: usize,
    size: usize,
}

/// The fields of one direction.
pub(super) struct Decoder {
    table: VecDeque<TableEntry>,
    size: usize,
    most: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            table: VecDeque::new(),
            size: 0,
            most: TABLE,
        }
    }
}

/// What a string literal is.
struct HeaderText {
    length: usize,
    kept: [u8; KEPT],
}

impl HeaderText {
    /// Its text; of a longer one the beginning, which is none of those that are looked for.
    fn text(&self) -> &[u8] {
        &self.kept[..self.length.min(KEPT)]
    }
}

impl Decoder {
    /// Reads a header block, and calls `each` with each of its fields.
    pub(super) fn block(
        &mut self,
        mut block: &[u8],
        mut each: impl FnMut(HeaderField),
    ) -> Result<(), StopReason> {
        let block = &mut block;
        while let Some(&first) = block.first() {
            match first {
                0x80.. => {
                    let index = integer(block, 7)?;
                    each(self.at(index)?.0);
                }
                0x40..0x80 => {
                    let (field, name, size) = self.literal(block, 6)?;
                    each(field);
                    self.insert(TableEntry { field, name, size });
                }
                0x20..0x40 => {
                    let most = integer(block, 5)?;
                    if most > MOST {
                        return Err(StopReason::Limit);
                    }
                    self.most = most;
                    self.evict(0);
                }
                _ => each(self.literal(block, 4)?.0),
            }
        }
        Ok(())
    }

    /// A field by its index, and the length of its name.
    fn at(&self, index: usize) -> Result<(HeaderField, usize), StopReason> {
        let index = index.checked_sub(1).ok_or(StopReason::Malformed)?;
        if let Some(name) = NAMES.get(index) {
            return Ok((fixed(index + 1), usize::from(*name)));
        }
        let entry = self.table.get(index - NAMES.len());
        let entry = entry.ok_or(StopReason::Malformed)?;
        Ok((entry.field, entry.name))
    }

    fn literal(
        &self,
        block: &mut &[u8],
        prefix: u32,
    ) -> Result<(HeaderField, usize, usize), StopReason> {
        let (name, length) = match integer(block, prefix)? {
            0 => {
                let text = string(block)?;
                (HeaderName::of(text.text()), text.length)
            }
            index => {
                let (field, length) = self.at(index)?;
                (field.name(), length)
            }
        };
        let value = string(block)?;
        let field = name.field(value.text())?;
        Ok((field, length, length + value.length + OVERHEAD))
    }

    fn insert(&mut self, entry: TableEntry) {
        self.evict(entry.size);
        // One that is larger than the table empties it, and is not in it.
        if entry.size <= self.most {
            self.size += entry.size;
            self.table.push_front(entry);
        }
    }

    /// Drops the oldest until there is room.
    fn evict(&mut self, room: usize) {
        while self.size + room > self.most
            && let Some(entry) = self.table.pop_back()
        {
            self.size -= entry.size;
        }
    }
}

/// An integer that begins in the lower bits of a byte (5.1).
fn integer(block: &mut &[u8], prefix: u32) -> Result<usize, StopReason> {
    let mut next = || {
        let (first, rest) = block.split_first().ok_or(StopReason::Malformed)?;
        *block = rest;
        Ok(usize::from(*first))
    };
    let mask = (1 << prefix) - 1;
    let mut value = next()? & mask;
    if value < mask {
        return Ok(value);
    }
    // What needs more is longer than any block.
    for shift in [0, 7, 14, 21] {
        let byte = next()?;
        value += (byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(StopReason::Malformed)
}

fn string(block: &mut &[u8]) -> Result<HeaderText, StopReason> {
    let coded = block.first().is_some_and(|b| *b >= 0x80);
    let length = integer(block, 7)?;
    let (bytes, rest) = block
        .split_at_checked(length)
        .ok_or(StopReason::Malformed)?;
    *block = rest;
    let mut kept = [0; KEPT];
    if coded {
        let length = huffman(bytes, &mut kept)?;
        return Ok(HeaderText { length, kept });
    }
    let part = length.min(KEPT);
    kept[..part].copy_from_slice(&bytes[..part]);
    Ok(HeaderText { length, kept })
}

/// Lengths of the codes of all bytes and of the end (appendix B). The code is canonical: in the order
/// of lengths, then of bytes, each is one more than the one before.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
const SHORTEST: usize = 5;
const LONGEST: usize = 30;

/// The code, in the order of its words.
struct HuffmanCode {
    /// The first word that is longer than this many bits, as the beginning of 32 bits.
    ends: [u32; LONGEST + 1],
    /// What the position of a word of this length is more than the word.
    offsets: [u32; LONGEST + 1],
    symbols: [u16; 257],
}

const CODE: HuffmanCode = code();

const fn code() -> HuffmanCode {
    let mut code = HuffmanCode {
        ends: [0; LONGEST + 1],
        offsets: [0; LONGEST + 1],
        symbols: [0; 257],
    };
    let (mut word, mut position, mut bits) = (0u32, 0u32, SHORTEST);
    while bits <= LONGEST {
        code.offsets[bits] = position.wrapping_sub(word);
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == bits {
                code.symbols[position as usize] = symbol as u16;
                position += 1;
                word += 1;
            }
            symbol += 1;
        }
        // After the last of all words comes none: it is all ones.
        code.ends[bits] = if bits == LONGEST {
            u32::MAX
        } else {
            word << (32 - bits)
        };
        word <<= 1;
        bits += 1;
    }
    code
}

/// Decodes text (5.2): returns its length, and its beginning in `kept`.
fn huffman(bytes: &[u8], kept: &mut [u8]) -> Result<usize, StopReason> {
    static TABLE: HuffmanCode = CODE;
    let (mut window, mut filled, mut length) = (0u64, 0usize, 0usize);
    let mut bytes = bytes.iter();
    loop {
        while filled <= 32
            && let Some(byte) = bytes.next()
        {
            window |= u64::from(*byte) << (56 - filled);
            filled += 8;
        }
        let top = (window >> 32) as u32;
        let bits = (SHORTEST..=LONGEST).find(|bits| top < TABLE.ends[*bits]);
        match bits {
            Some(bits) if bits <= filled => {
                let word = top >> (32 - bits);
                let symbol = TABLE
                    .symbols
                    .get(word.wrapping_add(TABLE.offsets[bits]) as usize);
                let symbol = symbol.and_then(|s| u8::try_from(*s).ok());
                // The end is no part of a text.
                let symbol = symbol.ok_or(StopReason::Malformed)?;
                if let Some(place) = kept.get_mut(length) {
                    *place = symbol;
                }
                length += 1;
                window <<= bits;
                filled -= bits;
            }
            // What is left over is less than a byte, all ones.
            _ if filled < 8 && window >> (64 - filled.max(1)) == (1 << filled.max(1)) - 1 => {
                return Ok(length);
            }
            _ if filled == 0 => return Ok(length),
            _ => return Err(StopReason::Malformed),
        }
    }
}
