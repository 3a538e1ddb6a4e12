//! `skupper connections`, the newest connections of the namespace, and `skupper top`, the rates of its
//! services.

use super::{
    CommandResult, Failure, daemon_http,
    output::{self, OutputArgs},
    show,
    target::CommandTarget,
    view::{REFRESH, ViewArgs, clear},
};
use anyhow::anyhow;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io::IsTerminal,
    thread,
    time::{Duration, Instant},
};

#[derive(Debug, Args)]
pub(super) struct Connections {
    /// Number of connections to show; -1 shows all that skupperd remembers
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 20,
        allow_negative_numbers = true
    )]
    limit: i64,
    /// Show open connections only
    #[arg(long)]
    active: bool,
    #[command(flatten)]
    view: ViewArgs,
}

/// `skupper connections`
pub(super) fn connections(target: &CommandTarget, args: &Connections) -> CommandResult {
    let state = if args.active { "active" } else { "all" };
    let path = format!(
        "/connections?limit={}&state={state}&namespace={}",
        args.limit,
        target.name()
    );
    let screen = |all: &Value| connections_screen(all.as_array().map_or(&[], Vec::as_slice));
    args.view
        .show(|| results(target, &path).map(Value::Array), screen)
}

/// `skupper top`: until interrupted on a terminal, else once.
pub(super) fn top(target: &CommandTarget, format: &OutputArgs) -> CommandResult {
    let encoding = format.encoding()?;
    let (mut then, mut before) = (Instant::now(), services(target)?);
    loop {
        thread::sleep(REFRESH);
        let (now, after) = (Instant::now(), services(target)?);
        let rows = rates(&before, &after, now - then);
        let live = encoding.is_none() && std::io::stdout().is_terminal();
        match encoding {
            Some(encoding) => output::document(&Value::Array(rows), encoding)?,
            None => {
                clear(live)?;
                output::print(&top_screen(&rows))?;
            }
        }
        if !live {
            return Ok(());
        }
        (then, before) = (now, after);
    }
}

/// The list in the daemon's response.
fn results(target: &CommandTarget, path: &str) -> Result<Vec<Value>, Failure> {
    let answer = daemon_http::get(target.layout.runtime(), path).map_err(|e| anyhow!(e))?;
    let body = answer.body().map_err(|e| anyhow!(e))?;
    let mut list: Value = serde_json::from_str(&body).map_err(anyhow::Error::from)?;
    match list["results"].take() {
        Value::Array(results) => Ok(results),
        _ => Err(anyhow!("skupperd answered {path} without results").into()),
    }
}

fn services(target: &CommandTarget) -> Result<Vec<Value>, Failure> {
    let mut all = results(target, "/services")?;
    all.retain(|service| service["namespace"] == target.name().as_str());
    Ok(all)
}

/// Counters of a service, with the names of their rates.
const RATES: [(&str, &str); 3] = [
    ("opened", "openedPerSecond"),
    ("sentBytes", "sentBytesPerSecond"),
    ("receivedBytes", "receivedBytesPerSecond"),
];

/// Services with their rates, the busiest first.
fn rates(before: &[Value], after: &[Value], time: Duration) -> Vec<Value> {
    let name = |service: &Value| {
        let fields = ["side", "routingKey", "remoteSiteId", "siteId"];
        fields.map(|field| service[field].to_string())
    };
    let old: HashMap<_, &Value> = before.iter().map(|s| (name(s), s)).collect();
    let count = |service: &Value, field: &str| service[field].as_u64().unwrap_or(0);
    let mut rows: Vec<Value> = after.to_vec();
    for row in &mut rows {
        let was = old.get(&name(row));
        row["open"] = json!(count(row, "opened").saturating_sub(count(row, "closed")));
        for (field, rate) in RATES {
            let was = was.map_or(0, |was| count(was, field));
            // Counters start at 0 again when the daemon restarts.
            let more = count(row, field).saturating_sub(was);
            row[rate] = json!((more as f64 / time.as_secs_f64()).round());
        }
    }
    let weight = |row: &Value| {
        let rate = |n: usize| row[RATES[n].1].as_f64().unwrap_or(0.0);
        (rate(1) + rate(2), rate(0))
    };
    rows.sort_by(|a, b| {
        let ((bytes_a, opened_a), (bytes_b, opened_b)) = (weight(a), weight(b));
        let most = bytes_b.total_cmp(&bytes_a);
        most.then(opened_b.total_cmp(&opened_a))
    });
    rows
}

fn top_screen(rows: &[Value]) -> String {
    if rows.is_empty() {
        return "No connections to services yet".to_owned();
    }
    let cells = rows.iter().map(|row| {
        let text = |field: &str| show::text(row, &format!("/{field}"));
        let bytes = |field: &str| format_bytes(row[field].as_f64().unwrap_or(0.0));
        vec![
            text("routingKey"),
            text("side"),
            text("remoteSiteName"),
            text("open"),
            row["openedPerSecond"].as_f64().unwrap_or(0.0).to_string(),
            bytes("sentBytesPerSecond"),
            bytes("receivedBytesPerSecond"),
            text("opened"),
            bytes("sentBytes"),
            bytes("receivedBytes"),
        ]
    });
    let header = [
        "ROUTING-KEY",
        "SIDE",
        "REMOTE-SITE",
        "OPEN",
        "NEW/S",
        "SENT/S",
        "RECEIVED/S",
        "ALL",
        "SENT",
        "RECEIVED",
    ];
    output::columns(&header, &cells.collect::<Vec<_>>())
}

