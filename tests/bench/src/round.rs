//! The rounds: each measures every group of every peer, one peer after the other, so that a change
//! of the machine's speed meets all of them.

use crate::{
    measure::{self, Figures, measure},
    options::{self, Group, Options},
    peer::{Peer, PeerContext, Tunnel},
    process::{ensure_not_interrupted, stop_on_interrupt},
    progress, report,
    samples::Samples,
    target::Target,
};
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    options: Options,
    /// A name and the directory of skupperd and skupper; ratios are those of the first
    #[arg(long, required = true, value_name = "NAME=DIR", value_parser = parse_programs)]
    programs: Vec<(String, PathBuf)>,
    /// rathole
    #[arg(long, value_name = "FILE", default_value = "rathole")]
    rathole: PathBuf,
    /// Start each peer once for all rounds of a group: for short rounds
    #[arg(long)]
    start_once: bool,
    /// Directory for running peers
    #[arg(long, value_name = "DIR", default_value = "target/bench/run")]
    dir: PathBuf,
}

/// What was asked for, with the defaults filled in.
pub(crate) struct Plan {
    /// The options of the command line.
    pub(crate) options: Vec<String>,
    pub(crate) tunnels: Vec<Tunnel>,
    pub(crate) groups: Vec<Group>,
    pub(crate) rounds: u32,
    pub(crate) secs: f64,
}

