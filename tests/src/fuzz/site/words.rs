//! What the hostile peer says: ids, addresses and numbers that a program chooses from, and the messages
//! made of them.

use super::{SERVICE, SITE, honest};
use crate::hostile_peer::{control, encoded};
use skupperd::amqp::{
    message::{Body, Message, Properties, RouterAnnotations},
    performative::{Attach, Begin, Role, Source, Target},
    value::{Symbol, Value},
};

/// Where HELLOs go, and what all routers hear.
const HELLO: &str = "amqp:/_local/qdhello";
const ALL: &str = "amqp:/_topo/0/all/qdrouter";

/// Ids of routers; `n` tells those of one repetition from the next.
pub(super) fn id(choice: u8, n: usize) -> String {
    match choice % 14 {
        0 | 1 => "evil".to_owned(),
        2 => "evil2".to_owned(),
        3 | 4 => honest::ID.to_owned(),
        5 => SITE.to_owned(),
        6 | 7 => format!("ghost{n}"),
        8 => "ghost".to_owned(),
        9 => "x".repeat(255),
        10 => "x".repeat(256),
        11 => honest::behind::ROUTER.to_owned(),
        12 => format!("{}\n", honest::ID),
        _ => String::new(),
    }
}

/// Addresses and routing keys.
pub(super) fn address(choice: u8, n: usize) -> String {
    match choice % 24 {
        0 => SERVICE.to_owned(),
        1 => honest::SERVICE.to_owned(),
        2 => "evil-service".to_owned(),
        3 => format!("key{n}"),
        4 => "mc/sfe.all".to_owned(),
        5 => "mc/sfe.evil:0".to_owned(),
        6 => format!("amqp:/_topo/0/{}/temp.000000000000001", honest::ID),
        7 => format!("amqp:/_topo/0/{SITE}/temp.00000000000000001"),
        8 => format!("amqp:/_topo/0/{SITE}/temp.01000000000000001"),
        9 => ALL.to_owned(),
        10 => HELLO.to_owned(),
        11 => format!("amqp:/_topo/0/{SITE}/qdrouter.ma"),
        12 => format!("amqp:/_topo/0/{}/qdrouter.ma", honest::ID),
        13 => "amqp:/_edge/evil/temp.1".to_owned(),
        14 => "_$qd.mesh_discovery".to_owned(),
        15 => "_$qd.edge_addr_tracking".to_owned(),
        16 => "$management".to_owned(),
        17 => format!("skupper-site/{}", honest::ID),
        18 => format!("amqp:/_topo/0/{}/qdrouter", honest::ID),
        19 => "x".repeat(512),
        20 => "x".repeat(5000),
        21 => "amqp://authority/_topo/0//".to_owned(),
        22 => honest::behind::SERVICE.to_owned(),
        _ => String::new(),
    }
}

/// Numbers at the edges of types, windows and limits.
pub(super) fn number(choice: u8) -> u32 {
    const NUMBERS: [u32; 16] = [
        0,
        1,
        2,
        3,
        7,
        10,
        100,
        250,
        1023,
        8191,
        8192,
        69_999,
        1 << 20,
        i32::MAX as u32,
        i32::MAX as u32 + 1,
        u32::MAX,
    ];
    NUMBERS[usize::from(choice) % NUMBERS.len()]
}

/// The same for sequence numbers and instances.
pub(super) fn sequence(choice: u8) -> i64 {
    match choice % 16 {
        n @ 0..=9 => i64::from(n),
        10 => 1023,
        11 => 1 << 32,
        12 => i64::MAX,
        13 => i64::MAX - 1,
        14 => i64::MIN,
        _ => -1,
    }
}

/// Lengths of lists and payloads.
pub(super) fn length(choice: u8) -> usize {
    const LENGTHS: [usize; 12] = [0, 1, 2, 3, 5, 17, 100, 255, 600, 2000, 6000, 16_000];
    LENGTHS[usize::from(choice) % LENGTHS.len()]
}

/// An AMQP value, also where none of its kind belongs.
pub(super) fn value(choice: u8, n: usize) -> Value {
    match choice % 12 {
        0 => Value::Null,
        1 => Value::Bool(true),
        2 => Value::Uint(u32::MAX),
        3 => Value::Long(i64::MIN),
        4 => Value::from(address(choice / 12, n)),
        5 => Value::Symbol(Symbol::from("qd.router")),
        6 => Value::List(Vec::new()),
        7 => Value::Map(vec![(Value::Null, Value::Null)]),
        8 => Value::Binary(vec![0xff; 300].into()),
        9 => Value::Array(vec![Value::Ubyte(1); 40]),
        10 => (0..30).fold(Value::Null, |inner, _| Value::List(vec![inner])),
        _ => Value::Described(Box::new((Value::Ulong(0x28), Value::List(Vec::new())))),
    }
}

pub(super) fn begin(remote_channel: Option<u16>) -> Begin {
    Begin {
        remote_channel,
        incoming_window: 1 << 20,
        outgoing_window: 1 << 20,
        ..Begin::default()
    }
}

/// A link of the peer. Both ends get the address and the capability.
pub(super) fn attach(
    handle: u32,
    role: Role,
    address: Option<String>,
    capability: Option<&'static str>,
) -> Attach {
    let capabilities: Vec<Symbol> = capability.map(Symbol::from).into_iter().collect();
    Attach {
        name: format!("evil.{handle}.{role:?}"),
        handle,
        role,
        source: Some(Source {
            address: address.clone(),
            capabilities: capabilities.clone(),
            ..Source::default()
        }),
        target: Some(Target {
            address,
            capabilities,
            ..Target::default()
        }),
        initial_delivery_count: (role == Role::Sender).then_some(0),
        ..Attach::default()
    }
}

/// A HELLO.
pub(super) struct Hello<'a> {
    pub(super) id: &'a str,
    pub(super) instance: i64,
    pub(super) seen: &'a [&'a str],
}

impl Hello<'_> {
    pub(super) fn encoded(&self) -> Vec<u8> {
        let seen = self.seen.iter().map(|id| Value::from(*id)).collect();
        let body = vec![
            ("id", Value::from(self.id)),
            ("pv", Value::Int(1)),
            ("area", "0".into()),
            ("instance", Value::Long(self.instance)),
            ("seen", Value::List(seen)),
        ];
        control(self.id, HELLO, "HELLO", body)
    }
}

/// A message to an address, with these claims about where it comes from.
pub(super) fn message(to: String, claims: Option<RouterAnnotations>, body: Value) -> Vec<u8> {
    encoded(&Message {
        annotations: claims,
        properties: Some(Properties {
            to: Some(to.clone()),
            reply_to: Some(to),
            subject: Some("FLUSH".to_owned()),
            ..Properties::default()
        }),
        body: Body::Value(body),
        ..Message::default()
    })
}
