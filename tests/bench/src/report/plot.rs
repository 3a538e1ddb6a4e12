//! The plot: a row for each metric, with a mark for the ratio to each peer on a logarithmic scale.

use crate::{round::Plan, samples::Samples};
use std::fmt::Write;

/// Left of the scale are the names of the metrics.
const NAMES: f64 = 330.0;
const SCALE: f64 = 420.0;
const WIDTH: f64 = NAMES + SCALE + 40.0;
const HEAD: f64 = 64.0;
const ROW: f64 = 20.0;

/// Marks on the scale; the first and the last are its ends unless values are beyond them.
const TICKS: [f64; 9] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0];

/// Colours that people with colour-blindness can tell apart.
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00"];

/// The part of the scale that is shown.
struct Scale {
    ticks: Vec<f64>,
}

impl Scale {
    /// The ticks around all values, 0.5 and 2 among them.
    fn around(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values.fold((0.5, 2.0), |(low, high): (f64, f64), value| {
            (low.min(value), high.max(value))
        });
        let below = TICKS.iter().rposition(|tick| *tick <= low).unwrap_or(0);
        let above = TICKS.iter().position(|tick| *tick >= high);
        let above = above.unwrap_or(TICKS.len() - 1);
        Self {
            ticks: TICKS[below..=above].to_vec(),
        }
    }

    /// Where a value is; at the end of the scale if it is beyond.
    fn position(&self, value: f64) -> f64 {
        let (first, last) = (self.ticks[0], self.ticks[self.ticks.len() - 1]);
        let part = (value / first).ln() / (last / first).ln();
        NAMES + SCALE * part.clamp(0.0, 1.0)
    }
}

pub(super) fn render(_plan: &Plan, samples: &Samples, _notes: &[String]) -> String {
    let others = 1..samples.peers.len();
    let ratio = |metric, peer| Some(samples.ratio(metric, peer)?.median);
    let all = (0..samples.metrics.len())
        .flat_map(|metric| others.clone().filter_map(move |peer| ratio(metric, peer)));
    let scale = Scale::around(all);
    let bottom = HEAD + ROW * samples.metrics.len() as f64;
    let height = bottom + 16.0;
    let mut body = String::new();
    for tick in &scale.ticks {
        let (x, y) = (scale.position(*tick), HEAD - 12.0);
        let colour = if (*tick - 1.0).abs() < f64::EPSILON {
            "#333"
        } else {
            "#ddd"
        };
        add(
            &mut body,
            format_args!(
                "<path d=\"M{x:.1} {HEAD}V{bottom}\" stroke=\"{colour}\"/>\
             <text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{tick}</text>"
            ),
        );
    }
    for (n, peer) in others.clone().enumerate() {
        let x = NAMES + 110.0 * n as f64;
        add(
            &mut body,
            format_args!(
                "<circle cx=\"{x}\" cy=\"20\" r=\"5\" fill=\"{}\"/>\
             <text x=\"{}\" y=\"24\">{}</text>",
                colour(n),
                x + 10.0,
                escape(&samples.peers[peer])
            ),
        );
    }
    for (row, metric) in samples.metrics.iter().enumerate() {
        let y = HEAD + ROW * (row as f64 + 0.5);
        add(
            &mut body,
            format_args!(
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                NAMES - 12.0,
                y + 4.0,
                escape(&metric.name)
            ),
        );
        for (n, peer) in others.clone().enumerate() {
            if let Some(value) = ratio(row, peer) {
                let (x, fill) = (scale.position(value), colour(n));
                add(
                    &mut body,
                    format_args!(
                        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{fill}\">\
                     <title>{value:.2}</title></circle>"
                    ),
                );
            }
        }
    }
    let ours = samples.peers.first().map_or("", String::as_str);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"24\">{} compared with; right of 1 is better</text>\n\
         {body}</svg>\n",
        escape(ours)
    )
}

fn add(body: &mut String, line: std::fmt::Arguments) {
    // Writing to a string cannot fail.
    let _ = writeln!(body, "{line}");
}

fn colour(peer: usize) -> &'static str {
    COLOURS[peer % COLOURS.len()]
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        options::Group,
        samples::{Better, Metric},
    };

    #[test]
    fn the_scale_includes_all_values_and_one() {
        let scale = Scale::around([0.8, 17.7].into_iter());
        assert_eq!(scale.ticks, [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]);
        assert!(scale.position(0.8) < scale.position(1.0));
        let beyond = Scale::around([1000.0].into_iter());
        assert!(beyond.position(1000.0) <= NAMES + SCALE);
    }

    #[test]
    fn each_ratio_is_a_mark() {
        let mut samples = Samples::new(["skupperd", "a<b"].map(str::to_owned).into());
        let metric = Metric {
            group: Group::Bulk,
            name: "bulk".to_owned(),
            unit: "Gb/s",
            better: Better::Higher,
        };
        samples.add(metric.clone(), 0, 0, 3.0);
        samples.add(metric, 1, 0, 2.0);
        let plan = Plan {
            options: Vec::new(),
            tunnels: Vec::new(),
            groups: Vec::new(),
            rounds: 1,
            secs: 1.0,
        };
        let svg = render(&plan, &samples, &[]);
        assert!(svg.contains("<title>1.50</title>"));
        assert!(svg.contains(">a&lt;b<"));
        assert!(svg.contains(">bulk<"));
    }
}
