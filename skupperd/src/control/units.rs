//! States of systemd units that selectors name, from the systemd manager and its signals.

use super::Bus;
use crate::{
    telemetry::chain,
    workload::{UnitStateWriter, UnitStates},
};
use std::{collections::BTreeSet, future::poll_fn, pin::Pin, sync::Arc, time::Duration};
use tokio::time::sleep;
use zbus::{
    Connection, MatchRule, MessageStream, OwnedObjectPath, connection::Builder,
    export::futures_core::Stream, message::Type, proxy::CacheProperties,
};

/// Pause before connecting to systemd again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Time in which changes of units are collected before their states are read.
const RESCAN_DELAY: Duration = Duration::from_millis(20);
const SYSTEMD: &str = "org.freedesktop.systemd1";

/// A unit, as `ListUnitsByNames` returns it: name, description, load, active, and more.
type ListedUnit = (
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
    fn list_units_by_names(&self, names: &[&str]) -> zbus::Result<Vec<ListedUnit>>;
}

/// Publishes the states of the units that are asked for, until dropped. Connects to systemd only while
/// there are such units. Without a bus or systemd the states are absent.
pub async fn units(bus: Option<Bus>, mut writer: UnitStateWriter) {
    let absent = || Arc::new(UnitStates::Absent);
    let Some(bus) = bus else {
        writer.states.send_replace(absent());
        return;
    };
    let mut reported = false;
    // An error means that the other side of the channel is gone.
    while writer.wanted.wait_for(|w| !w.is_empty()).await.is_ok() {
        match watch_units(bus, &mut writer).await {
            Ok(()) => reported = false,
            Err(error) if !reported => {
                reported = true;
                let error = chain(&error);
                tracing::warn!(
                    ?bus,
                    error,
                    "cannot read unit states from systemd; retrying"
                );
            }
            Err(_) => {}
        }
        writer.states.send_replace(absent());
        sleep(RETRY_INTERVAL).await;
    }
}

async fn watch_units(bus: Bus, writer: &mut UnitStateWriter) -> zbus::Result<()> {
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
    // Subscribe before the first read: no change is missed after it.
    let mut changes = MessageStream::for_match_rule(rule, &connection, None).await?;
    manager.subscribe().await?;
    loop {
        let names: BTreeSet<String> = writer.wanted.borrow_and_update().clone();
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        let units = manager.list_units_by_names(&asked).await?;
        let states = units.into_iter().map(|unit| (unit.0, unit.3)).collect();
        let states = Arc::new(UnitStates::Known(states));
        writer.states.send_if_modified(|known| {
            let changed = *known != states;
            *known = states;
            changed
        });
        let change = poll_fn(|cx| Pin::new(&mut changes).poll_next(cx));
        // Both are cancel-safe: the next iteration sees a change that this one missed.
        tokio::select! {
            change = change => {
                if change.is_none() {
                    return Ok(());
                }
                sleep(RESCAN_DELAY).await;
            }
            changed = writer.wanted.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
            }
        }
    }
}
