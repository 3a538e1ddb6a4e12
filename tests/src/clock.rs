//! A wrong clock for a daemon: libfaketime, controlled by a file that can change while it runs.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A clock that differs from that of the system.
pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// A clock that is this much ahead (`+10m`) or behind (`-10m`); its file is kept in `dir`.
    pub fn new(dir: &Path, offset: &str) -> Self {
        let clock = Self {
            file: dir.join("clock"),
        };
        clock.set(offset);
        clock
    }

    /// Makes the clock jump to this offset.
    pub fn set(&self, offset: &str) {
        fs::write(&self.file, offset).expect("a file");
    }

    /// The environment of a program that uses this clock. Timers are unaffected, as they are when
    /// the clock of a system is set.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let output = Command::new("faketime")
            .args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"])
            .output()
            .expect("faketime");
        let library = String::from_utf8(output.stdout).expect("text");
        assert!(!library.trim().is_empty(), "faketime names no library");
        vec![
            ("LD_PRELOAD", library.trim().into()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.clone().into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }
}
