//! Everything that was measured, for programs.

use super::machine;
use crate::{
    options,
    round::Plan,
    samples::{Better, Samples, Summary},
};
use serde_json::{Map, Value, json};

pub(super) fn render(plan: &Plan, samples: &Samples, notes: &[String]) -> String {
    let metrics: Vec<Value> = (0..samples.metrics.len())
        .map(|metric| describe(samples, metric))
        .collect();
    let document = json!({
        "machine": machine(),
        "options": plan.options,
        "rounds": plan.rounds,
        "secs": plan.secs,
        "peers": samples.peers,
        "metrics": metrics,
        "notes": notes,
    });
    format!("{document:#}\n")
}

fn describe(samples: &Samples, index: usize) -> Value {
    let metric = &samples.metrics[index];
    let mut peers = Map::new();
    for (peer, label) in samples.peers.iter().enumerate() {
        let Some(rounds) = samples.values.get(&(index, peer)) else {
            continue;
        };
        let rounds: Map<String, Value> = rounds
            .iter()
            .map(|(round, value)| ((round + 1).to_string(), json!(value)))
            .collect();
        let median = |summary: Option<Summary>| summary.map(|summary| summary.median);
        let ratio = (peer > 0).then(|| median(samples.ratio(index, peer)));
        peers.insert(
            label.clone(),
            json!({
                "rounds": rounds,
                "median": median(samples.summary(index, peer)),
                "ratio": ratio.flatten(),
            }),
        );
    }
    json!({
        "group": options::name(&metric.group),
        "name": metric.name,
        "unit": metric.unit,
        "better": match metric.better {
            Better::Higher => "higher",
            Better::Lower => "lower",
        },
        "peers": peers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{options::Group, samples::Metric};

    #[test]
    fn a_metric_has_the_values_of_each_round_and_the_ratio() -> anyhow::Result<()> {
        let mut samples = Samples::new(["skupperd", "floor"].map(str::to_owned).into());
        let metric = Metric {
            group: Group::Pp,
            name: "round trips".to_owned(),
            unit: "us",
            better: Better::Lower,
        };
        samples.add(metric.clone(), 0, 0, 20.0);
        samples.add(metric, 1, 0, 30.0);
        let plan = Plan {
            options: Vec::new(),
            tunnels: Vec::new(),
            groups: Vec::new(),
            rounds: 1,
            secs: 2.0,
        };
        let document: Value = serde_json::from_str(&render(&plan, &samples, &[]))?;
        let metric = &document["metrics"][0];
        assert_eq!(metric["group"], "pp");
        assert_eq!(metric["peers"]["skupperd"]["rounds"]["1"], 20.0);
        assert_eq!(metric["peers"]["skupperd"]["ratio"], Value::Null);
        assert_eq!(metric["peers"]["floor"]["ratio"], 1.5);
        Ok(())
    }
}
