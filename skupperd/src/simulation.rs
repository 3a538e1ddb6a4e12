//! A whole site without sockets, in one thread and on simulated time, for tests and the fuzzer.
//!
//! The core with its site and router, the workers, and the tasks of connections are those of the
//! daemon. In place of TCP and TLS there are pipes in memory: [`Simulation::connect`] returns the
//! peer's end, and names the certificate that the peer has shown. In place of the proxy there are
//! servers that echo ([`echo`]). What passes between core and workers is counted ([`activity`]).
//!
//! It runs in a `LocalSet` on a runtime whose clock is paused: time passes in
//! [`Simulation::advance`], as fast as the work allows, and stands still otherwise.
//!
//! It never opens a socket, starts a thread, reads a file, or waits for the clock of the system.

mod activity;
mod echo;

pub use activity::{EndedConnection, MessageCounts};

use crate::{
    core::{
        AccessSpec, ConnectorSpec, Core, CoreEnded, CoreHandle, CoreRequest, Reply, SiteRequest,
        SiteSpec, SiteState, channel, open_config,
    },
    flows::FlowLog,
    link::handshake::{self, RevocationList, RevokedCertificates},
    messages::{AcceptPort, CoreEvent, Senders, ServerTls, core_channel},
    model::{ConnectorSettings, Role},
    pki::CertificateIdentity,
    service::{
        policy::ListenerPolicies,
        view::{SiteView, TargetHost},
    },
    steer::{OwnSockets, accel::Acceleration},
    worker::Worker,
};
use activity::Activity;
use echo::EchoServers;
use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};
use tokio::{io::DuplexStream, sync::mpsc, task::spawn_local};

/// Streams of one connection pass through the other worker too.
const WORKERS: usize = 2;
/// Bytes that a pipe holds in each direction: the buffers of a socket.
const PIPE: usize = 64 * 1024;
/// Name of the RouterAccess of the site.
const ACCESS: &str = "access";

/// Where a peer connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimulatedPort {
    InterRouter,
    Edge,
    /// That for AMQP clients of the host.
    Local,
}

/// A running site, and the ends of what it serves.
pub struct Simulation {
    router: String,
    core: CoreHandle,
    site: u32,
    activity: Rc<Activity>,
    tls: ServerTls,
    revoked: RevocationList,
}

impl Simulation {
    /// Starts a site whose router has this id, with a connector for each of these routing keys.
    pub async fn start(router: &str, routing_keys: &[&str]) -> Result<Self, CoreEnded> {
        let (handle, inbox) = channel();
        let activity = Rc::new(Activity::default());
        let senders = start_workers(&handle, &activity);
        let (core, _status_changes) = Core::new(
            handle.events().clone(),
            senders,
            None,
            Acceleration::new(false),
            OwnSockets::default(),
            ListenerPolicies::default(),
            FlowLog::new(WORKERS),
        );
        spawn_local(core.run(inbox));
        let spec = Box::new(site_spec(router));
        let site = handle
            .ask(|reply| CoreRequest::AddSite(spec, reply))
            .await?;
        let this = Self {
            router: router.to_owned(),
            core: handle,
            site,
            activity,
            tls: unused_tls(),
            revoked: RevocationList::default(),
        };
        let access = AccessSpec {
            name: ACCESS.into(),
            sockets: Vec::new(),
            tls: this.tls.clone(),
        };
        this.ask(|reply| SiteRequest::SetAccess(access, reply))
            .await?;
        for routing_key in routing_keys {
            let connector = Box::new(connector(routing_key));
            this.ask(|reply| SiteRequest::SetConnector(connector, reply))
                .await?;
        }
        Ok(this)
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> SiteRequest) -> Result<T, CoreEnded> {
        let answer = self.core.ask_site(self.site, request).await?;
        answer.ok_or(CoreEnded)
    }

