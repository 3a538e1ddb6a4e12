//! Dialling: one task for each link, which keeps its control connection and trunk up.

mod connect;

use super::{
    conn::ConnKey,
    core::{CoreEvent, CoreSender, LinkFailure},
    handshake::{self, Established, Security},
};
use crate::{
    amqp::{
        connection::Config,
        value::{Symbol, Value},
    },
    model::{Proxy, Secret},
    sys, telemetry,
};
use rustls::{ClientConfig, pki_types::ServerName};
use socket2::SockRef;
use std::{sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    sync::{oneshot, watch},
    task::JoinSet,
};

/// Time for one TCP connection attempt; the second when there is another endpoint to go to.
const CONNECT_TIMEOUT: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(2)];
/// Interval of attempts at an endpoint before the one in use, and at new credentials.
const PROBE: Duration = Duration::from_secs(5);
/// First and longest pause between attempts. Upstream waits 2 to 5 s; a link that is back sooner
/// cuts the outage of every service on it.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Where a router can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// What a link dials.
#[derive(Clone, Debug)]
pub struct LinkSpec {
    /// Name of the resource.
    pub name: String,
    /// Endpoints of the remote site for our role, in order of preference.
    pub targets: Vec<Target>,
    /// Cost, at least 1.
    pub cost: u32,
    /// Credentials, to see whether they have changed.
    pub credentials: Secret,
    /// HTTP proxy on the way.
    pub proxy: Option<Proxy>,
    /// The same for rustls.
    pub tls: Arc<ClientConfig>,
}

/// A dialled connection on its way to the core.
pub(crate) struct Dialled {
    pub(crate) link: String,
    pub(crate) key: ConnKey,
    /// None: the control connection.
    pub(crate) data_of: Option<ConnKey>,
    pub(crate) established: Established,
    /// Dropped when the connection has ended.
    pub(crate) alive: oneshot::Sender<()>,
}

/// Symbols a router offers and desires.
pub(crate) fn capabilities() -> Vec<Symbol> {
    [
        "ANONYMOUS-RELAY",
        "qd.streaming-links",
        "qd.connection_trunking",
        handshake::NATIVE,
    ]
    .map(Symbol::from)
    .to_vec()
}

/// Properties that every router says of itself.
pub(crate) fn properties(key: ConnKey) -> Vec<(Value, Value)> {
    let symbol = |name: &'static str| Value::Symbol(Symbol::from(name));
    vec![
        (symbol("product"), Value::from("skupperd")),
        (symbol("version"), Value::from(env!("CARGO_PKG_VERSION"))),
        (
            symbol("qd.conn-id"),
            Value::Int(i32::try_from(key & 0x7fff_ffff).unwrap_or(0)),
        ),
        (symbol("qd.annotations-version"), Value::Int(2)),
    ]
}

/// The connections of one link, and which of them this is. An edge has one and no more.
struct Group<'a> {
    correlator: &'a str,
    data: bool,
}

fn open(
    router: &str,
    spec: &LinkSpec,
    target: &Target,
    key: ConnKey,
    group: Option<&Group<'_>>,
) -> Config {
    let symbol = |name: &'static str| Value::Symbol(Symbol::from(name));
    let mut config = Config::new(router);
    config.hostname = Some(target.host.clone());
    config.capabilities = capabilities();
    config.properties = properties(key);
    let Some(group) = group else {
        return config;
    };
    if spec.cost > 1 {
        let cost = i32::try_from(spec.cost).unwrap_or(i32::MAX);
        config
            .properties
            .push((symbol("qd.inter-router-cost"), Value::Int(cost)));
    }
    if group.data {
        config
            .properties
            .push((symbol("qd.inter-router-role"), Value::Int(4)));
    }
    config
        .properties
        .push((symbol("qd.group-correlator"), Value::from(group.correlator)));
    config
        .properties
        .push((symbol("qd.group-ordinal"), Value::Ulong(0)));
    config
}

/// Doubles with each failure; a quarter of it is chance, so that sites that lost one peer together
/// do not come back together.
struct Backoff(Duration);

impl Backoff {
    fn new() -> Self {
        Self(BACKOFF_MIN)
    }

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
        pause.mul_f64(0.75 + 0.5 * chance())
    }
}

/// A number from 0 to 1.
fn chance() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let n = RandomState::new().hash_one(0u8);
    (n >> 11) as f64 / (1u64 << 53) as f64
}

/// A name of 15 characters that nothing else has.
pub(super) fn name() -> String {
    use std::hash::{BuildHasher, RandomState};
    let n = RandomState::new().hash_one(0u8);
    format!("{:015x}", n & 0x0fff_ffff_ffff_ffff)
}

