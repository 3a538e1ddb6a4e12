//! Keeping the objects of resources as the resources are.

use super::{
    objects::{Extra, Grant, Link, Resource, Seen, Service, Site},
    path::path,
};
use crate::{
    model::{Key, Kind, Namespace},
    store::Published,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use zbus::{Connection, OwnedVariant, object_server::Interface};

/// The objects that are there, by path.
#[derive(Default)]
pub(super) struct Objects {
    known: BTreeMap<(Namespace, Key), Arc<Value>>,
}

/// Keys and codes are for those who may have them, not for everybody on the bus.
pub(super) fn shown(key: &Key, document: &Arc<Value>) -> Option<Arc<Value>> {
    match key.kind {
        Kind::Secret => None,
        Kind::AccessGrant => {
            let mut document = (**document).clone();
            if let Some(status) = document.get_mut("status").and_then(Value::as_object_mut) {
                status.remove("code");
            }
            Some(Arc::new(document))
        }
        _ => Some(document.clone()),
    }
}

impl Objects {
    /// Adds, changes and removes objects so that they are as published.
    pub(super) async fn follow(
        &mut self,
        connection: &Connection,
        published: &Published,
    ) -> zbus::Result<()> {
        let mut wanted = BTreeMap::new();
        for (namespace, documents) in published {
            for (key, document) in documents {
                if let Some(document) = shown(key, document) {
                    wanted.insert((namespace.clone(), key.clone()), document);
                }
            }
        }
        let gone: Vec<_> = self
            .known
            .keys()
            .filter(|k| !wanted.contains_key(*k))
            .cloned()
            .collect();
        for id in gone {
            self.known.remove(&id);
            remove(connection, &id.0, &id.1).await?;
        }
        for ((namespace, key), document) in wanted {
            let seen = Seen {
                namespace: namespace.clone(),
                key: key.clone(),
                document: document.clone(),
            };
            match self.known.insert((namespace, key), document.clone()) {
                None => add(connection, seen).await?,
                Some(before) if before != document => change(connection, seen).await?,
                Some(_) => {}
            }
        }
        Ok(())
    }
}

async fn add(connection: &Connection, seen: Seen) -> zbus::Result<()> {
    let (server, path) = (connection.object_server(), path(&seen.namespace, &seen.key));
    let path = path.as_str();
    match Extra::of(seen.key.kind) {
        Some(Extra::Site) => drop(server.at(path, Site(seen.clone())).await?),
        Some(Extra::Link) => drop(server.at(path, Link(seen.clone())).await?),
        Some(Extra::Service) => drop(server.at(path, Service(seen.clone())).await?),
        Some(Extra::Grant) => drop(server.at(path, Grant(seen.clone())).await?),
        None => {}
    }
    drop(server.at(path, Resource(seen)).await?);
    Ok(())
}

async fn remove(connection: &Connection, namespace: &Namespace, key: &Key) -> zbus::Result<()> {
    let (server, path) = (connection.object_server(), path(namespace, key));
    let path = path.as_str();
    match Extra::of(key.kind) {
        Some(Extra::Site) => drop(server.remove::<Site, _>(path).await?),
        Some(Extra::Link) => drop(server.remove::<Link, _>(path).await?),
        Some(Extra::Service) => drop(server.remove::<Service, _>(path).await?),
        Some(Extra::Grant) => drop(server.remove::<Grant, _>(path).await?),
        None => {}
    }
    server.remove::<Resource, _>(path).await?;
    Ok(())
}

async fn change(connection: &Connection, seen: Seen) -> zbus::Result<()> {
    match Extra::of(seen.key.kind) {
        Some(Extra::Site) => replace(connection, &seen, Site).await?,
        Some(Extra::Link) => replace(connection, &seen, Link).await?,
        Some(Extra::Service) => replace(connection, &seen, Service).await?,
        Some(Extra::Grant) => replace(connection, &seen, Grant).await?,
        None => {}
    }
    replace(connection, &seen, Resource).await
}

/// Replaces an interface's state and tells of the properties that differ, in one signal.
async fn replace<I: Interface>(
    connection: &Connection,
    seen: &Seen,
    make: impl Fn(Seen) -> I,
) -> zbus::Result<()> {
    let path = path(&seen.namespace, &seen.key);
    let server = connection.object_server();
    let interface = server.interface::<_, I>(path.as_str()).await?;
    let emitter = interface.signal_emitter();
    let before = interface
        .get()
        .await
        .get_all(server, connection, None, emitter)
        .await?;
    *interface.get_mut().await = make(seen.clone());
    let after = interface
        .get()
        .await
        .get_all(server, connection, None, emitter)
        .await?;
    let changed: HashMap<&String, &OwnedVariant> = after
        .iter()
        .filter(|(name, value)| before.get(*name) != Some(*value))
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    let gone: [&str; 0] = [];
    connection
        .emit_signal(
            None::<zbus::names::BusName<'_>>,
            path.as_str(),
            "org.freedesktop.DBus.Properties",
            "PropertiesChanged",
            &(I::name(), changed, gone.as_slice()),
        )
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;

    #[test]
    fn codes_and_keys_are_not_shown() {
        let document = Arc::new(serde_json::json!({"status": {"code": "sesame", "url": "u"}}));
        let name = Name::new("x").unwrap();
        let grant = shown(&Key::new(Kind::AccessGrant, name.clone()), &document).unwrap();
        assert_eq!(grant["status"], serde_json::json!({"url": "u"}));
        assert_eq!(shown(&Key::new(Kind::Secret, name), &document), None);
    }
}
