//! Letting clients in, or not: by the users that their programs run as.

use crate::{
    link::{ends::Front, origin::Origin},
    steer::listening::user_of,
};
use socket2::SockRef;
use std::{
    io,
    net::TcpStream,
    time::{Duration, Instant},
};

/// Whether a listener lets this client in. One that it does not is reset, which is what a client is told
/// where nobody listens, as far as one that is connected already can be told.
pub(super) fn lets_in(front: &Front, routing_key: &str, client: &TcpStream) -> bool {
    let Some(users) = &front.users else {
        return true;
    };
    let asked = Origin::of(client).map(|of| (of, user_of(of.client, of.listener)));
    let (user, error) = match &asked {
        Some((_, Ok(user))) => (*user, None),
        Some((_, Err(error))) => (None, Some(error)),
        None => (None, None),
    };
    if users.lets_in(user) {
        return true;
    }
    if let Some(unsaid) = users.denied.note(Instant::now()) {
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
            unsaid,
            "client denied by policy"
        );
    }
    // Fails for a client that is gone, to whom it is all one.
    drop(SockRef::from(client).set_linger(Some(Duration::ZERO)));
    false
}
