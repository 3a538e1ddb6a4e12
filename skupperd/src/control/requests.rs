//! What the D-Bus methods share: authorization, blocking work, options, waiting for a grant.

use super::{
    Error, audit,
    authority::{Authority, PolkitAction, caller},
    call_limits::{CallKind, CallLimits, CallPermit},
};
use crate::{
    manifest::{MAX_FILE_SIZE, ManifestError},
    model::{Key, Kind, MAX_LINK_COST, Namespace, parse_duration},
    operate::{self, OperateError},
    reconcile::Reload,
    steer::{ListBindings, accel::Acceleration},
    store::{DaemonState, NamespaceDir, ResourceSnapshot},
};
use jiff::Timestamp;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};
use zbus::{Connection, OwnedVariant, message::Header};

/// Default time to wait until a grant is served.
pub(super) const GRANT_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time that a caller can ask for.
const MAX_GRANT_TIMEOUT: Duration = Duration::from_secs(600);

/// Requests to the daemon itself.
#[derive(Clone, Debug)]
pub(super) struct DaemonRequests {
    pub(super) reload: mpsc::Sender<Reload>,
    pub(super) stop: mpsc::Sender<()>,
}

/// The object at [`super::PATH`].
pub(super) struct ManagerObject {
    pub(super) authority: Authority,
    pub(super) published: watch::Receiver<Arc<ResourceSnapshot>>,
    pub(super) latest: watch::Receiver<Arc<ResourceSnapshot>>,
    pub(super) requests: DaemonRequests,
    pub(super) since: Timestamp,
    pub(super) steering: ListBindings,
    pub(super) acceleration: Arc<Acceleration>,
    limits: CallLimits,
}

/// A call that the caller may make.
pub(super) struct AuthorizedCall {
    pub(super) namespace: NamespaceDir,
    user: u32,
}

impl AuthorizedCall {
    /// Logs a change that the caller made, and of what.
    pub(super) async fn log(&self, event: &str, subject: &str) {
        audit::log(self.user, Some(self.namespace.name()), event, subject).await;
    }
}

pub(super) type Options = HashMap<String, OwnedVariant>;

impl ManagerObject {
    pub(super) fn new(
        authority: Authority,
        (published, latest): (
            watch::Receiver<Arc<ResourceSnapshot>>,
            watch::Receiver<Arc<ResourceSnapshot>>,
        ),
        requests: DaemonRequests,
        since: Timestamp,
        (steering, acceleration): (ListBindings, Arc<Acceleration>),
    ) -> Self {
        Self {
            authority,
            published,
            latest,
            requests,
            since,
            steering,
            acceleration,
            limits: CallLimits::default(),
        }
    }

    /// Authorizes the caller to change resources of a namespace.
    pub(super) async fn authorize_change(
        &self,
        connection: &Connection,
        header: &Header<'_>,
        namespace: &str,
    ) -> Result<AuthorizedCall, Error> {
        self.authorize(connection, header, PolkitAction::Manage, namespace)
            .await
    }

    /// Authorizes the caller to use the credentials of a namespace.
    pub(super) async fn authorize_credentials(
        &self,
        connection: &Connection,
        header: &Header<'_>,
        namespace: &str,
    ) -> Result<AuthorizedCall, Error> {
        self.authorize(connection, header, PolkitAction::Credentials, namespace)
            .await
    }

    async fn authorize(
        &self,
        connection: &Connection,
        header: &Header<'_>,
        action: PolkitAction,
        namespace: &str,
    ) -> Result<AuthorizedCall, Error> {
        let namespace = self.namespace_dir(namespace)?;
        let user = self
            .authority
            .check(connection, header, action, Some(namespace.name()))
            .await?;
        Ok(AuthorizedCall { namespace, user })
    }

    /// What this daemon does.
    pub(super) fn daemon_state(&self) -> DaemonState {
        // The record is another process's where the disk cannot be written.
        let recorded = self.authority.layout.recorded_daemon();
        let own = recorded.filter(|(pid, _)| *pid == std::process::id());
        own.map_or(DaemonState::Running, |(_, state)| state)
    }

    pub(super) fn namespace_dir(&self, namespace: &str) -> Result<NamespaceDir, Error> {
        let name = Namespace::new(namespace)
            .map_err(|e| Error::Invalid(format!("namespace is not valid: {e}")))?;
        Ok(self.authority.layout.namespace(&name))
    }

