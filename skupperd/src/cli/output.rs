//! What commands print.

use super::{Failure, Outcome, invalid, place::Place, show};
use crate::model::API_VERSION;
use clap::Args;
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};

/// The flag for machine-readable output.
#[derive(Debug, Args)]
pub(super) struct Format {
    /// Print as json or yaml
    #[arg(short = 'o', long = "output", value_name = "FORMAT")]
    output: Option<String>,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Yaml,
}

impl Format {
    /// The encoding asked for.
    pub(super) fn encoding(&self) -> Result<Option<Encoding>, Failure> {
        match self.output.as_deref() {
            None => Ok(None),
            Some("json") => Ok(Some(Encoding::Json)),
            Some("yaml") => Ok(Some(Encoding::Yaml)),
            Some(other) => Err(invalid(format!(
                "output type is not valid: value {other} not allowed. \
                 It should be one of this options: [json yaml]"
            ))),
        }
    }
}

/// Prints text on standard output.
pub(super) fn print(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

/// What is waited for, while it is: for people at a terminal only, beside what the command prints.
pub(super) struct Progress(bool);

impl Progress {
    pub(super) fn new(text: &str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        if terminal {
            // As of errors: where that is impossible there is nobody to read it.
            let _ = write!(std::io::stderr(), "{text} ..");
        }
        Self(terminal)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.0 {
            // The line is as it was before, as ECMA-48 has it.
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// Prints an error; where that is impossible there is nobody to read it.
pub(super) fn error(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints one document.
pub(super) fn document(value: &Value, encoding: Encoding) -> Outcome {
    let text = match encoding {
        Encoding::Json => serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?,
        Encoding::Yaml => serde_yaml::to_string(value).map_err(anyhow::Error::from)?,
    };
    print(&text)
}

/// Prints rows below a header.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> Outcome {
    screen(&columns(header, rows))
}

/// Rows below a header, each column as wide as its widest cell.
pub(super) fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |n: usize| {
        let cells = rows.iter().filter_map(|row| row.get(n)).map(String::len);
        cells.chain([header[n].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    let head: Vec<String> = header.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `Name: value` lines.
pub(super) fn lines(lines: &[(&str, String)]) -> String {
    let lines = lines.iter();
    lines
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect()
}

/// Prints what people read: words for states in colour, where a terminal shows it.
pub(super) fn screen(text: &str) -> Outcome {
    match coloured() {
        true => print(&painted(text)),
        false => print(text),
    }
}

/// Standard output is a terminal, and nobody has said that it is to be without colour
/// (<https://no-color.org>).
fn coloured() -> bool {
    let set = |name: &str| std::env::var(name).unwrap_or_default();
    std::io::stdout().is_terminal() && set("NO_COLOR").is_empty() && set("TERM") != "dumb"
}

/// States with their colours, as ECMA-48 numbers them.
const STATES: [(&str, u8); 6] = [
    ("Ready", 32),
    ("ok", 32),
    ("Pending", 33),
    ("notice", 33),
    ("Error", 31),
    ("failed", 31),
];

/// A text in which cells, and values of lines, that are a state have its colour.
fn painted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        // Cells are at least two blanks apart; of `Status: Ready` the value is what counts.
        for part in line.split_inclusive("  ") {
            let cell = part.trim();
            let word = cell.rsplit_once(": ").map_or(cell, |(_, value)| value);
            let word = word.split(',').next().unwrap_or_default();
            match STATES.iter().find(|(state, _)| *state == word) {
                Some((_, colour)) => {
                    let with = format!("\x1b[{colour}m{word}\x1b[0m");
                    let at = part.rfind(word).unwrap_or_default();
                    let (before, after) = part.split_at(at);
                    out.push_str(before);
                    out.push_str(&after.replacen(word, &with, 1));
                }
                None => out.push_str(part),
            }
        }
    }
    out
}

/// `skupper version`
pub(super) fn version(format: &Format) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    match format.encoding()? {
        None => print(version),
        Some(encoding) => document(
            &json!([
                { "component": "skupper", "version": version },
                { "component": "skupperd", "version": version },
            ]),
            encoding,
        ),
    }
}

/// `skupper manifest`: what is installed here, and what of it runs.
pub(super) fn manifest(place: &Place, format: &Format) -> Outcome {
    let encoding = format.encoding()?;
    let running = place.daemon()?.map(|daemon| daemon.version);
    let all = json!([
        { "component": "skupper", "version": env!("CARGO_PKG_VERSION") },
        { "component": "skupperd", "version": running },
        { "component": "resources", "version": API_VERSION },
    ]);
    if let Some(encoding) = encoding {
        return document(&all, encoding);
    }
    let row = |v: &Value| {
        let text = |path: &str| show::text(v, path);
        let version = Some(text("/version")).filter(|version| !version.is_empty());
        vec![
            text("/component"),
            version.unwrap_or_else(|| "not running".to_owned()),
        ]
    };
    let rows: Vec<Vec<String>> = all.as_array().into_iter().flatten().map(row).collect();
    table(&["COMPONENT", "VERSION"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_their_colour_and_nothing_else_has() {
        let text = "NAME  STATUS   MESSAGE\nReady-x  Ready    OK\nb        Error    Error in b\n\
                    Status: Pending\nSite a in namespace b: Error, gone\n";
        let expected = "NAME  STATUS   MESSAGE\nReady-x  \x1b[32mReady\x1b[0m    OK\n\
                        b        \x1b[31mError\x1b[0m    Error in b\n\
                        Status: \x1b[33mPending\x1b[0m\n\
                        Site a in namespace b: \x1b[31mError\x1b[0m, gone\n";
        assert_eq!(painted(text), expected);
    }
}
