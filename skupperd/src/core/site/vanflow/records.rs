//! Records of what lasts at a site: the site, its router, links, ports for links, listeners, connectors.

use super::{
    A, Type, VanflowEmitter, VanflowReceivers, VanflowRecord, access, connector, listener, micros,
    server,
};
use crate::{
    core::{
        SiteSpec,
        site::{
            Site, accesses::Accesses, delivery::encode, links::Links, peers::Peers,
            services::Services,
        },
    },
    link::conn::ConnKey,
    model::Role,
};
use std::{collections::BTreeMap, time::Instant};

/// Records by what they are called in the emitter.
type Records = BTreeMap<String, VanflowRecord>;

/// In place of a connection, for messages that come from here: no connection has this key.
const HERE: (ConnKey, ConnKey) = (0, 0);

impl Site {
    /// Sends records to their receivers.
    pub(in crate::core) fn emit_records(&mut self, now: Instant) {
        let addresses = self.vanflow_emitter.sends_to();
        let [beacons, records, flows] = addresses.map(|a| self.has_receivers(&a));
        let heard = VanflowReceivers {
            beacons,
            records,
            flows,
        };
        if self.vanflow_emitter.set_receivers(heard, now) {
            let servers = self.services.serving().into_iter();
            let servers = servers.map(|(name, _, server, _)| (name, server));
            self.vanflow_emitter.set_servers(servers);
            self.vanflow_emitter.update_open();
            if heard.records {
                let all = self.lasting_records();
                self.vanflow_emitter.set_lasting(all);
            }
        }
        self.vanflow_emitter.collect(heard, now);
        for (address, mut message) in self.vanflow_emitter.poll(heard, now) {
            let sent =
                self.annotate(&mut message, &address) && self.spread(HERE, &address, &message);
            // An edge knows few addresses. Its interior router knows the others.
            if let Some(link) = self.router.routes().uplink.filter(|_| !sent) {
                let message = encode(&message);
                self.uplink.send(link, &address, message, &mut self.effects);
            }
        }
    }

    fn lasting_records(&mut self) -> Records {
        let emitter = &mut self.vanflow_emitter;
        let mut all = Records::new();
        add_site(emitter, &self.spec, &mut all);
        let role = self.spec.link_role().as_str();
        add_links(emitter, &self.links, &self.peers, role, &mut all);
        add_accesses(emitter, &self.accesses, &self.peers, &mut all);
        add_listeners(emitter, &self.services, &mut all);
        add_connectors(emitter, &self.services, &self.spec, &mut all);
        all
    }
}

fn add_site(emitter: &VanflowEmitter, spec: &SiteSpec, all: &mut Records) {
    let site = &spec.site;
    let version = env!("CARGO_PKG_VERSION");
    let since = micros(emitter.since);
    let record = VanflowRecord::new(Type::Site, &*site.id)
        .number(A::StartTime, since)
        .text(A::Name, &site.name)
        .text(A::Platform, "linux")
        .text(A::Namespace, &site.namespace)
        .text(A::BuildVersion, version);
    all.insert("site".to_owned(), record);
    let mode = if spec.edge { "edge" } else { "interior" };
    let record = VanflowRecord::new(Type::Router, emitter.source.identity(0))
        .text(A::Parent, &site.id)
        .number(A::StartTime, since)
        .text(A::Name, &format!("0/{}", spec.router_id))
        .text(A::Namespace, &site.namespace)
        .text(A::Mode, mode)
        .text(A::HostName, &spec.host)
        .text(A::BuildVersion, &format!("skupperd {version}"));
    all.insert("router".to_owned(), record);
}

fn add_links(
    emitter: &mut VanflowEmitter,
    links: &Links,
    peers: &Peers,
    role: &str,
    all: &mut Records,
) {
    for (name, state) in links.states(peers) {
        let mut up = peers.of_link(&name).filter(|p| p.is_neighbour);
        let remote_access = up.find_map(|p| p.remote_access.as_deref());
        let status = if state.remote.is_some() { "up" } else { "down" };
        let what = format!("link {name}");
        let record = emitter
            .lasting_record(Type::Link, &what)
            .text(A::Name, &name)
            .text(A::Role, role)
            .text(A::Status, status)
            .text(A::Peer, remote_access.unwrap_or_default())
            .text(A::Protocol, "amqps")
            .text(A::Reason, &state.last_failure.unwrap_or_default())
            .maybe(A::UpTime, state.since.map(micros));
        let record = links.describe(&name, |link| {
            let port = link.port.map(|port| port.to_string());
            record
                .text(A::DestinationHost, link.host)
                .text(A::DestinationPort, &port.unwrap_or_default())
                .text(A::HttpProxy, if link.has_proxy { "yes" } else { "no" })
                .number(A::LinkCost, link.cost.into())
                .number(A::DownCount, link.lost)
        });
        all.extend(record.map(|record| (what, record)));
    }
}

fn add_accesses(
    emitter: &mut VanflowEmitter,
    accesses: &Accesses,
    peers: &Peers,
    all: &mut Records,
) {
    for (name, role) in accesses.roles() {
        let what = access(name, role.as_str());
        let edges = role == Role::Edge;
        let links = peers
            .values()
            .filter(|p| p.access.as_deref() == Some(name) && p.is_edge == edges && p.is_neighbour);
        let record = emitter
            .lasting_record(Type::RouterAccess, &what)
            .text(A::Name, name)
            .text(A::Role, role.as_str())
            .number(A::LinkCount, links.count() as u64);
        all.insert(what, record);
    }
}

fn add_listeners(emitter: &mut VanflowEmitter, services: &Services, all: &mut Records) {
    for (name, key, range) in services.listening() {
        let what = listener(&name, &key);
        let record = emitter
            .lasting_record(Type::Listener, &what)
            .text(A::Name, &name)
            .text(A::Protocol, "tcp")
            .text(A::Address, &key)
            .address([A::DestinationHost, A::DestinationPort], &range);
        all.insert(what, record);
    }
}

fn add_connectors(
    emitter: &mut VanflowEmitter,
    services: &Services,
    spec: &SiteSpec,
    all: &mut Records,
) {
    for (name, key, [host, port], opened) in services.serving() {
        let server = server(&host, &port);
        let what = connector(&name, &server);
        let process = format!("process {name} {server}");
        let record = emitter
            .lasting_record(Type::Connector, &what)
            .text(A::Name, &name)
            .text(A::Protocol, "tcp")
            .text(A::Address, &key)
            .text(A::Process, &emitter.identity(&process))
            .text(A::DestinationHost, &host)
            .text(A::DestinationPort, &port)
            .number(A::FlowCount, opened);
        all.insert(what, record);
        let (n, since) = emitter.number_of(&process);
        let record = VanflowRecord::new(Type::Process, emitter.source.identity(n))
            .text(A::Parent, &spec.site.id)
            .number(A::StartTime, micros(since))
            .text(A::Name, &name)
            .text(A::Group, &name)
            .text(A::Mode, "internal")
            .text(A::HostName, &spec.host)
            .text(A::SourceHost, &host);
        all.insert(process, record);
    }
}
