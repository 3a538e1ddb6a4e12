//! Compressed tar archives, which bundles and dumps are.

use super::Failure;
use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;
use tar::{Builder, EntryType, Header};

/// An archive in memory. Its files are of bounded size.
pub(super) struct Archive {
    builder: Builder<GzEncoder<Vec<u8>>>,
    mtime: u64,
}

impl Archive {
    pub(super) fn new(mtime: Timestamp) -> Self {
        let seconds = u64::try_from(mtime.as_second()).unwrap_or_default();
        Self {
            builder: Builder::new(GzEncoder::new(Vec::new(), Compression::default())),
            mtime: seconds,
        }
    }

    /// Adds a file. Unpacking makes its directories.
    pub(super) fn add(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<(), Failure> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        header.set_mtime(self.mtime);
        Ok(self.builder.append_data(&mut header, path, bytes)?)
    }

    /// The compressed archive.
    pub(super) fn finish(self) -> Result<Vec<u8>, Failure> {
        Ok(self.builder.into_inner()?.finish()?)
    }
}
