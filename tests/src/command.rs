//! Runs the command over D-Bus or on files. Its transcripts are the same in every run: times, ids,
//! keys and ports are replaced.

use crate::{bus::Bus, program, site::Site};
use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

/// A site whose command uses a bus, or files where there is none.
pub struct CliSite {
    pub site: Site,
    pub bus: Option<Bus>,
    /// Texts that differ between runs, each with its replacement.
    pub names: Vec<(String, &'static str)>,
}

impl CliSite {
    /// Starts the daemon.
    pub fn new(mut site: Site, bus: Option<Bus>) -> Self {
        match &bus {
            Some(bus) => site.start_on(bus, "session"),
            None => site.start(),
        }
        Self::without_daemon(site, bus)
    }

    /// Leaves the daemon stopped.
    pub fn without_daemon(site: Site, bus: Option<Bus>) -> Self {
        let root = site.root().to_str().expect("a path").to_owned();
        Self {
            site,
            bus,
            names: vec![(root, "DIR")],
        }
    }

    /// Runs the command with `input` on its standard input.
    pub fn run(&self, args: &[&str], input: &str) -> Output {
        let mut command = Command::new(program("skupper"));
        command.env_remove("SKUPPER_PLATFORM");
        if let Some(bus) = &self.bus {
            command.envs(bus.environment()).args(["--bus", "session"]);
        }
        let mut child = command
            .arg("--root")
            .arg(self.site.root())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("skupper runs");
        let mut pipe = child.stdin.take().expect("a pipe");
        // A command that does not read its input may have ended already.
        drop(pipe.write_all(input.as_bytes()));
        drop(pipe);
        child.wait_with_output().expect("skupper ends")
    }

    /// Runs the command and returns its words, its exit code, its errors and its output,
    /// normalized.
    pub fn transcript(&self, args: &[&str]) -> String {
        let output = self.run(args, "");
        let code = output.status.code().unwrap_or(-1);
        let code = match code {
            0 => String::new(),
            other => format!("exit code {other}\n"),
        };
        let errors = String::from_utf8_lossy(&output.stderr);
        let errors: String = errors.lines().map(|l| format!("! {l}\n")).collect();
        let text = String::from_utf8_lossy(&output.stdout);
        let words = args.join(" ");
        self.normalize(&format!("$ skupper {words}\n{code}{errors}{text}"))
    }

    /// Runs the command, which must succeed, and returns its output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args, "");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            crate::succeeded(args, &output),
            "skupper {args:?}: {errors}"
        );
        String::from_utf8(output.stdout).expect("text")
    }

    /// Replaces what differs between runs.
    fn normalize(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (what, name) in &self.names {
            text = text.replace(what.as_str(), name);
        }
        // The value depends on the capabilities of the daemon.
        for (how, word) in [("steering", "reachedBy"), ("socket", "reachedBy")] {
            for quote in ["\"", ""] {
                let of = |how: &str| format!("{quote}{word}{quote}: {quote}{how}{quote}");
                text = text.replace(&of(how), &of("HOW"));
            }
        }
        for how in ["steered by the kernel", "a socket of its own"] {
            text = text.replace(&format!("Reached: {how}"), "Reached: HOW");
        }
        let lines = text.lines().map(|line| {
            let mut out = String::new();
            let mut word = String::new();
            for letter in line.chars().chain(['\n']) {
                if letter.is_ascii_alphanumeric() || "-:.+/=".contains(letter) {
                    word.push(letter);
                } else {
                    let bare = word.trim_end_matches('.');
                    out.push_str(placeholder(bare).unwrap_or(bare));
                    out.push_str(&word[bare.len()..]);
                    word.clear();
                    // Columns are padded to the widest cell, which may have been replaced.
                    if !(letter == ' ' && out.trim_start().ends_with("  ")) {
                        out.push(letter);
                    }
                }
            }
            out
        });
        let mut out: String = lines.collect();
        while out.contains("BASE64\n    BASE64\n") {
            out = out.replace("BASE64\n    BASE64\n", "BASE64\n");
        }
        out
    }
}

/// The replacement of a word that differs between runs.
fn placeholder(word: &str) -> Option<&'static str> {
    let hex = |w: &str| w.bytes().all(|b| b.is_ascii_hexdigit());
    let digit = word.starts_with(|c: char| c.is_ascii_digit());
    if digit && word.len() >= 20 && word.contains('T') && word.ends_with('Z') {
        Some("TIME")
    } else if word.len() == 36 && hex(&word.replace('-', "")) {
        Some("UUID")
    } else if word.len() >= 30 && hex(word) {
        Some("SERIAL")
    } else if word.len() > 48 && !word.contains('.') && !word.contains('-') {
        Some("BASE64")
    } else {
        None
    }
}
