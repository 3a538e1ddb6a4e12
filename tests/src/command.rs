//! The command beside a daemon, over D-Bus or on files, and what it says in a form that does not
//! differ from run to run.

use crate::{bus::Bus, program, site::Site};
use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

/// A site whose command goes over a bus, or works on files.
pub struct Desk {
    /// The site.
    pub site: Site,
    /// The bus.
    pub bus: Option<Bus>,
    /// What differs from run to run, and what stands for it.
    pub names: Vec<(String, &'static str)>,
}

impl Desk {
    /// A running daemon, and the command for it.
    pub fn new(mut site: Site, bus: Option<Bus>) -> Self {
        match &bus {
            Some(bus) => site.start_on(bus, "session"),
            None => site.start(),
        }
        Self::beside(site, bus)
    }

    /// The command only.
    pub fn beside(site: Site, bus: Option<Bus>) -> Self {
        let root = site.root().to_str().expect("a path").to_owned();
        Self {
            site,
            bus,
            names: vec![(root, "DIR")],
        }
    }

    /// Runs the command with this on its standard input.
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
        // Who does not read it has ended already.
        drop(pipe.write_all(input.as_bytes()));
        drop(pipe);
        child.wait_with_output().expect("skupper ends")
    }

    /// Runs the command: what it was, its exit code, what it printed, what it complained about.
    pub fn told(&self, args: &[&str]) -> String {
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
        self.plain(&format!("$ skupper {words}\n{code}{errors}{text}"))
    }

    /// Runs the command, which must succeed.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args, "");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "skupper {args:?}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// A text without what differs from run to run.
    fn plain(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (what, name) in &self.names {
            text = text.replace(what.as_str(), name);
        }
        // How a listener is reached is a matter of what this host lets the daemon do.
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
                    out.push_str(stands_for(bare).unwrap_or(bare));
                    out.push_str(&word[bare.len()..]);
                    word.clear();
                    // As wide as the widest cell, which may be a time.
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

/// What a word that differs from run to run is replaced with.
fn stands_for(word: &str) -> Option<&'static str> {
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