async fn dial(
    router: &str,
    spec: &LinkSpec,
    target: &Target,
    key: ConnKey,
    group: Option<&Group<'_>>,
) -> Result<Established, LinkFailure> {
    let fail = |stage: &'static str, error: String| LinkFailure {
        host: target.host.clone(),
        port: target.port,
        stage,
        error,
    };
    let patience = CONNECT_TIMEOUT[usize::from(spec.targets.len() > 1)];
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
        let mut socket = match tokio::time::timeout(patience, TcpStream::connect(addr)).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(e)) => {
                last = fail("connecting", e.to_string());
                continue;
            }
            Err(_) => {
                let text = format!("no answer within {} s", patience.as_secs());
                last = fail("connecting", text);
                continue;
            }
        };
        sys::prepare(SockRef::from(&socket)).map_err(|e| fail("connecting", e.to_string()))?;
        if let Some(proxy) = via {
            let asked = connect::connect(&mut socket, target, proxy);
            let asked = tokio::time::timeout(handshake::TIMEOUT, asked).await;
            let asked = asked.unwrap_or(Err(connect::ConnectError::Malformed("it does not come")));
            if let Err(e) = asked {
                last = fail("connecting by way of the proxy", telemetry::chain(&e));
                continue;
            }
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

/// What the tasks of a link know.
#[derive(Clone)]
struct Line {
    site: u32,
    router: String,
    /// Data connections; None: this is an edge, which has none.
    trunk: Option<usize>,
    specs: watch::Receiver<LinkSpec>,
    core: CoreSender,
}

/// A link that is up: its control connection, and the tasks that keep its trunk up.
struct Up {
    key: ConnKey,
    /// Which of the endpoints.
    index: usize,
    gone: oneshot::Receiver<()>,
    /// Aborted when dropped.
    data: JoinSet<()>,
}

/// Keeps a link up until dropped: over its first endpoint that can be reached, and back over an earlier
/// one when that can be reached again. `specs`: what is dialled; a change of the credentials is taken
/// up beside the connection that is up.
pub(crate) async fn keep(
    site: u32,
    router: String,
    specs: watch::Receiver<LinkSpec>,
    trunk: Option<usize>,
    core: CoreSender,
) {
    let mut line = Line {
        site,
        router,
        trunk,
        specs,
        core,
    };
    let mut backoff = Backoff::new();
    let mut first = 0;
    loop {
        let spec = line.specs.borrow_and_update().clone();
        let count = spec.targets.len();
        let order = (0..count).map(|n| (first + n) % count.max(1));
        let Some(up) = line.connect(&spec, order).await else {
            first = 0;
            // Cancel-safe: a change that is not seen here is seen at the next turn.
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                _ = line.specs.changed() => {}
            }
            continue;
        };
        // Whoever lost an endpoint goes to the next one: the first may answer nothing for a while.
        first = line.hold(up, &spec).await + 1;
        backoff = Backoff::new();
        tokio::time::sleep(backoff.next()).await;
    }
}

impl Line {
    /// Dials endpoints in this order until one answers.
    async fn connect(&self, spec: &LinkSpec, order: impl Iterator<Item = usize>) -> Option<Up> {
        for index in order {
            let Some(target) = spec.targets.get(index) else {
                continue;
            };
            let correlator = name();
            let key = self.core.next_key();
            let group = Group {
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
                Ok(established) => {
                    let trunking = established.open.offers("qd.connection_trunking");
                    let gone = self.give(spec, key, None, established);
                    let mut data = JoinSet::new();
                    for _ in 0..self.trunk.filter(|_| trunking).unwrap_or(0) {
                        let (line, target) = (self.clone(), target.clone());
                        data.spawn(line.keep_data(target, key, correlator.clone()));
                    }
                    return Some(Up {
                        key,
                        index,
                        gone,
                        data,
                    });
                }
            }
        }
        None
    }

    fn give(
        &self,
        spec: &LinkSpec,
        key: ConnKey,
        data_of: Option<ConnKey>,
        established: Established,
    ) -> oneshot::Receiver<()> {
        let (alive, gone) = oneshot::channel();
        let dialled = Dialled {
            link: spec.name.clone(),
            key,
            data_of,
            established,
            alive,
        };
        self.core.send(CoreEvent::Dialled {
            site: self.site,
            dialled: Box::new(dialled),
        });
        gone
    }

    /// Waits until the link has ended, and moves it meanwhile where it should be. Gives the endpoint
    /// it ended on.
    async fn hold(&mut self, mut up: Up, begun: &LinkSpec) -> usize {
        let mut spec = begun.clone();
        let mut renew = false;
        loop {
            // All arms are cancel-safe: channels keep what was not received.
            tokio::select! {
                _ = &mut up.gone => return up.index,
                changed = self.specs.changed() => {
                    if changed.is_err() {
                        // The link is being removed, and this task with it.
                        drop((&mut up.gone).await);
                        return up.index;
                    }
                    let next = self.specs.borrow_and_update().clone();
                    renew |= next.credentials != spec.credentials || next.proxy != spec.proxy;
                    spec = next;
                }
                () = tokio::time::sleep(PROBE), if renew || up.index > 0 => {}
            }
            let order = 0..if renew { spec.targets.len() } else { up.index };
            if let Some(new) = self.connect(&spec, order).await {
                // The new one takes the streams to come; the old one ends when its last has ended.
                up.data.abort_all();
                self.core.send(CoreEvent::Retire {
                    site: self.site,
                    key: up.key,
                });
                up = new;
                renew = false;
            }
        }
    }

    async fn keep_data(self, target: Target, control: ConnKey, correlator: String) {
        let mut backoff = Backoff::new();
        loop {
            let key = self.core.next_key();
            let spec = self.specs.borrow().clone();
            let group = Group {
                correlator: &correlator,
                data: true,
            };
            match dial(&self.router, &spec, &target, key, Some(&group)).await {
                Ok(established) => {
                    drop(self.give(&spec, key, Some(control), established).await);
                    backoff = Backoff::new();
                }
                Err(failure) => {
                    tracing::debug!(link = spec.name, %failure, "data connection failed");
                }
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }
}
