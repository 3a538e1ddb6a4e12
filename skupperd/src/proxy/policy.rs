//! Admits clients to listeners by the users that their programs run as.

use crate::{
    netlink::listeners::user_of,
    service::{origin::Origin, policy::ListenerPolicy},
    sys,
};
use std::{io, net::TcpStream, time::Instant};

/// Whether the policy admits this client. A denied client is reset: the closest to a refused connection
/// that an accepted one can get.
pub(super) fn admit(policy: &ListenerPolicy, routing_key: &str, client: &TcpStream) -> bool {
    let Some(users) = &policy.users else {
        return true;
    };
    let asked = Origin::of(client).map(|of| (of, user_of(of.client, of.listener)));
    let (user, error) = match &asked {
        Some((_, Ok(user))) => (*user, None),
        Some((_, Err(error))) => (None, Some(error)),
        None => (None, None),
    };
    if users.allows(user.as_ref()) {
        return true;
    }
    if let Some(suppressed) = users.denied.count_and_report(Instant::now()) {
        let client = asked.as_ref().map(|(of, _)| of.client.to_string());
        let (client, user) = (
            client.unwrap_or_default(),
            user.map_or_else(|| "unknown".to_owned(), |user| user.to_string()),
        );
        let error = error.map(io::Error::to_string);
        tracing::warn!(
            routing_key,
            client,
            user,
            error,
            suppressed,
            "client denied by policy"
        );
    }
    sys::reset_on_close(client.into());
    false
}
