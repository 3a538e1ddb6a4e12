//! Adds, changes and removes the D-Bus objects as resources come, change and go.

use super::{
    PATH,
    objects::{
        GrantObject, KindInterface, LinkObject, PublishedResource, ResourceObject, ServiceObject,
        SiteObject,
    },
    path::path,
};
use crate::{
    model::{Key, Kind, Name, Namespace},
    store::{Documents, ResourceSnapshot},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use zbus::{Connection, OwnedVariant, object_server::Interface};

/// The objects on the bus.
#[derive(Default)]
pub(super) struct Objects {
    current: BTreeMap<(Namespace, Key), Arc<Value>>,
}

/// The document without secrets; `None` for a Secret.
pub(super) fn without_secrets(key: &Key, document: &Arc<Value>) -> Option<Arc<Value>> {
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

/// The resources of a kind in a report, by name.
pub(super) fn statuses_of(report: &Documents, kind: Kind) -> BTreeMap<Name, Value> {
    let wanted = report.iter().filter(|(key, _)| key.kind == kind);
    let named = wanted.map(|(key, document)| (key.name.clone(), (**document).clone()));
    named.collect()
}

/// All resources with their statuses, without secrets, as JSON.
pub(super) fn dump(published: &ResourceSnapshot) -> String {
    let documents = published.iter().map(|(namespace, documents)| {
        let shown = documents
            .iter()
            .filter_map(|(key, d)| without_secrets(key, d));
        let shown: Vec<Value> = shown.map(|d| (*d).clone()).collect();
        (namespace.to_string(), Value::from(shown))
    });
    let dump = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "path": PATH,
        "namespaces": documents.collect::<serde_json::Map<String, Value>>(),
    });
    dump.to_string()
}

impl Objects {
    /// Makes the objects equal to what the daemon published.
    pub(super) async fn follow(
        &mut self,
        connection: &Connection,
        published: &ResourceSnapshot,
    ) -> zbus::Result<()> {
        let mut wanted = BTreeMap::new();
        for (namespace, documents) in published {
            for (key, document) in documents {
                if let Some(document) = without_secrets(key, document) {
                    wanted.insert((namespace.clone(), key.clone()), document);
                }
            }
        }
        let gone: Vec<_> = self
            .current
            .keys()
            .filter(|k| !wanted.contains_key(*k))
            .cloned()
            .collect();
        for id in gone {
            self.current.remove(&id);
            remove(connection, &id.0, &id.1).await?;
        }
        for ((namespace, key), document) in wanted {
            let resource = PublishedResource {
                namespace: namespace.clone(),
                key: key.clone(),
                document: document.clone(),
            };
            match self.current.insert((namespace, key), document.clone()) {
                None => add(connection, resource).await?,
                Some(before) if before != document => change(connection, resource).await?,
                Some(_) => {}
            }
        }
        Ok(())
    }
}

async fn add(connection: &Connection, resource: PublishedResource) -> zbus::Result<()> {
    let (server, path) = (
        connection.object_server(),
        path(&resource.namespace, &resource.key),
    );
    let path = path.as_str();
    match KindInterface::of(resource.key.kind) {
        Some(KindInterface::Site) => drop(server.at(path, SiteObject(resource.clone())).await?),
        Some(KindInterface::Link) => drop(server.at(path, LinkObject(resource.clone())).await?),
        Some(KindInterface::Service) => {
            drop(server.at(path, ServiceObject(resource.clone())).await?);
        }
        Some(KindInterface::Grant) => drop(server.at(path, GrantObject(resource.clone())).await?),
        None => {}
    }
    drop(server.at(path, ResourceObject(resource)).await?);
    Ok(())
}

async fn remove(connection: &Connection, namespace: &Namespace, key: &Key) -> zbus::Result<()> {
    let (server, path) = (connection.object_server(), path(namespace, key));
    let path = path.as_str();
    match KindInterface::of(key.kind) {
        Some(KindInterface::Site) => drop(server.remove::<SiteObject, _>(path).await?),
        Some(KindInterface::Link) => drop(server.remove::<LinkObject, _>(path).await?),
        Some(KindInterface::Service) => drop(server.remove::<ServiceObject, _>(path).await?),
        Some(KindInterface::Grant) => drop(server.remove::<GrantObject, _>(path).await?),
        None => {}
    }
    server.remove::<ResourceObject, _>(path).await?;
    Ok(())
}

async fn change(connection: &Connection, resource: PublishedResource) -> zbus::Result<()> {
    match KindInterface::of(resource.key.kind) {
        Some(KindInterface::Site) => replace(connection, &resource, SiteObject).await?,
        Some(KindInterface::Link) => replace(connection, &resource, LinkObject).await?,
        Some(KindInterface::Service) => replace(connection, &resource, ServiceObject).await?,
        Some(KindInterface::Grant) => replace(connection, &resource, GrantObject).await?,
        None => {}
    }
    replace(connection, &resource, ResourceObject).await
}

/// Replaces the state of an interface, and emits one signal with the properties that changed.
async fn replace<I: Interface>(
    connection: &Connection,
    resource: &PublishedResource,
    make: impl Fn(PublishedResource) -> I,
) -> zbus::Result<()> {
    let path = path(&resource.namespace, &resource.key);
    let server = connection.object_server();
    let interface = server.interface::<_, I>(path.as_str()).await?;
    let emitter = interface.signal_emitter();
    let before = interface
        .get()
        .await
        .get_all(server, connection, None, emitter)
        .await?;
    *interface.get_mut().await = make(resource.clone());
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
    fn documents_on_the_bus_have_no_codes_and_no_keys() {
        let document = Arc::new(serde_json::json!({"status": {"code": "sesame", "url": "u"}}));
        let name = Name::new("x").unwrap();
        let grant = without_secrets(&Key::new(Kind::AccessGrant, name.clone()), &document).unwrap();
        assert_eq!(grant["status"], serde_json::json!({"url": "u"}));
        assert_eq!(
            without_secrets(&Key::new(Kind::Secret, name), &document),
            None
        );
    }
}
