use super::*;
use std::time::Instant;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::LocalSet,
};

/// Runs a test on simulated time.
fn simulate(test: impl AsyncFnOnce(Simulation)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        test(Simulation::start("A", &["web"]).await.expect("a core")).await;
    });
}

#[test]
fn a_peer_that_says_nothing_is_cut_off_when_the_handshake_takes_too_long() {
    let begun = Instant::now();
    simulate(async |simulation| {
        let mut peer = simulation.connect(SimulatedPort::Local, None);
        simulation.advance(Duration::from_secs(9)).await;
        peer.write_all(b"AMQP\x03\x01\x00\x00")
            .await
            .expect("an open connection");
        simulation.advance(Duration::from_secs(2)).await;
        let mut said = Vec::new();
        peer.read_to_end(&mut said).await.expect("an end");
        assert!(said.starts_with(b"AMQP\x03\x01\x00\x00"), "{said:?}");
        assert!(simulation.connections().is_empty());
    });
    assert!(begun.elapsed() < handshake::TIMEOUT, "nobody waits");
}

#[test]
fn workers_have_the_view_of_the_site_and_its_connectors() {
    simulate(async |simulation| {
        simulation.advance(Duration::from_secs(1)).await;
        let view = simulation.view();
        assert!(view.connectors.contains_key("web"));
        assert!(view.routes.addresses["web"].local);
        let state = simulation.describe().await.expect("a site");
        assert_eq!(state.network.len(), 1);
        simulation.stop().await.expect("a core");
        assert!(simulation.describe().await.is_err());
        assert_ne!(simulation.counts(), MessageCounts::default());
    });
}
