//! Dialling: one task for each link, which keeps its control connection and trunk up.

mod backoff;
mod http_proxy;
mod open;

pub(crate) use open::{capabilities, properties};

use crate::{
    link::{
        conn::ConnKey,
        handshake::{self, Established, Security},
        names::CONNECTION_TRUNKING,
    },
    messages::{CoreEvent, CoreSender, DialledConnection, LinkFailure},
    model::{HttpProxy, Secret},
    sys, telemetry,
};
use backoff::Backoff;
use open::{Group, open};
use rustls::{ClientConfig, pki_types::ServerName};
use socket2::SockRef;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::TcpStream,
    sync::{oneshot, watch},
    task::JoinSet,
};

/// Time for one TCP connection attempt; the second when there is another endpoint to go to.
const CONNECT_TIMEOUT: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(2)];
/// Interval of attempts at an endpoint before the one in use, and at new credentials.
const PROBE: Duration = Duration::from_secs(5);
/// Time for which an endpoint that is this site's own is not dialled. Its name may lead elsewhere later.
const OWN_PAUSE: Duration = Duration::from_secs(60);

/// Host and port of an endpoint to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialTarget {
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Debug)]
pub struct LinkSpec {
    pub name: String,
    /// Endpoints of the remote site for our role, in order of preference.
    pub targets: Vec<DialTarget>,
    /// Cost, at least 1.
    pub cost: u32,
    /// Credentials, to see whether they have changed.
    pub credentials: Secret,
    /// HTTP proxy on the way.
    pub proxy: Option<HttpProxy>,
    /// Client configuration made from `credentials`.
    pub tls: Arc<ClientConfig>,
}

/// A name of 15 characters that nothing else has.
pub(crate) fn random_name() -> String {
    use std::hash::{BuildHasher, RandomState};
    let n = RandomState::new().hash_one(0u8);
    format!("{:015x}", n & 0x0fff_ffff_ffff_ffff)
}

async fn dial(
    router: &str,
    spec: &LinkSpec,
    target: &DialTarget,
    key: ConnKey,
    group: Option<&Group<'_>>,
) -> Result<Established, LinkFailure> {
    let fail = |stage: &'static str, error: String| LinkFailure {
        host: target.host.clone(),
        port: target.port,
        stage,
        error,
        is_own: false,
    };
    let connect_timeout = CONNECT_TIMEOUT[usize::from(spec.targets.len() > 1)];
    let name = ServerName::try_from(target.host.clone())
        .map_err(|e| fail("reading the host name", e.to_string()))?;
    // Behind a proxy it is the proxy that looks up the target.
    let via = spec.proxy.as_ref();
    let (host, port) = via.map_or((&target.host, target.port), |p| (&p.host, p.port));
    let addrs = tokio::net::lookup_host((host.as_str(), port))
        .await
        .map_err(|e| fail("looking up the host", e.to_string()))?;
    let mut last = fail("looking up the host", "no address".to_owned());
    for addr in addrs {
        let mut socket = match tokio::time::timeout(connect_timeout, TcpStream::connect(addr)).await
        {
            Ok(Ok(socket)) => socket,
            Ok(Err(e)) => {
                last = fail("connecting", e.to_string());
                continue;
            }
            Err(_) => {
                let text = format!("no answer within {} s", connect_timeout.as_secs());
                last = fail("connecting", text);
                continue;
            }
        };
        sys::prepare(&SockRef::from(&socket)).map_err(|e| fail("connecting", e.to_string()))?;
        if let Some(proxy) = via {
            let connected = http_proxy::connect(socket, target, proxy);
            let connected = tokio::time::timeout(handshake::TIMEOUT, connected).await;
            socket = match connected.unwrap_or(Err(http_proxy::ProxyConnectError::Timeout)) {
                Ok(socket) => socket,
                Err(e) => {
                    last = fail("connecting by way of the proxy", telemetry::chain(&e));
                    continue;
                }
            };
        }
        let security = Security::Client(spec.tls.clone(), name.clone());
        let config = open(router, spec, target, key, group);
        match handshake::run(socket, security, config).await {
            Ok(established) => return Ok(established),
            Err(e) => last = fail("opening the link", telemetry::chain(&e)),
        }
    }
    Err(last)
}