    /// Connects a peer that has shown this certificate. Returns its end of the connection, on which it
    /// speaks from SASL on.
    pub fn connect(
        &self,
        port: SimulatedPort,
        identity: Option<CertificateIdentity>,
    ) -> DuplexStream {
        let (ours, peers) = tokio::io::duplex(PIPE);
        let port = self.port(port);
        let key = self.core.next_key();
        let config = open_config(&self.router, &port, key);
        // Addresses for documentation; the port tells connections apart.
        let addr = SocketAddr::from(([192, 0, 2, 1], key as u16));
        let (site, events) = (self.site, self.core.events().clone());
        spawn_local(async move {
            match handshake::run_in_memory(ours, identity, addr, config).await {
                Ok(established) => events.send(CoreEvent::Accepted {
                    site,
                    port,
                    established: Box::new(established),
                }),
                Err(error) => tracing::debug!(%error, "connection refused"),
            }
        });
        peers
    }

    fn port(&self, port: SimulatedPort) -> AcceptPort {
        let role = match port {
            SimulatedPort::InterRouter => Role::InterRouter,
            SimulatedPort::Edge => Role::Edge,
            SimulatedPort::Local => return AcceptPort::Local,
        };
        AcceptPort::Links {
            access: ACCESS.into(),
            role,
            tls: self.tls.clone(),
            revoked: self.revoked.clone(),
        }
    }

    /// Lets this much time pass. Everything that is due by then is done afterwards.
    pub async fn advance(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// What the statuses of the site's resources say.
    pub async fn describe(&self) -> Result<SiteState, CoreEnded> {
        self.ask(SiteRequest::Describe).await
    }

    /// Accepts these certificates no more.
    pub async fn revoke(&self, revoked: RevokedCertificates) -> Result<(), CoreEnded> {
        self.ask(|reply| SiteRequest::SetRevoked(revoked, reply))
            .await
    }

    /// Ends the site with all connections.
    pub async fn stop(&self) -> Result<(), CoreEnded> {
        self.core
            .ask(|reply| CoreRequest::RemoveSite(self.site, reply))
            .await
    }

    /// What workers know of the network.
    pub fn view(&self) -> Arc<SiteView> {
        self.activity.view()
    }

    /// Messages between core and workers so far.
    pub fn counts(&self) -> MessageCounts {
        self.activity.counts()
    }

    /// Connections that workers have, by the ids of their peers.
    pub fn connections(&self) -> Vec<String> {
        self.activity.connections()
    }

    /// Connections that have ended since the last call.
    pub fn take_ended(&self) -> Vec<EndedConnection> {
        self.activity.take_ended()
    }
}

/// Starts the workers. What they tell the core and what they are told passes by `activity`.
fn start_workers(core: &CoreHandle, activity: &Rc<Activity>) -> Senders {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..WORKERS).map(|_| mpsc::unbounded_channel()).unzip();
    let senders = Senders::new(senders);
    let (events, mut from_workers) = core_channel();
    for (index, mut commands) in receivers.into_iter().enumerate() {
        let acceptor = Rc::new(EchoServers);
        let worker = Worker::new(index, senders.clone(), events.clone(), acceptor);
        let activity = activity.clone();
        spawn_local(async move {
            while let Some(command) = commands.recv().await {
                activity.command(index, &command);
                worker.command(command);
            }
        });
    }
    let (core, activity) = (core.events().clone(), activity.clone());
    spawn_local(async move {
        while let Some(event) = from_workers.recv().await {
            activity.event(&event);
            core.send(event);
        }
    });
    senders
}

fn site_spec(router: &str) -> SiteSpec {
    SiteSpec {
        namespace: "simulation".to_owned(),
        site: Arc::default(),
        router_id: router.to_owned(),
        instance: 1,
        trunk: 0,
        advert: format!("skupper-site/{router}"),
        host: String::new(),
        edge: false,
    }
}

fn connector(routing_key: &str) -> ConnectorSpec {
    ConnectorSpec {
        name: routing_key.to_owned(),
        host: TargetHost::Name("echo".to_owned()),
        port: 1,
        routing_key: routing_key.to_owned(),
        settings: ConnectorSettings::default(),
        tls: None,
        sites: None,
        probe: None,
        include_not_ready: false,
    }
}

/// The configuration of a port on which no TLS is spoken.
fn unused_tls() -> ServerTls {
    let certificates = rustls::server::ResolvesServerCertUsingSni::new();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    ServerTls::new(Arc::new(config).into())
}

#[cfg(test)]
mod tests;
