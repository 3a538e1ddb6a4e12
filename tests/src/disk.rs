//! A disk that stalls for a daemon: a preloaded library in which fsync waits while a file exists.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const SOURCE: &str = include_str!("stalled_disk.c");

/// A disk that can stall.
pub struct Disk {
    library: PathBuf,
    file: PathBuf,
}

impl Disk {
    /// A disk that works; its files are kept in `dir`.
    pub fn new(dir: &Path) -> Self {
        let source = dir.join("stalled_disk.c");
        let library = dir.join("stalled_disk.so");
        fs::write(&source, SOURCE).expect("a file");
        // What links Rust programs.
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .status()
            .expect("cc");
        assert!(status.success(), "{status}");
        let file = dir.join("stalled");
        Self { library, file }
    }

    pub fn stall(&self) {
        fs::write(&self.file, "").expect("a file");
    }

    pub fn resume(&self) {
        fs::remove_file(&self.file).expect("a file");
    }

    /// The environment of a program that has this disk.
    pub fn environment(&self) -> [(&'static str, OsString); 2] {
        [
            ("LD_PRELOAD", self.library.clone().into()),
            ("STALLED_DISK", self.file.clone().into()),
        ]
    }
}
