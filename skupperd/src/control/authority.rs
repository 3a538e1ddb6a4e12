//! Authorization of D-Bus callers.
//!
//! Root and the user of the daemon may do everything; every user may read. The owner of a namespace's
//! directory, and every user who can write to it by mode or ACL, may change that namespace. polkit decides
//! about all others; without polkit they are denied. This process itself is denied everything: a connector can
//! lead to the bus, and its clients would act as the daemon.

use super::Error;
use crate::{model::Namespace, store::Layout};
use std::{collections::HashMap, fmt::Display};
use zbus::{Connection, fdo, message::Header, names::BusName};
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PolkitAction {
    /// Changing resources, reloading and stopping the daemon.
    Manage,
    /// Issuing, redeeming and revoking credentials.
    Credentials,
}

impl PolkitAction {
    /// The action's ID in the polkit policy.
    fn id(self) -> &'static str {
        match self {
            Self::Manage => "io.skupper.manage",
            Self::Credentials => "io.skupper.credentials",
        }
    }
}

/// The sender of a message, as the bus reports it.
pub(super) struct Caller {
    pub(super) user: u32,
    groups: Vec<u32>,
    /// It is this process.
    is_self: bool,
}

pub(super) async fn caller(connection: &Connection, header: &Header<'_>) -> Result<Caller, String> {
    let sender = header.sender();
    let sender = sender.ok_or("the caller has no unique bus name")?;
    let own = connection.unique_name();
    let own = own.ok_or("skupperd has no unique bus name")?;
    let unknown = |e: &dyn Display| format!("cannot get the credentials of the caller: {e}");
    let bus = fdo::DBusProxy::new(connection).await;
    let bus = bus.map_err(|e| unknown(&e))?;
    let name = BusName::Unique(sender.to_owned());
    let caller = bus.get_connection_credentials(name).await;
    let caller = caller.map_err(|e| unknown(&e))?;
    // The bus may number processes otherwise than we do: both numbers are its own.
    let name = BusName::Unique(own.inner().to_owned());
    let own = bus.get_connection_credentials(name).await;
    let own = own.map_err(|e| unknown(&e))?;
    let user = caller.unix_user_id();
    let user = user.ok_or("the bus does not know the user of the caller")?;
    let is_self = match (caller.process_id(), own.process_id()) {
        (Some(process), Some(own)) => process == own,
        // The bus does not report the process; the user is enough.
        _ => Some(user) == own.unix_user_id(),
    };
    Ok(Caller {
        user,
        groups: caller.unix_group_ids().cloned().unwrap_or_default(),
        is_self,
    })
}

#[derive(Clone, Debug)]
pub(super) struct Authority {
    pub(super) layout: Layout,
    /// False on a session bus, which only its user can connect to.
    pub(super) polkit: bool,
}

impl Authority {
    /// Returns the caller's user, or an error with the reason if the caller may not do this.
    /// `namespace`: the one to change.
    pub(super) async fn check(
        &self,
        connection: &Connection,
        header: &Header<'_>,
        action: PolkitAction,
        namespace: Option<&Namespace>,
    ) -> Result<u32, Error> {
        let denied = |reason: &str| Error::AccessDenied(format!("{}: {reason}", action.id()));
        let caller = caller(connection, header).await;
        let Caller {
            user,
            groups,
            is_self,
        } = caller.map_err(|reason| denied(&reason))?;
        // A client of one of our connectors has our identity on the bus.
        if is_self {
            return Err(denied("the caller is a connection of skupperd itself"));
        }
        if user == 0 || user == crate::sys::user() {
            return Ok(user);
        }
        if namespace.is_some_and(|namespace| self.owns(namespace, user, &groups)) {
            return Ok(user);
        }
        if !self.polkit {
            return Err(denied("only the user of this session bus may do this"));
        }
        self.check_polkit(connection, header, action)
            .await
            .map_err(|reason| denied(&reason))?;
        Ok(user)
    }

    fn owns(&self, namespace: &Namespace, user: u32, groups: &[u32]) -> bool {
        let namespace = self.layout.namespace(namespace);
        namespace.may_be_changed_by(user, groups)
    }

    async fn check_polkit(
        &self,
        connection: &Connection,
        header: &Header<'_>,
        action: PolkitAction,
    ) -> Result<(), String> {
        let unavailable = |e: &dyn Display| format!("cannot ask polkit: {e}");
        let subject = Subject::new_for_message_header(header).map_err(|e| unavailable(&e))?;
        let authority = AuthorityProxy::new(connection)
            .await
            .map_err(|e| unavailable(&e))?;
        // Callers that can answer a password prompt set this flag; others must not wait for one.
        let flags = header.primary().flags();
        let flags = if flags.contains(zbus::message::Flags::ALLOW_INTERACTIVE_AUTH) {
            CheckAuthorizationFlags::ALLOW_USER_INTERACTION
        } else {
            CheckAuthorizationFlags::empty()
        };
        let result = authority
            .check_authorization(&subject, action.id(), &HashMap::new(), flags, "")
            .await
            .map_err(|e| unavailable(&e))?;
        if result.is_authorized {
            Ok(())
        } else if result.is_challenge {
            Err("interactive authentication is required".to_owned())
        } else {
            Err("not authorized".to_owned())
        }
    }
}
