//! Output of commands: documents, tables, progress, errors.
//!
//! Tables are own code: columns of plain text, two blanks apart, without borders or wrapped cells, so that
//! awk and cut read them. A table library costs more lines to configure than these.

use super::{CommandResult, Failure, invalid};
use clap::Args;
use serde_json::Value;
use std::{
    borrow::Cow,
    io::{IsTerminal, Write},
};

#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// Print a document instead: json or yaml
    #[arg(short = 'o', long = "output", value_name = "FORMAT")]
    output: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Yaml,
}

impl OutputArgs {
    /// The encoding that `-o` names; none without it.
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

/// A text without what a terminal would act on. Other sites choose some of the texts that commands
/// print: their names must not clear the screen, colour it or turn the direction of writing.
fn visible(text: &str) -> Cow<'_, str> {
    replace_controls(text, |c| c == '\n' || c == '\t')
}

/// One cell of a table or the value of a line, which has no line of its own to begin.
fn one_line(text: &str) -> Cow<'_, str> {
    replace_controls(text, |_| false)
}

fn replace_controls(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    // Controls of bidirectional text (Unicode Standard Annex 9) make text look like another.
    let is_bidi = |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let acts = |c: char| (c.is_control() || is_bidi(c)) && !keep(c);
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let shown = |c| {
        if acts(c) {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    Cow::Owned(text.chars().map(shown).collect())
}

/// Prints text on standard output.
pub(super) fn print(text: &str) -> CommandResult {
    write(&visible(text))
}

fn write(text: &str) -> CommandResult {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

/// A line on standard error with what the command waits for, while it waits. Only on a terminal.
pub(super) struct Progress(bool);

impl Progress {
    pub(super) fn new(text: &str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        if terminal {
            // Standard error may be closed; the command still does its work.
            let _ = write!(std::io::stderr(), "{} ...", one_line(text));
        }
        Self(terminal)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.0 {
            // Back to the start of the line, and clear it (ECMA-48).
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// Prints a line on standard error. Standard error may be closed, so failures are ignored.
pub(super) fn error(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", visible(text));
}

pub(super) fn document(value: &Value, encoding: Encoding) -> CommandResult {
    let text = match encoding {
        Encoding::Json => serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?,
        Encoding::Yaml => serde_yaml::to_string(value).map_err(anyhow::Error::from)?,
    };
    print(&text)
}

pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> CommandResult {
    screen(&columns(header, rows))
}

/// Rows below a header, each column as wide as its widest cell.
pub(super) fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |n: usize| {
        let cells = rows.iter().filter_map(|row| row.get(n));
        let widths = cells.map(|cell| cell.chars().count());
        widths.chain([header[n].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    let head: Vec<String> = header.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{:width$}  ", one_line(cell)));
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
        .map(|(name, value)| format!("{name}: {}\n", one_line(value)))
        .collect()
}

/// Prints text for people, with coloured states on a terminal.
pub(super) fn screen(text: &str) -> CommandResult {
    match uses_colour() {
        true => write(&colour_states(&visible(text))),
        false => print(text),
    }
}

/// Standard output is a terminal with colours, and `NO_COLOR` (<https://no-color.org>) is not set.
fn uses_colour() -> bool {
    let set = |name: &str| std::env::var(name).unwrap_or_default();
    std::io::stdout().is_terminal() && set("NO_COLOR").is_empty() && set("TERM") != "dumb"
}

/// States with their colours (ECMA-48).
const STATES: [(&str, u8); 6] = [
    ("Ready", 32),
    ("ok", 32),
    ("Pending", 33),
    ("notice", 33),
    ("Error", 31),
    ("failed", 31),
];

/// Colours table cells, and values of `Name: value` lines, that are a state.
fn colour_states(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        // Cells are at least two blanks apart. In `Status: Ready` the value is the state.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_sites_do_not_act_on_the_terminal() {
        let name = "west\u{1b}[2J\u{9b}31m\nforged  Ready\u{202e}\t\r\u{7f}";
        let plain =
            "west\u{fffd}[2J\u{fffd}31m\u{fffd}forged  Ready\u{fffd}\u{fffd}\u{fffd}\u{fffd}";
        let table = columns(&["NAME"], &[vec![name.to_owned()]]);
        assert_eq!(table, format!("NAME\n{plain}\n"));
        assert_eq!(
            lines(&[("Site", name.to_owned())]),
            format!("Site: {plain}\n")
        );
        let text = visible(name);
        assert_eq!(text.matches('\u{fffd}').count(), 5, "{text:?}");
        assert!(
            text.contains("m\nforged") && text.contains('\t'),
            "{text:?}"
        );
        assert!(matches!(
            visible("a: \u{e9}\n"),
            Cow::Borrowed("a: \u{e9}\n")
        ));
    }

    #[test]
    fn states_are_coloured_and_nothing_else_is() {
        let text = "NAME  STATUS   MESSAGE\nReady-x  Ready    OK\nb        Error    Error in b\n\
                    Status: Pending\nSite a in namespace b: Error, gone\n";
        let expected = "NAME  STATUS   MESSAGE\nReady-x  \x1b[32mReady\x1b[0m    OK\n\
                        b        \x1b[31mError\x1b[0m    Error in b\n\
                        Status: \x1b[33mPending\x1b[0m\n\
                        Site a in namespace b: \x1b[31mError\x1b[0m, gone\n";
        assert_eq!(colour_states(text), expected);
    }
}
