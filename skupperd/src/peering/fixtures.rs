//! Links and connections for tests, without a peer.

use super::{DialTarget, LinkSpec};
use crate::{
    amqp::{
        connection::{Config, Connection},
        performative::Open,
    },
    link::{handshake::Established, wire::Parts},
    model::Secret,
    pki::CertificateIdentity,
};
use bytes::BytesMut;
use rustls::{ClientConfig, RootCertStore};
use std::{
    collections::VecDeque,
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::Arc,
    time::Instant,
};

/// A link of this name to a host that is not dialled.
pub(crate) fn link_spec(host: &str, cost: u32) -> LinkSpec {
    let tls = ClientConfig::builder()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    LinkSpec {
        name: "link".to_owned(),
        targets: vec![DialTarget {
            host: host.to_owned(),
            port: 55671,
        }],
        cost,
        credentials: Secret::default(),
        proxy: None,
        tls: Arc::new(tls),
    }
}

/// A connection that router `remote` has opened. Its socket is not read.
pub(crate) fn established(remote: &str, identity: Option<CertificateIdentity>) -> Established {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let addr = listener.local_addr().expect("an address");
    let socket = TcpStream::connect(addr).expect("a connection");
    Established {
        parts: Parts::new(socket, None, BytesMut::new()),
        amqp: Connection::new(Config::new("A"), Instant::now()),
        open: Box::new(Open {
            container_id: remote.to_owned(),
            ..Open::default()
        }),
        rest: VecDeque::new(),
        native: false,
        peer: addr,
        identity,
        user: None,
        key_exchange: "",
    }
}