impl Plan {
    fn new(options: &Options, programs: &[(String, PathBuf)]) -> Self {
        let ours = programs.iter().map(|(label, dir)| Tunnel::Skupperd {
            label: label.clone(),
            programs: dir.clone(),
        });
        let peers = options.chosen_peers(programs.len() > 1);
        Self {
            options: options.words(),
            tunnels: ours.chain(peers.into_iter().map(Tunnel::Other)).collect(),
            groups: options
                .groups
                .clone()
                .unwrap_or_else(|| Group::value_variants().to_vec()),
            rounds: options.rounds.unwrap_or(if options.quick { 1 } else { 3 }),
            secs: options
                .secs
                .unwrap_or(if options.quick { 2.0 } else { 4.0 }),
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let options = &args.options;
    let plan = Plan::new(options, &absolute(&args.programs)?);
    raise_limit()?;
    stop_on_interrupt()?;
    let labels = plan.tunnels.iter().map(Tunnel::label).collect();
    let mut bench = Benchmark {
        ctx: PeerContext::new(&args.dir, &args.rathole)?,
        samples: Samples::new(labels),
        plan,
        notes: Vec::new(),
        failures: 0,
    };
    if args.start_once {
        bench.start_once()?;
    } else {
        bench.start_each_round()?;
    }
    report::write(options, &bench.plan, &bench.samples, &bench.notes)?;
    if bench.failures > 0 {
        bail!(
            "{} of the measurements failed: see the notes",
            bench.failures
        );
    }
    Ok(())
}

struct Benchmark {
    ctx: PeerContext,
    plan: Plan,
    samples: Samples,
    notes: Vec<String>,
    failures: u32,
}

/// A peer with its server, which is stopped after it.
struct StartedPeer {
    peer: Peer,
    target: Target,
}

impl Benchmark {
    /// A fresh peer for each measurement: what is decided at the start, such as the worker of a
    /// connection, varies between rounds.
    fn start_each_round(&mut self) -> Result<()> {
        for round in 0..self.plan.rounds {
            for group in self.plan.groups.clone() {
                for peer in order(self.plan.tunnels.len(), round) {
                    let mut started = self.start(peer, group);
                    self.measure(&mut started, peer, group, round)?;
                }
            }
        }
        Ok(())
    }

    /// All peers run at the same time and are measured in turns.
    fn start_once(&mut self) -> Result<()> {
        for group in self.plan.groups.clone() {
            let peers = self.plan.tunnels.len();
            let mut started: Vec<_> = (0..peers).map(|peer| self.start(peer, group)).collect();
            for round in 0..self.plan.rounds {
                for peer in order(peers, round) {
                    self.measure(&mut started[peer], peer, group, round)?;
                }
            }
        }
        Ok(())
    }

    fn start(&self, peer: usize, group: Group) -> Result<StartedPeer> {
        let service = measure::service(group);
        let target = Target::start(service)?;
        let peer = self.plan.tunnels[peer].start(&self.ctx, target.addr, service)?;
        target.wait_idle()?;
        Ok(StartedPeer { peer, target })
    }

    /// Fails after an interrupt only: a failure of one peer is noted, and the figures of the others
    /// remain of use.
    fn measure(
        &mut self,
        started: &mut Result<StartedPeer>,
        peer: usize,
        group: Group,
        round: u32,
    ) -> Result<()> {
        let at = format!(
            "round {} of {}, {}, {}",
            round + 1,
            self.plan.rounds,
            options::name(&group),
            self.samples.peers[peer]
        );
        progress(&at);
        let mut notes = Vec::new();
        let mut figures = Figures {
            group,
            put: &mut |metric, value| self.samples.add(metric, peer, round, value),
            note: &mut |note| notes.push(note),
        };
        let timing = measure::timing(self.plan.secs);
        let failure = match started {
            Ok(started) => {
                let done = measure(&mut started.peer, &started.target, timing, &mut figures);
                done.err().map(|e| format!("{e:#}"))
            }
            Err(e) => Some(format!("{e:#}")),
        };
        ensure_not_interrupted()?;
        if let Some(failure) = failure {
            self.failures += 1;
            notes.push(format!("failed: {failure}"));
        }
        let notes = notes.iter().map(|note| format!("{at}: {note}"));
        self.notes.extend(notes);
        Ok(())
    }
}

/// The peers of a round: every other round begins with the last.
fn order(peers: usize, round: u32) -> Vec<usize> {
    let forward = 0..peers;
    if round.is_multiple_of(2) {
        forward.collect()
    } else {
        forward.rev().collect()
    }
}

/// Descriptors for idle connections: each takes two here, and two in each process of a peer.
const DESCRIPTORS: u64 = 8192;

fn raise_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(
        hard >= DESCRIPTORS,
        "{hard} file descriptors are too few: raise the limit to {DESCRIPTORS} with ulimit -Hn"
    );
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("the limit of descriptors")
}

fn absolute(programs: &[(String, PathBuf)]) -> Result<Vec<(String, PathBuf)>> {
    let known = |dir: &Path| -> Result<PathBuf> {
        let dir = std::path::absolute(dir)?;
        for name in ["skupperd", "skupper"] {
            let program = dir.join(name);
            ensure!(program.is_file(), "{} is not built", program.display());
        }
        Ok(dir)
    };
    let programs = programs.iter();
    programs
        .map(|(label, dir)| Ok((label.clone(), known(dir)?)))
        .collect()
}

fn parse_programs(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((label, dir)) if !label.is_empty() && !dir.is_empty() => {
            Ok((label.to_owned(), PathBuf::from(dir)))
        }
        _ => Err("not NAME=DIR".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_alternate_the_order_of_the_peers() {
        assert_eq!(order(3, 0), [0, 1, 2]);
        assert_eq!(order(3, 1), [2, 1, 0]);
    }

    #[test]
    fn another_commit_is_a_peer_beside_the_floor() -> Result<(), String> {
        let programs = ["skupperd=a", "1234567=b"].map(parse_programs);
        let programs: Result<Vec<_>, _> = programs.into_iter().collect();
        let plan = Plan::new(&Options::default(), &programs?);
        let labels: Vec<String> = plan.tunnels.iter().map(Tunnel::label).collect();
        assert_eq!(labels, ["skupperd", "1234567", "floor"]);
        assert_eq!((plan.groups.len(), plan.rounds), (5, 3));
        assert!(parse_programs("skupperd").is_err());
        Ok(())
    }
}
