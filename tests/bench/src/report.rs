//! The results: a table, a JSON file and a plot.

mod json;
mod plot;
mod table;

use crate::{options::Options, print, round::Plan, samples::Samples};
use anyhow::{Context, Result};
use std::fs;

/// Prints the table, and writes the files that were asked for.
pub(crate) fn write(
    options: &Options,
    plan: &Plan,
    samples: &Samples,
    notes: &[String],
) -> Result<()> {
    print(&table::render(plan, samples, notes))?;
    let files = [
        (&options.json, json::render as fn(_, _, _) -> _),
        (&options.svg, plot::render),
    ];
    for (file, render) in files {
        if let Some(file) = file {
            let text = render(plan, samples, notes);
            fs::write(file, text).with_context(|| file.display().to_string())?;
        }
    }
    Ok(())
}

/// A value with about three digits.
fn figure(value: f64) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0..100.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

/// The machine, as far as it explains figures.
fn machine() -> String {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("of an unknown model", |(_, model)| model);
    let kernel = read("/proc/sys/kernel/osrelease");
    let s = if processors == 1 { "" } else { "s" };
    format!(
        "{processors} processor{s} ({model}), Linux {}",
        kernel.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_about_three_digits() {
        let figures = [12345.6, 99.96, 12.34, 1.234, 0.0].map(figure);
        assert_eq!(figures, ["12346", "100.0", "12.3", "1.23", "0.00"]);
    }
}
