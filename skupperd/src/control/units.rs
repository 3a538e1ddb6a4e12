//! States of units, from the service manager: it tells when something changes.

use super::Bus;
use crate::{
    telemetry::chain,
    workload::{Answering, States},
};
use std::{collections::BTreeSet, future::poll_fn, pin::Pin, sync::Arc, time::Duration};
use tokio::time::sleep;
use zbus::{
    Connection, MatchRule, MessageStream, OwnedObjectPath, connection::Builder,
    export::futures_core::Stream, message::Type, proxy::CacheProperties,
};

/// Pause before the service manager is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// A unit that starts or ends changes several times within this; one question is enough.
const SETTLE: Duration = Duration::from_millis(20);
const SYSTEMD: &str = "org.freedesktop.systemd1";

/// A unit, as `ListUnitsByNames` gives it: name, description, load, active, and more.
type Listed = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Units {
    fn subscribe(&self) -> zbus::Result<()>;
    fn list_units_by_names(&self, names: &[&str]) -> zbus::Result<Vec<Listed>>;
}

/// Answers for the units that are asked for, until dropped. While there are none, nobody is
/// connected to. Without a bus, or a service manager on it, there is nobody to ask.
pub async fn units(bus: Option<Bus>, mut answering: Answering) {
    let absent = || Arc::new(States::Absent);
    let Some(bus) = bus else {
        answering.states.send_replace(absent());
        return;
    };
    let mut told = false;
    // Whoever has asked is gone when there is nothing to wait for.
    while answering.wanted.wait_for(|w| !w.is_empty()).await.is_ok() {
        match once(bus, &mut answering).await {
            Ok(()) => told = false,
            Err(error) if !told => {
                told = true;
                let error = chain(&error);
                tracing::warn!(?bus, error, "systemd does not say whether units are ready");
            }
            Err(_) => {}
        }
        answering.states.send_replace(absent());
        sleep(AGAIN).await;
    }
}

async fn once(bus: Bus, answering: &mut Answering) -> zbus::Result<()> {
    let builder = match bus {
        Bus::System => Builder::system(),
        Bus::Session => Builder::session(),
    };
    let connection: Connection = builder.build().await?;
    let manager = UnitsProxy::builder(&connection)
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(SYSTEMD)
        .interface("org.freedesktop.DBus.Properties")
        .member("PropertiesChanged")
        .path_namespace("/org/freedesktop/systemd1/unit")
        .arg(0, "org.freedesktop.systemd1.Unit")
        .build()?;
    // Before the first question: nothing changes unseen after it.
    let mut changes = MessageStream::for_match_rule(rule, &connection, None).await?;
    manager.subscribe().await?;
    loop {
        let names: BTreeSet<String> = answering.wanted.borrow_and_update().clone();
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        let units = manager.list_units_by_names(&asked).await?;
        let states = units.into_iter().map(|unit| (unit.0, unit.3)).collect();
        let states = Arc::new(States::Known(states));
        answering.states.send_if_modified(|known| {
            let changed = *known != states;
            *known = states;
            changed
        });
        let change = poll_fn(|cx| Pin::new(&mut changes).poll_next(cx));
        // Both are cancel-safe: what is not seen now is seen at the next turn.
        tokio::select! {
            change = change => {
                if change.is_none() {
                    return Ok(());
                }
                sleep(SETTLE).await;
            }
            changed = answering.wanted.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
            }
        }
    }
}
