//! Who changed what: one line in the log for each change that a caller on D-Bus made.

use crate::{model::Namespace, sys};
use std::time::Duration;
use tokio::{task::spawn_blocking, time::timeout};

/// Time for looking up the name of a user, which may ask other hosts.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// Logs an event such as `resource added`, with its subject, such as `Listener web`.
pub(super) async fn log(uid: u32, namespace: Option<&Namespace>, event: &str, subject: &str) {
    let name = timeout(LOOKUP_TIMEOUT, spawn_blocking(move || sys::user_name(uid))).await;
    // The number is enough.
    let user = name.ok().and_then(Result::ok).flatten();
    let namespace = namespace.map(Namespace::as_str);
    let subject = Some(subject).filter(|subject| !subject.is_empty());
    tracing::info!(namespace, subject, user, uid, "{event} over D-Bus");
}
