//! What the methods share: who calls, work on files, options, waiting.

use super::{
    Error,
    authority::{Action, Authority},
};
use crate::{
    manifest::MAX_FILE_SIZE,
    model::{Key, Kind, Namespace, parse_duration},
    operate::{self, OperateError},
    reconcile::Reload,
    steer::{Lister, accel::Acceleration},
    store::{NamespaceDir, Published},
};
use jiff::Timestamp;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};
use zbus::{Connection, OwnedVariant, message::Header};

/// Calls that work on files at a time; more wait their turn.
const WORKERS: usize = 4;
/// Longest wait for a grant to be served.
pub(super) const GRANTED: Duration = Duration::from_secs(60);
/// And when somebody asks for more.
const LONGEST: Duration = Duration::from_secs(600);

/// Requests to the daemon itself.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    pub(super) reload: mpsc::Sender<Reload>,
    pub(super) stop: mpsc::Sender<()>,
}

/// The object.
pub(super) struct Manager {
    pub(super) authority: Authority,
    pub(super) published: watch::Receiver<Arc<Published>>,
    pub(super) requests: Requests,
    pub(super) since: Timestamp,
    pub(super) steering: Lister,
    pub(super) acceleration: Arc<Acceleration>,
    turns: Arc<Semaphore>,
}

pub(super) type Options = HashMap<String, OwnedVariant>;

impl Manager {
    pub(super) fn new(
        authority: Authority,
        published: watch::Receiver<Arc<Published>>,
        requests: Requests,
        since: Timestamp,
        (steering, acceleration): (Lister, Arc<Acceleration>),
    ) -> Self {
        Self {
            authority,
            published,
            requests,
            since,
            steering,
            acceleration,
            turns: Arc::new(Semaphore::new(WORKERS)),
        }
    }

    /// The namespace, when the caller may do that there.
    pub(super) async fn place(
        &self,
        connection: &Connection,
        header: &Header<'_>,
        action: Action,
        namespace: &str,
    ) -> Result<NamespaceDir, Error> {
        let name = Namespace::new(namespace)
            .map_err(|e| Error::Invalid(format!("namespace is not valid: {e}")))?;
        self.authority
            .check(connection, header, action, Some(&name))
            .await?;
        Ok(self.authority.layout.namespace(&name))
    }

    /// Does work on files where it holds nobody up.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, OperateError> + Send + 'static,
    ) -> Result<T, Error> {
        let failed =
            |e: &dyn std::fmt::Display| Error::Failed(format!("the work was given up: {e}"));
        let turn = self.turns.clone().acquire_owned().await;
        let _turn = turn.map_err(|e| failed(&e))?;
        let done = tokio::task::spawn_blocking(work).await;
        Ok(done.map_err(|e| failed(&e))??)
    }
}

pub(super) fn kind_of(text: &str) -> Result<Kind, Error> {
    Kind::parse(text).ok_or_else(|| Error::Invalid(format!("{text:?} is not a kind of resource")))
}

/// `<Kind>/<name>`
pub(super) fn slashed(key: &Key) -> String {
    format!("{}/{}", key.kind, key.name)
}

pub(super) fn small(document: &str) -> Result<(), Error> {
    if document.len() as u64 > MAX_FILE_SIZE {
        let text = format!("the document is larger than {MAX_FILE_SIZE} bytes");
        return Err(Error::Invalid(text));
    }
    Ok(())
}

/// Takes an option of this name; one of another type is an error.
pub(super) fn option<T: TryFrom<OwnedVariant>>(
    options: &mut Options,
    name: &str,
) -> Result<Option<T>, Error> {
    let value = options.remove(name).map(T::try_from).transpose();
    value.map_err(|_| Error::Invalid(format!("option {name}: wrong type")))
}

/// Takes an option that is a length of time.
pub(super) fn span(options: &mut Options, name: &str) -> Result<Option<Duration>, Error> {
    let Some(text) = option::<String>(options, name)? else {
        return Ok(None);
    };
    let found = parse_duration(&text).filter(|d| !d.is_zero());
    let wrong = || Error::Invalid(format!("option {name}: {text:?} is not a duration"));
    found.map(Some).ok_or_else(wrong)
}

/// What is left of the options is not known.
pub(super) fn nothing_else(options: &Options) -> Result<(), Error> {
    match options.keys().next() {
        Some(name) => Err(Error::Invalid(format!(
            "option {name}: there is no such option"
        ))),
        None => Ok(()),
    }
}

impl Manager {
    /// Has all resources read again, and waits until they are.
    pub(super) async fn read_again(&self) -> Result<(), Error> {
        let ending = || Error::Failed("the daemon is ending".to_owned());
        let (done, reloaded) = oneshot::channel();
        self.requests
            .reload
            .send(done)
            .await
            .map_err(|_| ending())?;
        reloaded.await.map_err(|_| ending())
    }

    /// Waits until a grant is served.
    pub(super) async fn granted(
        &self,
        namespace: &Namespace,
        key: &Key,
        within: Duration,
    ) -> Result<crate::model::GrantDetails, Error> {
        let deadline = Instant::now() + within.min(LONGEST);
        let mut published = self.published.clone();
        loop {
            let document = {
                let all = published.borrow_and_update();
                all.get(namespace).and_then(|d| d.get(key)).cloned()
            };
            let last = match operate::granted(&key.name, document.as_deref())? {
                Ok(details) => return Ok(details),
                Err(last) => last,
            };
            match timeout_at(deadline, published.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Error::Failed("the daemon is ending".to_owned())),
                Err(_) => {
                    let (name, seconds) = (&key.name, within.as_secs_f64());
                    let text = format!("grant {name:?} is not ready after {seconds} s: {last}");
                    return Err(Error::Timeout(text));
                }
            }
        }
    }
}
