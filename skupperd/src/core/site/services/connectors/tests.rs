use super::*;
use crate::{
    core::{channel, site::effects::Effect},
    model::{ConnectorSettings, ProxyProtocol},
};
use std::net::{IpAddr, Ipv4Addr};

fn spec(port: u16) -> ConnectorSpec {
    ConnectorSpec {
        name: "web".to_owned(),
        host: TargetHost::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        port,
        routing_key: "key".to_owned(),
        settings: ConnectorSettings::default(),
        tls: None,
        sites: None,
        probe: None,
        include_not_ready: false,
    }
}

/// Connectors with what they need of the core.
struct Bench {
    connectors: Connectors,
    sender: CoreSender,
    acceleration: Arc<Acceleration>,
    effects: Effects,
}

fn bench() -> Bench {
    Bench {
        connectors: Connectors::new(1),
        sender: channel().0.events().clone(),
        acceleration: Acceleration::new(false),
        effects: Effects::default(),
    }
}

impl Bench {
    fn set(&mut self, spec: ConnectorSpec) -> Vec<RouterInput> {
        let Self {
            connectors,
            sender,
            acceleration,
            effects,
        } = self;
        connectors.set(spec, sender, acceleration, effects);
        effects.router_inputs()
    }

    fn set_servers(&mut self, ports: &[u16]) -> bool {
        let servers = ports.iter().map(|port| spec(*port)).collect();
        let Self {
            connectors,
            sender,
            acceleration,
            effects,
        } = self;
        connectors.set_servers("web", servers, sender, acceleration, effects)
    }
}

#[test]
fn a_connector_is_known_to_the_network_while_it_exists() {
    let mut bench = bench();
    let added = RouterInput::AddConsumer("key".to_owned(), Treatment::of("key"));
    let removed = RouterInput::RemoveConsumer("key".to_owned());
    assert_eq!(bench.set(spec(1)), std::slice::from_ref(&added));
    assert_eq!(bench.set(spec(1)), []);
    assert_eq!(bench.set(spec(2)), [removed.clone(), added]);
    bench.connectors.remove("web", &mut bench.effects);
    assert_eq!(bench.effects.router_inputs(), [removed]);
    assert!(bench.connectors.offered().is_empty());
}

#[test]
fn a_connector_with_proxy_protocol_announces_that_it_needs_origins() {
    let mut bench = bench();
    let with_header = ConnectorSpec {
        settings: ConnectorSettings {
            proxy_protocol: Some(ProxyProtocol::V2),
            ..ConnectorSettings::default()
        },
        ..spec(1)
    };
    let advert = format!("{ORIGIN_ADVERT}key");
    let advert = RouterInput::AddConsumer(advert, Treatment::Closest);
    assert_eq!(bench.set(with_header).get(1), Some(&advert));
}

#[test]
fn a_server_goes_when_its_connections_have_ended() {
    let mut bench = bench();
    assert!(!bench.set_servers(&[1, 2]));
    let offered = bench.connectors.offered();
    let first = offered["key"].iter().find(|target| target.port == 1);
    let first = first.expect("a target").clone();
    first.in_use.store(1, Ordering::Relaxed);
    // Workers may be about to use the server, then a connection is open to it.
    assert!(bench.set_servers(&[2]) && bench.set_servers(&[2]));
    assert_eq!(bench.connectors.offered()["key"].len(), 1);
    assert_eq!(bench.connectors.withheld().len(), 1);
    assert_eq!(bench.connectors.states()["web"].servers, 1);
    first.in_use.store(0, Ordering::Relaxed);
    assert!(!bench.set_servers(&[2]));
    assert!(bench.connectors.withheld().is_empty());
    // One that comes back is offered again.
    assert!(bench.set_servers(&[1]));
    assert!(!bench.set_servers(&[1, 2]));
    assert_eq!(bench.connectors.offered()["key"].len(), 2);
}

#[test]
fn connections_of_all_servers_end_with_the_site() {
    let mut bench = bench();
    bench.set_servers(&[1, 2]);
    bench.effects.drain();
    bench.connectors.clear(&mut bench.effects);
    let cut = |e: &Effect| matches!(e, Effect::Unlisten { cut: true, .. });
    let ended = bench.effects.drain();
    assert!(ended.len() == 2 && ended.iter().all(cut));
}