    /// Runs work on files on a blocking thread, within the limits of the caller.
    pub(super) async fn run_change<T: Send + 'static>(
        &self,
        call: &AuthorizedCall,
        work: impl FnOnce(&NamespaceDir) -> Result<T, OperateError> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = self.limits.acquire(call.user, CallKind::Change).await?;
        let namespace = call.namespace.clone();
        self.run_blocking(permit, move || work(&namespace)).await
    }

    /// [`Self::run_change`] for calls that need no authorization.
    pub(super) async fn run_read<T: Send + 'static>(
        &self,
        connection: &Connection,
        header: &Header<'_>,
        work: impl FnOnce() -> Result<T, OperateError> + Send + 'static,
    ) -> Result<T, Error> {
        let caller = caller(connection, header).await;
        let user = caller.map_err(Error::AccessDenied)?.user;
        let permit = self.limits.acquire(user, CallKind::Read).await?;
        self.run_blocking(permit, work).await
    }

    async fn run_blocking<T: Send + 'static>(
        &self,
        permit: CallPermit,
        work: impl FnOnce() -> Result<T, OperateError> + Send + 'static,
    ) -> Result<T, Error> {
        let failed =
            |e: &dyn std::fmt::Display| Error::Failed(format!("the operation was aborted: {e}"));
        let run = move || {
            // Held until the work is done, also when the caller is gone.
            let _permit = permit;
            work()
        };
        let done = tokio::task::spawn_blocking(run).await;
        Ok(done.map_err(|e| failed(&e))??)
    }
}

pub(super) fn parse_kind(text: &str) -> Result<Kind, Error> {
    Kind::parse(text).ok_or_else(|| Error::Invalid(format!("{text:?} is not a kind of resource")))
}

/// `<Kind>/<name>`
pub(super) fn key_path(key: &Key) -> String {
    format!("{}/{}", key.kind, key.name)
}

/// File, line, kind, name, field and reason.
pub(super) type InputError = (String, u32, String, String, String, String);

pub(super) fn input_error(error: ManifestError) -> InputError {
    (
        error.file.display().to_string(),
        error.line,
        error.kind.unwrap_or_default(),
        error.name.unwrap_or_default(),
        error.field.unwrap_or_default(),
        error.reason,
    )
}

pub(super) fn check_size(document: &str) -> Result<(), Error> {
    if document.len() as u64 > MAX_FILE_SIZE {
        let text = format!("the document is larger than {MAX_FILE_SIZE} bytes");
        return Err(Error::Invalid(text));
    }
    Ok(())
}

/// Removes an option from the map and returns it. A value of another type is an error.
pub(super) fn option<T: TryFrom<OwnedVariant>>(
    options: &mut Options,
    name: &str,
) -> Result<Option<T>, Error> {
    let value = options.remove(name).map(T::try_from).transpose();
    value.map_err(|_| Error::Invalid(format!("option {name}: wrong type")))
}

/// As [`option`], for a duration above zero.
pub(super) fn duration_option(
    options: &mut Options,
    name: &str,
) -> Result<Option<Duration>, Error> {
    let Some(text) = option::<String>(options, name)? else {
        return Ok(None);
    };
    let found = parse_duration(&text).filter(|d| !d.is_zero());
    let wrong = || Error::Invalid(format!("option {name}: {text:?} is not a duration"));
    found.map(Some).ok_or_else(wrong)
}

/// The option `cost` of a link.
pub(super) fn cost_option(options: &mut Options) -> Result<Option<u32>, Error> {
    let cost = option::<u32>(options, "cost")?;
    match cost {
        Some(cost) if cost > MAX_LINK_COST => {
            let text = format!("option cost: {cost} is too large (at most {MAX_LINK_COST})");
            Err(Error::Invalid(text))
        }
        cost => Ok(cost.map(|cost| cost.max(1))),
    }
}

/// Fails if options are left in the map.
pub(super) fn reject_unknown_options(options: &Options) -> Result<(), Error> {
    match options.keys().next() {
        Some(name) => Err(Error::Invalid(format!("option {name}: unknown option"))),
        None => Ok(()),
    }
}

impl ManagerObject {
    /// Makes the daemon read all resources again, and waits until it has.
    pub(super) async fn reload_and_wait(&self) -> Result<(), Error> {
        let ending = || Error::Failed("skupperd is stopping".to_owned());
        let (done, reloaded) = oneshot::channel();
        self.requests
            .reload
            .send(done)
            .await
            .map_err(|_| ending())?;
        reloaded.await.map_err(|_| ending())
    }

    /// Waits until a grant is served, at most `within`.
    pub(super) async fn wait_for_grant(
        &self,
        namespace: &Namespace,
        key: &Key,
        within: Duration,
    ) -> Result<crate::model::GrantDetails, Error> {
        let deadline = Instant::now() + within.min(MAX_GRANT_TIMEOUT);
        let mut published = self.published.clone();
        loop {
            let document = {
                let all = published.borrow_and_update();
                all.get(namespace).and_then(|d| d.get(key)).cloned()
            };
            let last = match operate::grant_state(&key.name, document.as_deref())? {
                Ok(details) => return Ok(details),
                Err(last) => last,
            };
            match timeout_at(deadline, published.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Error::Failed("skupperd is stopping".to_owned())),
                Err(_) => {
                    let (name, seconds) = (&key.name, within.as_secs_f64());
                    let text = format!("grant {name:?} is not ready after {seconds} s: {last}");
                    return Err(Error::Timeout(text));
                }
            }
        }
    }
}
