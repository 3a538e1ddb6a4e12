//! Dialling: one task for each link, which keeps its control connection and trunk up.

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
    model::Secret,
    sys, telemetry,
};
use rustls::{ClientConfig, pki_types::ServerName};
use socket2::SockRef;
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpStream, sync::oneshot, task::JoinSet};

/// Time for one TCP connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// First and longest pause between attempts. Upstream waits 2 to 5 s; a link that is back sooner
/// cuts the outage of every service on it.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// What a link dials.
#[derive(Clone, Debug)]
pub struct LinkSpec {
    /// Name of the resource.
    pub name: String,
    /// Host and port of the remote site's inter-router endpoint.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Cost, at least 1.
    pub cost: u32,
    /// Credentials, to see whether they have changed.
    pub credentials: Secret,
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

fn open(router: &str, spec: &LinkSpec, key: ConnKey, correlator: &str, data: bool) -> Config {
    let symbol = |name: &'static str| Value::Symbol(Symbol::from(name));
    let mut config = Config::new(router);
    config.hostname = Some(spec.host.clone());
    config.capabilities = capabilities();
    config.properties = properties(key);
    if spec.cost > 1 {
        let cost = i32::try_from(spec.cost).unwrap_or(i32::MAX);
        config
            .properties
            .push((symbol("qd.inter-router-cost"), Value::Int(cost)));
    }
    if data {
        config
            .properties
            .push((symbol("qd.inter-router-role"), Value::Int(4)));
    }
    config
        .properties
        .push((symbol("qd.group-correlator"), Value::from(correlator)));
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

/// A name of 15 characters that groups the connections of one link.
fn correlator() -> String {
    use std::hash::{BuildHasher, RandomState};
    let n = RandomState::new().hash_one(0u8);
    format!("{:015x}", n & 0x0fff_ffff_ffff_ffff)
}

async fn dial(
    router: &str,
    spec: &LinkSpec,
    key: ConnKey,
    correlator: &str,
    data: bool,
) -> Result<Established, LinkFailure> {
    let fail = |stage: &'static str, error: String| LinkFailure {
        host: spec.host.clone(),
        port: spec.port,
        stage,
        error,
    };
    let name = ServerName::try_from(spec.host.clone())
        .map_err(|e| fail("reading the host name", e.to_string()))?;
    let addrs = tokio::net::lookup_host((spec.host.as_str(), spec.port))
        .await
        .map_err(|e| fail("looking up the host", e.to_string()))?;
    let mut last = fail("looking up the host", "no address".to_owned());
    for addr in addrs {
        let socket = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(addr)).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(e)) => {
                last = fail("connecting", e.to_string());
                continue;
            }
            Err(_) => {
                last = fail(
                    "connecting",
                    format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
                );
                continue;
            }
        };
        sys::prepare(SockRef::from(&socket)).map_err(|e| fail("connecting", e.to_string()))?;
        let security = Security::Client(spec.tls.clone(), name.clone());
        let config = open(router, spec, key, correlator, data);
        match handshake::run(socket, security, config).await {
            Ok(established) => return Ok(established),
            Err(e) => last = fail("opening the link", telemetry::chain(&e)),
        }
    }
    Err(last)
}

/// Keeps a link up until dropped.
pub(crate) async fn keep(
    site: u32,
    router: String,
    spec: LinkSpec,
    trunk: usize,
    core: CoreSender,
) {
    let mut backoff = Backoff::new();
    loop {
        let correlator = correlator();
        let key = core.next_key();
        match dial(&router, &spec, key, &correlator, false).await {
            Err(failure) => {
                core.send(CoreEvent::DialFailed {
                    site,
                    link: spec.name.clone(),
                    failure,
                });
                tokio::time::sleep(backoff.next()).await;
            }
            Ok(established) => {
                let trunking = established.open.offers("qd.connection_trunking");
                let (alive, gone) = oneshot::channel();
                let link = spec.name.clone();
                let dialled = Dialled {
                    link,
                    key,
                    data_of: None,
                    established,
                    alive,
                };
                core.send(CoreEvent::Dialled {
                    site,
                    dialled: Box::new(dialled),
                });
                // Dropped, and with it all its tasks, when the control connection is gone.
                let mut data = JoinSet::new();
                for _ in 0..if trunking { trunk } else { 0 } {
                    data.spawn(keep_data(
                        site,
                        router.clone(),
                        spec.clone(),
                        key,
                        correlator.clone(),
                        core.clone(),
                    ));
                }
                drop(gone.await);
                backoff = Backoff::new();
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}

async fn keep_data(
    site: u32,
    router: String,
    spec: LinkSpec,
    control: ConnKey,
    correlator: String,
    core: CoreSender,
) {
    let mut backoff = Backoff::new();
    loop {
        let key = core.next_key();
        match dial(&router, &spec, key, &correlator, true).await {
            Ok(established) => {
                let (alive, gone) = oneshot::channel();
                let link = spec.name.clone();
                let dialled = Dialled {
                    link,
                    key,
                    data_of: Some(control),
                    established,
                    alive,
                };
                core.send(CoreEvent::Dialled {
                    site,
                    dialled: Box::new(dialled),
                });
                drop(gone.await);
                backoff = Backoff::new();
            }
            Err(failure) => {
                tracing::debug!(link = spec.name, %failure, "data connection failed");
            }
        }
        tokio::time::sleep(backoff.next()).await;
    }
}
