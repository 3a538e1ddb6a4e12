//! Who may do what.
//!
//! Root and the daemon's own user may do everything, and everybody may read. A namespace also belongs
//! to whoever may write its directory: its owner, and its group where the mode lets that write. All
//! others are polkit's to judge; without polkit the answer is no.

use super::Error;
use crate::{model::Namespace, store::Layout};
use std::{collections::HashMap, fs, os::unix::fs::MetadataExt};
use zbus::{Connection, fdo, message::Header, names::BusName};
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject};

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Change resources, and the daemon.
    Manage,
    /// Give or take credentials: links, tokens, revocations.
    Credentials,
}

impl Action {
    /// Its name in the polkit policy.
    fn id(self) -> &'static str {
        match self {
            Self::Manage => "io.skupper.manage",
            Self::Credentials => "io.skupper.credentials",
        }
    }
}

/// Judges callers.
#[derive(Clone, Debug)]
pub(super) struct Authority {
    pub(super) layout: Layout,
    /// Whoever is on a session bus is its user.
    pub(super) polkit: bool,
}

impl Authority {
    /// Lets the caller pass, or says why not. `namespace`: the one it is about.
    pub(super) async fn check(
        &self,
        connection: &Connection,
        header: &Header<'_>,
        action: Action,
        namespace: Option<&Namespace>,
    ) -> Result<(), Error> {
        let denied = |why: &str| Error::AccessDenied(format!("{}: {why}", action.id()));
        let sender = header
            .sender()
            .ok_or_else(|| denied("the caller has no name"))?;
        let bus = fdo::DBusProxy::new(connection).await?;
        let name = BusName::Unique(sender.to_owned());
        let caller = bus.get_connection_credentials(name).await;
        let caller =
            caller.map_err(|e| denied(&format!("the bus does not know the caller: {e}")))?;
        let user = caller
            .unix_user_id()
            .ok_or_else(|| denied("the bus does not know the caller's user"))?;
        if user == 0 || user == crate::sys::user() {
            return Ok(());
        }
        let groups = caller.unix_group_ids().cloned().unwrap_or_default();
        if namespace.is_some_and(|namespace| self.owns(namespace, user, &groups)) {
            return Ok(());
        }
        if !self.polkit {
            return Err(denied("only the user whose service this is may do that"));
        }
        self.ask(connection, header, action)
            .await
            .map_err(|why| denied(&why))
    }

    fn owns(&self, namespace: &Namespace, user: u32, groups: &[u32]) -> bool {
        let dir = self.layout.input_namespaces().join(namespace.as_str());
        let Ok(meta) = fs::metadata(dir) else {
            return false;
        };
        meta.uid() == user || (meta.mode() & 0o020 != 0 && groups.contains(&meta.gid()))
    }

    async fn ask(
        &self,
        connection: &Connection,
        header: &Header<'_>,
        action: Action,
    ) -> Result<(), String> {
        let absent = |e: &dyn std::fmt::Display| format!("polkit can not be asked: {e}");
        let subject = Subject::new_for_message_header(header).map_err(|e| absent(&e))?;
        let authority = AuthorityProxy::new(connection)
            .await
            .map_err(|e| absent(&e))?;
        // Whoever can answer a question says so in the call; others are not kept waiting for one.
        let flags = header.primary().flags();
        let flags = if flags.contains(zbus::message::Flags::ALLOW_INTERACTIVE_AUTH) {
            CheckAuthorizationFlags::ALLOW_USER_INTERACTION
        } else {
            CheckAuthorizationFlags::empty()
        };
        let result = authority
            .check_authorization(&subject, action.id(), &HashMap::new(), flags, "")
            .await
            .map_err(|e| absent(&e))?;
        if result.is_authorized {
            Ok(())
        } else if result.is_challenge {
            Err("interactive authentication is required".to_owned())
        } else {
            Err("not authorized".to_owned())
        }
    }
}
