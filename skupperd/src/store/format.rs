//! The version of the state's format, so that an older program does not touch what it cannot read.

use super::{Layout, SHARED, StoreError, read_text, write_file};
use std::{io, path::PathBuf};

/// The format that this program writes, and the latest that it reads.
pub const FORMAT_VERSION: u32 = 1;

fn format_file(layout: &Layout) -> PathBuf {
    layout.state().join("format")
}

impl Layout {
    /// Refuses state that a later version of the program has written.
    pub fn check_format(&self) -> Result<(), StoreError> {
        check(self)
    }
}

pub(super) fn check(layout: &Layout) -> Result<(), StoreError> {
    let path = format_file(layout);
    let text = match read_text(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(StoreError::io("reading", &path)(e)),
    };
    match text.trim().parse::<u32>() {
        Ok(version) if version <= FORMAT_VERSION => Ok(()),
        // Not a number: no version so far has written that.
        _ => Err(StoreError::NewerFormat {
            path,
            found: text.trim().chars().take(32).collect(),
        }),
    }
}

pub(super) fn write(layout: &Layout) -> Result<(), StoreError> {
    let path = format_file(layout);
    let text = format!("{FORMAT_VERSION}\n");
    if read_text(&path).is_ok_and(|found| found == text) {
        return Ok(());
    }
    write_file(&path, text.as_bytes(), SHARED).map_err(StoreError::io("writing", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_state_is_refused_and_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::root(root.path());
        drop(layout.claim().unwrap());
        assert_eq!(read_text(&format_file(&layout)).unwrap(), "1\n");
        for found in ["2", "what\nis this"] {
            std::fs::write(format_file(&layout), found).unwrap();
            let error = layout.claim().unwrap_err().to_string();
            assert!(
                error.contains("has format") && error.contains(found),
                "{error}"
            );
            assert_eq!(read_text(&format_file(&layout)).unwrap(), found);
        }
        std::fs::write(format_file(&layout), "1").unwrap();
        drop(layout.claim().unwrap());
    }
}