fn connections_screen(all: &[Value]) -> String {
    if all.is_empty() {
        return "No connections yet".to_owned();
    }
    let rows = all.iter().map(|record| {
        let text = |field: &str| show::text(record, &format!("/{field}"));
        let address = |end: &str| {
            let (host, port) = (text(&format!("{end}Host")), text(&format!("{end}Port")));
            match (host.contains(':'), port.is_empty()) {
                (_, true) => host,
                (true, false) => format!("[{host}]:{port}"),
                (false, false) => format!("{host}:{port}"),
            }
        };
        let bytes = |field: &str| format_bytes(record[field].as_f64().unwrap_or(0.0));
        let micros = |field: &str| match record[field].as_u64() {
            Some(micros) => format_duration(Duration::from_micros(micros)),
            None => String::new(),
        };
        let start = record["startTime"].as_i64().unwrap_or_default();
        let start = Timestamp::from_microsecond(start).unwrap_or_default();
        let end = match text("endReason") {
            reason if reason.is_empty() => "open".to_owned(),
            reason => reason,
        };
        vec![
            start.strftime("%H:%M:%S").to_string(),
            text("routingKey"),
            address("source"),
            text("sourceSiteName"),
            address("dest"),
            text("destSiteName"),
            bytes("octetCount"),
            bytes("octetReverseCount"),
            micros("latency"),
            micros("duration"),
            end,
        ]
    });
    let header = [
        "START(UTC)",
        "ROUTING-KEY",
        "CLIENT",
        "FROM",
        "SERVER",
        "TO",
        "SENT",
        "RECEIVED",
        "LATENCY",
        "DURATION",
        "STATE",
    ];
    output::columns(&header, &rows.collect::<Vec<_>>())
}

/// Bytes with a unit, such as `1.4 GiB`.
fn format_bytes(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes, 0);
    // 1023.95 would round to 1024.0, which is 1.0 of the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{value:.0} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// A duration with a unit, such as `2.5 ms`.
fn format_duration(time: Duration) -> String {
    match time.as_micros() {
        0..1000 => format!("{} us", time.as_micros()),
        1000..1_000_000 => format!("{:.1} ms", time.as_secs_f64() * 1000.0),
        1_000_000..60_000_000 => format!("{:.1} s", time.as_secs_f64()),
        _ => {
            let minutes = time.as_secs() / 60;
            format!(
                "{}h{:02}m{:02}s",
                minutes / 60,
                minutes % 60,
                time.as_secs() % 60
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_have_units() {
        let sizes = [0.0, 1023.0, 1024.0, 1_048_575.0, 1.5e9, 1e20].map(format_bytes);
        assert_eq!(
            sizes,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.0 MiB",
                "1.4 GiB",
                "90949470.2 TiB"
            ]
        );
        let times = [7, 2500, 1_500_000, 3_723_000_000]
            .map(|us| format_duration(Duration::from_micros(us)));
        assert_eq!(times, ["7 us", "2.5 ms", "1.5 s", "1h02m03s"]);
    }

    #[test]
    fn the_busiest_services_come_first() {
        let service = |key: &str, opened: u64, sent: u64| {
            json!({
                "namespace": "default", "side": "listener", "routingKey": key, "siteId": "1",
                "remoteSiteId": "2", "remoteSiteName": "west", "opened": opened, "closed": 1,
                "sentBytes": sent, "receivedBytes": 0,
            })
        };
        let before = [service("idle", 5, 9_000_000), service("busy", 1, 0)];
        let after = [
            service("idle", 5, 9_000_000),
            service("busy", 5, 4096),
            service("new", 2, 512),
        ];
        let rows = rates(&before, &after, Duration::from_secs(2));
        let keys: Vec<&str> = rows
            .iter()
            .filter_map(|r| r["routingKey"].as_str())
            .collect();
        assert_eq!(keys, ["busy", "new", "idle"]);
        insta::assert_snapshot!(top_screen(&rows));
    }

    #[test]
    fn a_connection_is_one_line() {
        let record = |end: Value| {
            json!({
                "startTime": 1_700_000_000_000_000_i64, "routingKey": "web", "sourceHost": "10.0.0.1",
                "sourcePort": "4711", "sourceSiteName": "east", "destHost": "::1", "destPort": "80",
                "destSiteName": "west", "octetCount": 5, "octetReverseCount": 4096, "latency": 900,
                "duration": 2_000_000, "endReason": end,
            })
        };
        let all = [record(Value::Null), record(json!("reset by client"))];
        insta::assert_snapshot!(connections_screen(&all));
    }
}
