//! What commands print.

use super::{Failure, Outcome, invalid};
use clap::Args;
use serde_json::Value;
use std::io::Write;

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
    print(&columns(header, rows))
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

/// Prints `Name: value` lines.
pub(super) fn details(lines: &[(&str, String)]) -> Outcome {
    let text: String = lines
        .iter()
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect();
    print(&text)
}

/// The version.
pub(super) fn version(format: &Format) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    match format.encoding()? {
        None => print(version),
        Some(encoding) => document(
            &serde_json::json!([
                { "component": "skupper", "version": version },
                { "component": "skupperd", "version": version },
            ]),
            encoding,
        ),
    }
}
