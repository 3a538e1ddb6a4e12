//! Connectors of two namespaces.

use super::{
    checks::{CheckResult, checked, field, optional, port, settings, tcp},
    raw,
};
use crate::model::{AttachedConnector, AttachedConnectorBinding, Kind, Meta, Namespace, Spec};

pub(super) fn connector(meta: &Meta, spec: raw::AttachedConnector) -> CheckResult<Spec> {
    tcp(spec.kind.as_deref())?;
    let site_namespace = checked(spec.site_namespace, "spec.siteNamespace")?;
    other(meta, &site_namespace, "spec.siteNamespace")?;
    Ok(Spec::AttachedConnector(AttachedConnector {
        site_namespace,
        selector: checked(spec.selector, "spec.selector")?,
        port: match spec.port {
            // Whatever the servers listen on.
            None | Some(0) => 0,
            given => port(given, "spec.port")?,
        },
        tls_credentials: optional(spec.tls_credentials, "spec.tlsCredentials")?,
        use_client_cert: spec.use_client_cert.unwrap_or_default(),
        include_not_ready: spec.include_not_ready_pods.unwrap_or_default(),
        settings: settings(Kind::AttachedConnector, spec.settings)?,
    }))
}

pub(super) fn binding(meta: &Meta, spec: raw::AttachedConnectorBinding) -> CheckResult<Spec> {
    let connector_namespace = checked(spec.connector_namespace, "spec.connectorNamespace")?;
    other(meta, &connector_namespace, "spec.connectorNamespace")?;
    Ok(Spec::AttachedConnectorBinding(AttachedConnectorBinding {
        connector_namespace,
        routing_key: checked(spec.routing_key, "spec.routingKey")?,
        expose_pods_by_name: spec.expose_pods_by_name.unwrap_or_default(),
        settings: settings(Kind::AttachedConnectorBinding, spec.settings)?,
    }))
}

/// An error for the namespace of the resource itself.
fn other(meta: &Meta, namespace: &Namespace, path: &str) -> CheckResult<()> {
    if *namespace == meta.namespace {
        let text = "is the namespace of the resource itself: use a Connector";
        return Err(field(path, text));
    }
    Ok(())
}