/// State that all tasks of a link share.
#[derive(Clone)]
struct LinkDialler {
    site: u32,
    router: String,
    /// Names this link in all its connections.
    instance: String,
    /// Data connections; None: this is an edge, which has none.
    trunk: Option<usize>,
    specs: watch::Receiver<LinkSpec>,
    core: CoreSender,
    /// Endpoints that have turned out to be this site's own, and when each may be dialled again.
    own_endpoints: Vec<(DialTarget, Instant)>,
}

/// A link that is up: its control connection, and the tasks that keep its trunk up.
struct ActiveLink {
    key: ConnKey,
    /// Index of the endpoint in [`LinkSpec::targets`].
    index: usize,
    ended: oneshot::Receiver<()>,
    /// Aborted when dropped.
    data: JoinSet<()>,
}

/// How long a link must have been up for the next attempt to follow at once.
const STABLE: Duration = Duration::from_secs(10);

/// Keeps a link up until the sender of `specs` is dropped: over its first endpoint that can be reached,
/// and back over an earlier one when that can be reached again. `specs`: what is dialled; new credentials
/// and a new cost are used for a new connection beside the one that is up.
pub(crate) async fn run(
    site: u32,
    router: String,
    specs: watch::Receiver<LinkSpec>,
    trunk: Option<usize>,
    core: CoreSender,
) {
    let mut removed = specs.clone();
    let dialler = LinkDialler {
        site,
        router,
        instance: random_name(),
        trunk,
        specs,
        core,
        own_endpoints: Vec::new(),
    };
    // Nothing is lost when the link is gone: its connections are closed with it.
    tokio::select! {
        () = async { while removed.changed().await.is_ok() {} } => {}
        () = keep_link_up(dialler) => {}
    }
}

