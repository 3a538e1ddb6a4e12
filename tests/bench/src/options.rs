//! Options of the benchmark. `cargo xtask bench` has the same and passes them on.

use clap::ValueEnum;
use std::path::PathBuf;

#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub(crate) struct Options {
    /// What to compare with [default: floor,haproxy,rathole; with --quick floor,haproxy; with
    /// --against floor]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PEER,..")]
    pub(crate) peers: Option<Vec<PeerKind>>,
    /// What to measure [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "GROUP,..")]
    pub(crate) groups: Option<Vec<Group>>,
    /// Rounds; each measures every peer once [default: 3; with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: Option<u32>,
    /// Seconds of each measurement, such as 0.5 [default: 4; with --quick 2]
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    pub(crate) secs: Option<f64>,
    /// A first impression in a few minutes
    #[arg(long)]
    pub(crate) quick: bool,
    /// Write all samples to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a plot of the ratios to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

/// A tunnel to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PeerKind {
    /// No tunnel: clients connect to the server
    Direct,
    /// A TLS connection for each client, with tokio and rustls and nothing else
    Floor,
    /// haproxy in TCP mode
    Haproxy,
    /// rathole with its TLS transport
    Rathole,
}

/// What is measured together, with one start of each peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// Round trips of 64 bytes: latency and CPU
    Pp,
    /// New connections: rate and CPU
    Conn,
    /// HTTP requests: rate, latency and CPU
    Http,
    /// One-way streams: throughput and CPU
    Bulk,
    /// Resident memory
    Mem,
}

impl Options {
    /// The peers to start beside skupperd. `revision`: another commit of it is measured, too.
    pub(crate) fn chosen_peers(&self, revision: bool) -> Vec<PeerKind> {
        let default: &[PeerKind] = match (revision, self.quick) {
            (true, _) => &[PeerKind::Floor],
            (false, true) => &[PeerKind::Floor, PeerKind::Haproxy],
            (false, false) => &[PeerKind::Floor, PeerKind::Haproxy, PeerKind::Rathole],
        };
        self.peers.clone().unwrap_or_else(|| default.to_vec())
    }

    /// The command line that gives these options.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut add = |name: &str, value: Option<String>| {
            words.extend(value.into_iter().flat_map(|v| [name.to_owned(), v]));
        };
        add("--peers", self.peers.as_deref().map(names));
        add("--groups", self.groups.as_deref().map(names));
        add("--rounds", self.rounds.map(|n| n.to_string()));
        add("--secs", self.secs.map(|s| s.to_string()));
        let path = |path: &PathBuf| path.display().to_string();
        add("--json", self.json.as_ref().map(path));
        add("--svg", self.svg.as_ref().map(path));
        words.extend(self.quick.then(|| "--quick".to_owned()));
        words
    }
}

/// The name of a value on the command line.
pub(crate) fn name(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

fn names(values: &[impl ValueEnum]) -> String {
    let names: Vec<String> = values.iter().map(name).collect();
    names.join(",")
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("not a number of seconds from 0.1 to 3600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn parse(words: &[&str]) -> Result<Options, clap::Error> {
        let program = std::iter::once("bench");
        Ok(Cli::try_parse_from(program.chain(words.iter().copied()))?.options)
    }

    #[test]
    fn the_words_of_options_parse_to_the_same_options() -> Result<(), clap::Error> {
        for text in [
            "",
            "--quick",
            "--peers floor,rathole --groups pp,mem --rounds 5 --secs 0.5 --json a.json --svg b.svg",
        ] {
            let words: Vec<&str> = text.split_whitespace().collect();
            let options = parse(&words)?;
            assert_eq!(options.words().join(" "), text);
        }
        Ok(())
    }

    #[test]
    fn seconds_and_rounds_have_bounds() {
        for words in [
            ["--secs", "0"],
            ["--secs", "NaN"],
            ["--rounds", "0"],
            ["--peers", "none"],
        ] {
            assert!(parse(&words).is_err(), "{words:?}");
        }
    }
}
