//! The AMQP `open` that this router sends: capabilities, properties, connection group.

use super::{DialTarget, LinkSpec};
use crate::{
    amqp::{
        connection::Config,
        value::{Symbol, Value},
    },
    link::{
        conn::ConnKey,
        handshake,
        names::{
            ANNOTATIONS_VERSION, CONN_ID, CONNECTION_TRUNKING, GROUP_CORRELATOR, GROUP_ORDINAL,
            INTER_ROUTER_COST, INTER_ROUTER_ROLE, LINK_INSTANCE, STREAMING_LINKS,
        },
    },
};

/// Symbols a router offers and desires.
pub(crate) fn capabilities() -> Vec<Symbol> {
    [
        "ANONYMOUS-RELAY",
        STREAMING_LINKS,
        CONNECTION_TRUNKING,
        handshake::NATIVE,
    ]
    .map(Symbol::from)
    .to_vec()
}

/// Properties that every router sends in its `open`.
pub(crate) fn properties(key: ConnKey) -> Vec<(Value, Value)> {
    let symbol = |name: &'static str| Value::Symbol(Symbol::from(name));
    vec![
        (symbol("product"), Value::from("skupperd")),
        (symbol("version"), Value::from(env!("CARGO_PKG_VERSION"))),
        (
            symbol(CONN_ID),
            Value::Int(i32::try_from(key & 0x7fff_ffff).unwrap_or(0)),
        ),
        (symbol(ANNOTATIONS_VERSION), Value::Int(2)),
    ]
}

/// The connections of one link, and which of them this is. An edge has one and no more.
pub(super) struct Group<'a> {
    /// The link, which others of its connections take over from.
    pub(super) instance: &'a str,
    pub(super) correlator: &'a str,
    pub(super) data: bool,
}

pub(super) fn open(
    router: &str,
    spec: &LinkSpec,
    target: &DialTarget,
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
            .push((symbol(INTER_ROUTER_COST), Value::Int(cost)));
    }
    if group.data {
        config
            .properties
            .push((symbol(INTER_ROUTER_ROLE), Value::Int(4)));
    }
    config
        .properties
        .push((symbol(GROUP_CORRELATOR), Value::from(group.correlator)));
    config
        .properties
        .push((symbol(GROUP_ORDINAL), Value::Ulong(0)));
    config
        .properties
        .push((symbol(LINK_INSTANCE), Value::from(group.instance)));
    config
}
