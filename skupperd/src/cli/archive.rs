//! Archives that the command makes: files below directories, as a compressed tar.

use super::Failure;
use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;
use tar::{Builder, EntryType, Header};

/// An archive in memory: what goes in is text of bounded size.
pub(super) struct Archive {
    builder: Builder<GzEncoder<Vec<u8>>>,
    made: u64,
}

impl Archive {
    pub(super) fn new(made: Timestamp) -> Self {
        let seconds = u64::try_from(made.as_second()).unwrap_or_default();
        Self {
            builder: Builder::new(GzEncoder::new(Vec::new(), Compression::default())),
            made: seconds,
        }
    }

    /// Adds a file. Its directories need no entries of their own.
    pub(super) fn add(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<(), Failure> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        header.set_mtime(self.made);
        Ok(self.builder.append_data(&mut header, path, bytes)?)
    }

    /// The whole.
    pub(super) fn finish(self) -> Result<Vec<u8>, Failure> {
        Ok(self.builder.into_inner()?.finish()?)
    }
}
