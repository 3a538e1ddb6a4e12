//! The table: Markdown that a terminal shows well, too.

use super::{figure, machine};
use crate::{
    round::Plan,
    samples::{Samples, Summary},
};

/// The ratios, the medians and the notes.
pub(super) fn render(plan: &Plan, samples: &Samples, notes: &[String]) -> String {
    let rounds = match plan.rounds {
        1 => "1 round".to_owned(),
        rounds => format!("{rounds} rounds, interleaved"),
    };
    let mut text = format!("{rounds}, {} s each; {}\n", plan.secs, machine());
    let first = samples.peers.first().map_or("", String::as_str);
    if samples.peers.len() > 1 {
        text += &format!(
            "\n{first} compared with each, paired by round, median; above 1: {first} is better\n\n"
        );
        text += &rows(samples, 1, |metric, peer| {
            let ratio = samples.ratio(metric, peer)?;
            Some(format!("{:.2}", ratio.median))
        });
    }
    text += "\nMedian, and the lowest and highest round\n\n";
    text += &rows(samples, 0, |metric, peer| {
        let summary = samples.summary(metric, peer)?;
        Some(spread(summary, plan.rounds))
    });
    for note in notes {
        text += &format!("\nnote: {note}\n");
    }
    text
}

fn spread(summary: Summary, rounds: u32) -> String {
    let median = figure(summary.median);
    if rounds == 1 {
        return median;
    }
    let (lowest, highest) = (figure(summary.lowest), figure(summary.highest));
    format!("{median} ({lowest} to {highest})")
}

/// A table with a row for each metric, and a column for each peer from `first`.
fn rows(samples: &Samples, first: usize, cell: impl Fn(usize, usize) -> Option<String>) -> String {
    let mut table = vec![vec![String::new()]];
    table[0].extend(samples.peers.iter().skip(first).cloned());
    for (n, metric) in samples.metrics.iter().enumerate() {
        let mut row = vec![format!("{}, {}", metric.name, metric.unit)];
        let cells = (first..samples.peers.len()).map(|peer| cell(n, peer));
        row.extend(cells.map(|cell| cell.unwrap_or_else(|| "-".to_owned())));
        table.push(row);
    }
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..table[0].len())
        .map(|column| width(column).unwrap_or(0).max(3))
        .collect();
    let dashes = widths.iter().map(|width| "-".repeat(*width)).collect();
    table.insert(1, dashes);
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("| {} |\n", cells.join(" | "))
    };
    table.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        options::Group,
        samples::{Better, Metric},
    };

    #[test]
    fn ratios_come_first_and_missing_values_are_dashes() {
        let mut samples = Samples::new(["skupperd", "floor", "rathole"].map(str::to_owned).into());
        let metric = Metric {
            group: Group::Bulk,
            name: "bulk".to_owned(),
            unit: "Gb/s",
            better: Better::Higher,
        };
        for (peer, round, value) in [(0, 0, 12.0), (1, 0, 10.0), (0, 1, 13.0)] {
            samples.add(metric.clone(), peer, round, value);
        }
        let plan = Plan {
            options: Vec::new(),
            tunnels: Vec::new(),
            groups: Vec::new(),
            rounds: 2,
            secs: 0.5,
        };
        let text = render(&plan, &samples, &["floor: slow".to_owned()]);
        let rows: Vec<&str> = text.lines().filter(|l| l.starts_with('|')).collect();
        let expected = [
            "|            | floor | rathole |",
            "| ---------- | ----- | ------- |",
            "| bulk, Gb/s | 1.20  | -       |",
            "|            | skupperd            | floor               | rathole |",
            "| ---------- | ------------------- | ------------------- | ------- |",
            "| bulk, Gb/s | 12.5 (12.0 to 13.0) | 10.0 (10.0 to 10.0) | -       |",
        ];
        assert_eq!(rows, expected);
        assert!(text.starts_with("2 rounds, interleaved, 0.5 s each; "));
        assert!(text.ends_with("\nnote: floor: slow\n"));
    }
}
