//! The way to the core from other threads: requests that it answers, beside the events of workers.

use super::request::{CoreRequest, Reply, SiteRequest};
use crate::{
    link::conn::ConnKey,
    messages::{CoreEvent, CoreSender, core_channel},
};
use tokio::sync::{mpsc, oneshot};

/// Receivers of the core: requests and events.
pub(crate) struct Inbox {
    pub(super) events: mpsc::UnboundedReceiver<CoreEvent>,
    pub(super) requests: mpsc::UnboundedReceiver<CoreRequest>,
}

impl Inbox {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.requests.is_empty()
    }
}

/// The core has ended: the daemon is stopping.
#[derive(Debug, PartialEq, Eq)]
pub struct CoreEnded;

/// Asks the core, from any thread.
#[derive(Clone)]
pub struct CoreHandle {
    events: CoreSender,
    requests: mpsc::UnboundedSender<CoreRequest>,
}

/// The channels of a core, made before the workers that send to it.
pub(crate) fn channel() -> (CoreHandle, Inbox) {
    let (sender, events) = core_channel();
    let (requests, receiver) = mpsc::unbounded_channel();
    let handle = CoreHandle {
        events: sender,
        requests,
    };
    let inbox = Inbox {
        events,
        requests: receiver,
    };
    (handle, inbox)
}

impl CoreHandle {
    /// Sender of events, for workers.
    pub(crate) fn events(&self) -> &CoreSender {
        &self.events
    }

    /// A key no other connection or service of this process has.
    pub fn next_key(&self) -> ConnKey {
        self.events.next_key()
    }

    /// Sends the request that `request` makes of a reply, and waits for the answer.
    pub async fn ask<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> CoreRequest,
    ) -> Result<T, CoreEnded> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).map_err(|_| CoreEnded)?;
        answer.await.map_err(|_| CoreEnded)
    }

    /// The same for a request to a site; `None`: there is no such site.
    pub async fn ask_site<T>(
        &self,
        site: u32,
        request: impl FnOnce(Reply<T>) -> SiteRequest,
    ) -> Result<Option<T>, CoreEnded> {
        match self
            .ask(|reply| CoreRequest::Site(site, request(reply)))
            .await
        {
            Ok(answer) => Ok(Some(answer)),
            Err(CoreEnded) if self.requests.is_closed() => Err(CoreEnded),
            Err(CoreEnded) => Ok(None),
        }
    }
}
