//! What the settings of a listener or connector mean to the core: who may use it, and what is left.

use super::error::ReconcileError;
use crate::{
    model::{ConnectorSettings, ListenerSettings, UserRef},
    service::allowed::{AllowedSites, AllowedUsers},
    sys,
};
use std::sync::Arc;

/// Users allowed to connect; `None` allows everyone.
pub(super) fn users(settings: &ListenerSettings) -> Result<Option<AllowedUsers>, ReconcileError> {
    let Some(allowed) = &settings.allow_users else {
        return Ok(None);
    };
    let id = |user: &UserRef| match user {
        UserRef::Id(id) => Ok(*id),
        UserRef::Name(name) => match sys::user_named(name) {
            Ok(Some(id)) => Ok(id),
            Ok(None) => Err(format!("there is no user {name:?}")),
            Err(e) => Err(format!("cannot look up user {name:?}: {e}")),
        },
    };
    let ids: Result<Vec<u32>, String> = allowed.iter().map(id).collect();
    let ids = ids.map_err(|reason| ReconcileError::setting("allow-users", reason))?;
    Ok(Some(AllowedUsers::new(ids)))
}

/// The settings that the core uses itself. Other fields of its specification come from the rest, and the
/// core compares those: a setting without effect must not end connections.
pub(super) fn core_settings(settings: &ListenerSettings) -> ListenerSettings {
    let unset = ListenerSettings::default();
    ListenerSettings {
        alpn: unset.alpn,
        client_certificate: unset.client_certificate,
        ports: unset.ports,
        host_prefix: unset.host_prefix,
        network_namespace: unset.network_namespace,
        allow_users: unset.allow_users,
        ..settings.clone()
    }
}

/// Sites whose clients are served; `None` serves all.
pub(super) fn sites(settings: &ConnectorSettings) -> Option<Arc<AllowedSites>> {
    let names = settings.allow_sites.as_ref()?.iter();
    let names = names.map(ToString::to_string).collect();
    Some(Arc::new(AllowedSites::new(names)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowing(users: &[UserRef]) -> ListenerSettings {
        ListenerSettings {
            allow_users: Some(users.to_vec()),
            ..ListenerSettings::default()
        }
    }

    #[test]
    fn users_are_looked_up() {
        assert!(users(&ListenerSettings::default()).unwrap().is_none());
        let named = [UserRef::Name("root".to_owned()), UserRef::Id(1000)];
        let allowed = users(&allowing(&named)).unwrap();
        assert_eq!(allowed, Some(AllowedUsers::new(vec![0, 1000])));
        let nobody = [UserRef::Name("no such user".to_owned())];
        assert_eq!(
            users(&allowing(&nobody)).unwrap_err().text(),
            "spec.settings[allow-users]: there is no user \"no such user\""
        );
    }
}