async fn keep_link_up(mut dialler: LinkDialler) {
    let mut backoff = Backoff::new();
    let mut first = 0;
    loop {
        let spec = dialler.specs.borrow_and_update().clone();
        let count = spec.targets.len();
        let order = (0..count).map(|n| (first + n) % count.max(1));
        let Some(active) = dialler.connect(&spec, order).await else {
            first = 0;
            // Cancel-safe: a change that is not seen here is seen at the next turn.
            tokio::select! {
                () = tokio::time::sleep(backoff.next_pause()) => {}
                _ = dialler.specs.changed() => {}
            }
            continue;
        };
        // After losing an endpoint, try the next one: the first may not answer for a while.
        let begin = Instant::now();
        first = dialler.hold_until_ended(active, &spec).await + 1;
        // A peer that refuses the link once it is open is dialled as seldom as one that does not answer.
        if begin.elapsed() >= STABLE {
            backoff = Backoff::new();
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

impl LinkDialler {
    /// Dials endpoints in this order until the core accepts a connection.
    async fn connect(
        &mut self,
        spec: &LinkSpec,
        order: impl Iterator<Item = usize>,
    ) -> Option<ActiveLink> {
        for index in order {
            let Some(target) = spec.targets.get(index) else {
                continue;
            };
            if self.is_own(target, Instant::now()) {
                continue;
            }
            let correlator = random_name();
            let key = self.core.next_key();
            let instance = self.instance.clone();
            let group = Group {
                instance: &instance,
                correlator: &correlator,
                data: false,
            };
            let group = self.trunk.map(|_| &group);
            match dial(&self.router, spec, target, key, group).await {
                Err(failure) => self.core.send(CoreEvent::DialFailed {
                    site: self.site,
                    link: spec.name.clone(),
                    failure,
                }),
                Ok(established) if established.open.container_id == self.router => {
                    self.found_own(spec, target);
                }
                Ok(established) => {
                    let trunking = established.open.offers(CONNECTION_TRUNKING);
                    let Some(ended) = self.submit(spec, key, None, established).await else {
                        // The core has reported why it refuses the connection.
                        continue;
                    };
                    let mut data = JoinSet::new();
                    for _ in 0..self.trunk.filter(|_| trunking).unwrap_or(0) {
                        let (dialler, target) = (self.clone(), target.clone());
                        data.spawn(dialler.keep_data_connection_up(
                            target,
                            key,
                            correlator.clone(),
                        ));
                    }
                    return Some(ActiveLink {
                        key,
                        index,
                        ended,
                        data,
                    });
                }
            }
        }
        None
    }

    /// Whether an endpoint is known to be this site's own, and so is not dialled.
    fn is_own(&mut self, target: &DialTarget, now: Instant) -> bool {
        self.own_endpoints.retain(|(_, until)| now < *until);
        self.own_endpoints.iter().any(|(own, _)| own == target)
    }

    /// A router with our own id has answered.
    fn found_own(&mut self, spec: &LinkSpec, target: &DialTarget) {
        let until = Instant::now() + OWN_PAUSE;
        self.own_endpoints.push((target.clone(), until));
        self.core.send(CoreEvent::DialFailed {
            site: self.site,
            link: spec.name.clone(),
            failure: LinkFailure {
                host: target.host.clone(),
                port: target.port,
                stage: "opening the link",
                error: "the endpoint is this site's own".to_owned(),
                is_own: true,
            },
        });
    }

    /// Hands a connection to the core. `None`: the core refuses it; else receives the reason of its end.
    async fn submit(
        &self,
        spec: &LinkSpec,
        key: ConnKey,
        data_of: Option<ConnKey>,
        established: Established,
    ) -> Option<oneshot::Receiver<()>> {
        let (accepted, answer) = oneshot::channel();
        let dialled = DialledConnection {
            link: spec.name.clone(),
            key,
            data_of,
            established,
            accepted,
        };
        self.core.send(CoreEvent::Dialled {
            site: self.site,
            dialled: Box::new(dialled),
        });
        answer.await.ok()
    }

    /// Waits until the link has ended. Meanwhile moves it to an earlier endpoint that answers, and to new
    /// credentials, proxy or cost. Returns the index of its last endpoint.
    async fn hold_until_ended(&mut self, mut active: ActiveLink, begun: &LinkSpec) -> usize {
        let mut spec = begun.clone();
        let mut renew = false;
        loop {
            // All arms are cancel-safe: channels keep what was not received.
            tokio::select! {
                _ = &mut active.ended => return active.index,
                changed = self.specs.changed() => {
                    if changed.is_err() {
                        // The link is being removed, and this task with it.
                        drop((&mut active.ended).await);
                        return active.index;
                    }
                    let next = self.specs.borrow_and_update().clone();
                    renew |= next.credentials != spec.credentials || next.proxy != spec.proxy;
                    // The peer learns the cost from `open`; an edge tells none.
                    renew |= next.cost != spec.cost && self.trunk.is_some();
                    spec = next;
                }
                () = tokio::time::sleep(PROBE), if renew || active.index > 0 => {}
            }
            let order = 0..if renew {
                spec.targets.len()
            } else {
                active.index
            };
            if let Some(new) = self.connect(&spec, order).await {
                // The new one takes the streams to come; the old one ends when its last has ended.
                active.data.abort_all();
                self.core.send(CoreEvent::Superseded {
                    site: self.site,
                    key: active.key,
                });
                active = new;
                renew = false;
            }
        }
    }

    async fn keep_data_connection_up(
        self,
        target: DialTarget,
        control: ConnKey,
        correlator: String,
    ) {
        let mut backoff = Backoff::new();
        loop {
            let key = self.core.next_key();
            let spec = self.specs.borrow().clone();
            let group = Group {
                instance: &self.instance,
                correlator: &correlator,
                data: true,
            };
            match dial(&self.router, &spec, &target, key, Some(&group)).await {
                Ok(established) => {
                    let submitted = self.submit(&spec, key, Some(control), established);
                    if let Some(ended) = submitted.await {
                        drop(ended.await);
                        backoff = Backoff::new();
                    }
                }
                Err(failure) => {
                    tracing::debug!(link = spec.name, %failure, "cannot open a data connection of the link");
                }
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }
}

#[cfg(test)]
mod tests;
