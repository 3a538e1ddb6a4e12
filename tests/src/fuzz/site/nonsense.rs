//! The program of the hostile peer: each input is a list of steps, and each step a byte that chooses it
//! and bytes that choose its fields. Every input is a program.
//!
//! Steps know the protocol: most of what they say is well formed, with wrong fields, foreign ids or at a
//! wrong time. The peer has several connections, with the same or other certificates.

mod routing;
mod transport;

use super::{peer::Peer, words};
use skupperd::{
    pki::CertificateIdentity,
    simulation::{SimulatedPort, Simulation},
};
use std::time::Duration;

/// Most connections that a program opens, and steps that it takes, repetitions counted.
const CONNECTIONS: usize = 12;
const STEPS: usize = 400;
/// Most repetitions of one step.
const REPETITIONS: usize = 64;

/// The bytes of a program, read from the front. Behind the end there are zeros.
#[derive(Clone, Copy)]
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u32 {
        words::number(self.byte())
    }

    /// One of so many bits of a byte is set.
    fn one_in(&mut self, n: u8) -> bool {
        self.byte() % n == 1
    }

    fn take(&mut self, most: usize) -> &'a [u8] {
        let n = usize::from(self.byte()).min(most).min(self.0.len());
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        taken
    }
}

/// The hostile peer with its connections.
#[derive(Default)]
pub(super) struct Hostile {
    pub(super) peers: Vec<Peer>,
    current: usize,
    /// Steps so far, repetitions counted: tells names apart.
    pub(super) steps: usize,
    /// Connections so far.
    pub(super) opened: usize,
    /// What connections had sent that are gone.
    gone: (usize, usize),
}

/// A certificate with this subject, of the CA of the site.
pub(super) fn certificate(subject: &str) -> CertificateIdentity {
    CertificateIdentity {
        serial: format!("0{}", subject.len()),
        subject: subject.to_owned(),
        expires: jiff::Timestamp::UNIX_EPOCH,
        authority: "ca".to_owned(),
    }
}

impl Hostile {
    /// Whether the program may go on.
    pub(super) fn may_go_on(&self) -> bool {
        self.steps < STEPS
    }

    /// Takes the next step of a program. Returns the time that is to pass.
    pub(super) fn step(
        &mut self,
        input: &mut Input<'_>,
        simulation: &Simulation,
    ) -> Option<Duration> {
        let choice = input.byte();
        if choice % 32 != 31 {
            return self.act(choice, input, simulation);
        }
        // The next step, several times.
        let times = usize::from(input.byte()) % REPETITIONS;
        let choice = input.byte();
        let start = *input;
        for _ in 0..=times {
            *input = start;
            let wait = self.act(choice, input, simulation);
            if wait.is_some() {
                return wait;
            }
        }
        None
    }

    fn act(
        &mut self,
        choice: u8,
        input: &mut Input<'_>,
        simulation: &Simulation,
    ) -> Option<Duration> {
        self.steps += 1;
        match choice % 32 {
            0 | 1 => self.connect(input, simulation),
            2 => self.current = usize::from(input.byte()),
            3 => return Some(pause(input.byte())),
            4 => self.drop_connection(),
            choice => self.speak(choice, input),
        }
        None
    }

    fn connect(&mut self, input: &mut Input<'_>, simulation: &Simulation) {
        if self.opened >= CONNECTIONS {
            return;
        }
        let (kind, who) = (input.byte(), input.byte());
        let port = match kind % 8 {
            0..=3 => SimulatedPort::InterRouter,
            4..=6 => SimulatedPort::Edge,
            _ => SimulatedPort::Local,
        };
        let subject = ["evil", "evil", "mallory", ""][usize::from(who / 16) % 4];
        let identity = (port != SimulatedPort::Local).then(|| certificate(subject));
        let id = match port {
            SimulatedPort::Local => "client".to_owned(),
            _ => words::id(who % 16, self.steps),
        };
        let pipe = simulation.connect(port, identity);
        let mut peer = Peer::new(pipe, id);
        transport::open(&mut peer, port, input);
        self.peers.push(peer);
        self.current = self.peers.len() - 1;
        self.opened += 1;
    }

    fn speak(&mut self, choice: u8, input: &mut Input<'_>) {
        let (steps, count) = (self.steps, self.peers.len());
        let Some(peer) = self.peers.get_mut(self.current % count.max(1)) else {
            return;
        };
        match choice {
            5..=9 => routing::speak(peer, choice, steps, input),
            _ => transport::speak(peer, choice, steps, input),
        }
    }

    /// Ends the current connection without a close.
    fn drop_connection(&mut self) {
        if !self.peers.is_empty() {
            let peer = self.peers.remove(self.current % self.peers.len());
            self.gone.0 += peer.sent;
            self.gone.1 += peer.frames;
        }
    }

    /// Ends all connections.
    pub(super) fn leave(&mut self) {
        while !self.peers.is_empty() {
            self.drop_connection();
        }
    }

    /// Gives the site what it takes, and reads what it has said. True: nothing is left.
    pub(super) fn exchange(&mut self) -> bool {
        let mut is_done = true;
        for peer in &mut self.peers {
            is_done &= peer.flush();
            peer.read();
            is_done &= peer.flush();
        }
        is_done
    }

    /// Before a part of the time that passes.
    pub(super) fn keep_alive(&mut self) {
        self.peers.iter_mut().for_each(Peer::keep_alive);
    }

    /// Bytes and frames that the peer has sent.
    pub(super) fn sent(&self) -> (usize, usize) {
        self.peers.iter().fold(self.gone, |(bytes, frames), peer| {
            (bytes + peer.sent, frames + peer.frames)
        })
    }

    /// Bytes that the peer itself holds.
    pub(super) fn held_bytes(&self) -> usize {
        self.peers.iter().map(Peer::held_bytes).sum()
    }
}

/// Times between what the timers of routers and connections wait for.
fn pause(choice: u8) -> Duration {
    const MILLIS: [u64; 12] = [
        1, 10, 100, 260, 1000, 2100, 3500, 5000, 8100, 12_000, 16_500, 20_000,
    ];
    Duration::from_millis(MILLIS[usize::from(choice) % MILLIS.len()])
}
