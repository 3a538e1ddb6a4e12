//! Steps that speak as a router: control messages, and messages that clients and routers send.

use super::{super::peer::Peer, Input};
use crate::{
    fuzz::site::{
        SITE,
        words::{self, Hello},
    },
    hostile_peer::control,
};
use skupperd::amqp::{message::RouterAnnotations, value::Value};

/// Bytes of a frame of the longest message that most routers take.
const PIECE: usize = 16_000;

pub(super) fn speak(peer: &mut Peer, choice: u8, n: usize, input: &mut Input<'_>) {
    let message = match choice {
        5 => hello(peer, n, input),
        6 => topology(n, input),
        7 => addresses(n, input),
        8 => anything(n, input),
        _ => {
            // Becomes a neighbour as one should, once.
            if !peer.says_hello {
                peer.control_links();
            }
            return;
        }
    };
    let (channel, handle) = match input.byte() % 8 {
        0..=4 => (0, 0),
        link @ (5 | 6) => (u16::from(link % 2), u32::from(link)),
        _ => (input.byte().into(), input.byte().into()),
    };
    let piece = if input.one_in(4) { 100 } else { PIECE };
    peer.message(channel, handle, &message, piece);
}

/// The id that a message is from: mostly that of the peer itself.
fn from(peer: &Peer, n: usize, input: &mut Input<'_>) -> String {
    match input.byte() {
        0..=127 => peer.id.clone(),
        choice => words::id(choice, n),
    }
}

fn hello(peer: &Peer, n: usize, input: &mut Input<'_>) -> Vec<u8> {
    let id = from(peer, n, input);
    let count = words::length(input.byte()).min(600);
    let names: Vec<String> = (0..count).map(|at| words::id(6, at)).collect();
    let mut seen: Vec<&str> = names.iter().map(String::as_str).collect();
    if !input.one_in(3) {
        seen.push(SITE);
    }
    let instance = instance(input);
    Hello {
        id: &id,
        instance,
        seen: &seen,
    }
    .encoded()
}

/// Mostly the right one: another is a restart.
fn instance(input: &mut Input<'_>) -> i64 {
    match input.byte() {
        0..=191 => 7,
        choice => words::sequence(choice),
    }
}

/// Where a message of a router goes: to all, to the site, or elsewhere.
fn destination(endpoint: &str, n: usize, input: &mut Input<'_>) -> String {
    match input.byte() % 8 {
        0..=3 => format!("amqp:/_topo/0/all/{endpoint}"),
        4 | 5 => format!("amqp:/_topo/0/{SITE}/{endpoint}"),
        6 => format!("amqp:/_topo/0/{}/{endpoint}", words::id(input.byte(), n)),
        _ => words::address(input.byte(), n),
    }
}

/// RA, LSU or LSR.
fn topology(n: usize, input: &mut Input<'_>) -> Vec<u8> {
    let id = words::id(input.byte(), n);
    let to = destination("qdrouter", n, input);
    let (kind, instance, seq) = (input.byte(), instance(input), words::sequence(input.byte()));
    let mut body = vec![
        ("id", Value::from(id.as_str())),
        ("pv", Value::Int(1)),
        ("area", "0".into()),
        ("instance", Value::Long(instance)),
        ("ls_seq", Value::Long(seq)),
    ];
    let opcode = match kind % 8 {
        0..=2 => {
            let mobile = words::sequence(input.byte());
            body.push(("mobile_seq", Value::Long(mobile)));
            "RA"
        }
        3 => "LSR",
        _ => {
            let count = words::length(input.byte());
            let cost = Value::Long(words::sequence(input.byte()));
            let mut peers: Vec<(Value, Value)> = (0..count)
                .map(|at| (format!("named{n}-{at}").into(), cost.clone()))
                .collect();
            for _ in 0..input.byte() % 4 {
                peers.push((words::id(input.byte(), n).into(), cost.clone()));
            }
            let state = vec![
                ("id".into(), Value::from(id.as_str())),
                ("area".into(), "0".into()),
                ("ls_seq".into(), Value::Long(seq)),
                ("peers".into(), Value::Map(peers)),
            ];
            body.push(("ls", Value::Map(state)));
            "LSU"
        }
    };
    distort(&mut body, n, input);
    control(&origin(id, n, input), &to, opcode, body)
}

/// Who a message claims to be from, beside what its body says.
fn origin(id: String, n: usize, input: &mut Input<'_>) -> String {
    match input.byte() {
        0..=127 => id,
        choice => words::id(choice, n),
    }
}

/// MAU or MAR.
fn addresses(n: usize, input: &mut Input<'_>) -> Vec<u8> {
    let id = words::id(input.byte(), n);
    let to = destination("qdrouter.ma", n, input);
    let (kind, seq) = (input.byte(), words::sequence(input.byte()));
    let mut body = vec![
        ("id", Value::from(id.as_str())),
        ("pv", Value::Int(2)),
        ("area", "0".into()),
        ("mobile_seq", Value::Long(seq)),
        ("have_seq", Value::Long(seq)),
    ];
    let opcode = match kind % 8 {
        0 => "MAR",
        kind => {
            let name = if kind < 4 { "exist" } else { "add" };
            let count = words::length(input.byte());
            let treatment = Value::Int(i32::from(input.byte() % 6));
            let mut keys: Vec<String> = (0..count).map(|at| format!("Mkey{n}-{at}")).collect();
            for _ in 0..input.byte() % 4 {
                let prefix = ["M", "H", "", "L"][usize::from(input.byte()) % 4];
                keys.push(format!("{prefix}{}", words::address(input.byte(), n)));
            }
            let keys = keys.into_iter();
            let described =
                keys.map(|key| Value::List(vec![key.into(), treatment.clone(), Value::Int(0)]));
            body.push((name, Value::List(described.collect())));
            if kind >= 4 {
                let key = format!("M{}", words::address(input.byte(), n));
                body.push(("del", Value::List(vec![Value::List(vec![key.into()])])));
            }
            "MAU"
        }
    };
    distort(&mut body, n, input);
    control(&origin(id, n, input), &to, opcode, body)
}

/// Sometimes replaces a field, or leaves one out.
fn distort(body: &mut Vec<(&str, Value)>, n: usize, input: &mut Input<'_>) {
    let choice = input.byte();
    if choice < 224 {
        return;
    }
    let at = usize::from(choice) % body.len();
    match input.byte() {
        0..=63 => drop(body.remove(at)),
        choice => body[at].1 = words::value(choice, n),
    }
}

/// A message of any kind, to any address, that may say that it comes from elsewhere.
fn anything(n: usize, input: &mut Input<'_>) -> Vec<u8> {
    let to = words::address(input.byte(), n);
    let claims = input.one_in(2).then(|| {
        let origin = format!("0/{}", words::id(input.byte(), n));
        let length = words::length(input.byte()).min(600);
        RouterAnnotations {
            flags: input.byte().into(),
            to_override: input.one_in(3).then(|| words::address(input.byte(), n)),
            ingress: Some(origin.clone()),
            trace: vec![origin; length],
            ingress_mesh: input.one_in(3).then(|| words::address(input.byte(), n)),
            extra: vec![words::value(input.byte(), n)],
        }
    });
    let body = match input.byte() {
        0..=63 => Value::Binary(vec![1; words::length(input.byte())].into()),
        choice => words::value(choice, n),
    };
    words::message(to, claims, body)
}
