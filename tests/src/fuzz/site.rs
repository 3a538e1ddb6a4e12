//! A whole site under a peer that speaks nonsense.
//!
//! The site is [`Simulation`]: the core with its router, the workers and their connections, without
//! sockets or threads, on simulated time. It has two neighbours: one keeps to the protocol
//! ([`honest`]), the other is driven by the input ([`nonsense`]). After each step the checks of
//! [`checks`] hold: nobody notices the hostile peer but the hostile peer.

mod checks;
mod honest;
mod nonsense;
mod peer;
mod words;

use checks::Checks;
use honest::Honest;
use nonsense::{Hostile, Input, certificate};
use skupperd::simulation::{SimulatedPort, Simulation};
use std::{cell::Cell, sync::Once, time::Duration};
use tokio::{runtime::Builder, task::LocalSet};

/// Id of the site's router, and routing key of its connector.
const SITE: &str = "site";
const SERVICE: &str = "echo";

/// Time for the site to do what bytes have caused.
const MOMENT: Duration = Duration::from_millis(1);
/// Moments in which the site takes what a step has sent. A site that reads nothing more has ended the
/// connection or waits for the peer.
const MOMENTS: usize = 64;
/// Time passes in parts of this, at most: between them a polite peer keeps its connections alive.
const PART: Duration = Duration::from_secs(1);
/// Simulated time that a program takes, at most.
const LONGEST: Duration = Duration::from_secs(180);

thread_local! {
    /// A task of this thread has panicked: its runtime has caught that.
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// Notes panics of this thread. The first call installs the hook.
fn note_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICKED.set(true);
            next(info);
        }));
    });
    PANICKED.set(false);
}

/// Runs the program that the input is. Returns what has happened, in numbers.
pub fn site(data: &[u8]) -> String {
    note_panics();
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = runtime.expect("a runtime");
    LocalSet::new().block_on(&runtime, run(data))
}

async fn run(data: &[u8]) -> String {
    let simulation = Simulation::start(SITE, &[SERVICE]).await.expect("a core");
    let pipe = simulation.connect(SimulatedPort::InterRouter, Some(certificate(honest::ID)));
    let honest = Honest::start(pipe, SITE, SERVICE);
    // Until the neighbours know each other and a stream has come back.
    for _ in 0..40 {
        simulation.advance(Duration::from_millis(250)).await;
        if honest.report.borrow().streams > 0 {
            break;
        }
    }
    let mut checks = Checks::new(&simulation, &honest);
    checks.now(&Hostile::default()).await;
    let (mut input, mut hostile) = (Input::new(data), Hostile::default());
    let is_long = input.byte() % 4 == 1;
    let mut passed = Duration::ZERO;
    while !input.is_empty() && hostile.may_go_on() && passed < LONGEST {
        let mut left = hostile.step(&mut input, &simulation).unwrap_or_default();
        passed += left;
        while !left.is_zero() {
            hostile.keep_alive();
            exchange(&mut hostile, &simulation).await;
            simulation.advance(left.min(PART)).await;
            left = left.saturating_sub(PART);
        }
        exchange(&mut hostile, &simulation).await;
        checks.now(&hostile).await;
    }
    let counts = format!(
        "{} steps {} connections {} open {} frames",
        hostile.steps,
        hostile.opened,
        simulation.connections().len() - 1,
        hostile.sent().1
    );
    hostile.leave();
    checks.after(&hostile, is_long).await;
    let report = honest.report.borrow();
    format!("{counts} {} served {}", checks.summary(), report.served)
}

/// Moves bytes between the hostile peer and the site, until none are left or the site takes no more.
async fn exchange(hostile: &mut Hostile, simulation: &Simulation) {
    for _ in 0..MOMENTS {
        let is_done = hostile.exchange();
        simulation.advance(MOMENT).await;
        if is_done {
            break;
        }
    }
    hostile.exchange();
}
