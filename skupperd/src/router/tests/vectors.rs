//! Control messages of skupper-routers: all decode, and our encoding has the same values in the same
//! types.

use crate::{
    amqp::{
        captured::{is_header, load, performative},
        message::{Body, Message},
        performative::Performative,
        value::Value,
    },
    router::control::Control,
};
use std::collections::BTreeMap;

/// Every whole control message of the capture, with its location.
fn messages() -> Vec<(String, Message)> {
    let frames = load("interior-control.txt");
    let whole = frames.iter().filter(|c| !is_header(c) && c.whole());
    let messages = whole.filter_map(|captured| {
        let (_, Performative::Transfer(_), payload) = performative(captured)? else {
            return None;
        };
        let message = Message::decode(&captured.bytes[payload..]).ok()?;
        let control =
            matches!(&message.application_properties[..], [(k, _)] if k.as_str() == Some("opcode"));
        control.then(|| (captured.location(), message))
    });
    messages.collect()
}

fn body(message: &Message) -> BTreeMap<String, Value> {
    let Body::Value(Value::Map(entries)) = &message.body else {
        panic!("{message:?} has no map");
    };
    let entry = |(k, v): &(Value, Value)| (k.as_str().expect("a name").to_owned(), sorted(v));
    entries.iter().map(entry).collect()
}

/// Without the order of a map's entries, which means nothing.
fn sorted(value: &Value) -> Value {
    let Value::Map(entries) = value else {
        return value.clone();
    };
    let mut entries: Vec<_> = entries
        .iter()
        .map(|(k, v)| (k.clone(), sorted(v)))
        .collect();
    entries.sort_by(|(a, _), (b, _)| a.as_str().cmp(&b.as_str()));
    Value::Map(entries)
}

#[test]
fn control_messages_of_skupper_router_are_understood_and_written_alike() {
    let mut seen = BTreeMap::<String, usize>::new();
    for (location, message) in messages() {
        let control = Control::decode(&message).unwrap_or_else(|e| panic!("{location}: {e}"));
        let encoded = control.encode(control.id(), "_topo/0/all/qdrouter".to_owned());
        let again = Message::decode(&encoded).expect("our own encoding");
        assert_eq!(body(&again), body(&message), "{location}");
        *seen
            .entry(
                format!("{control:?}")
                    .split(' ')
                    .next()
                    .expect("a name")
                    .to_owned(),
            )
            .or_default() += 1;
    }
    let kinds: Vec<&str> = seen.keys().map(String::as_str).collect();
    assert_eq!(
        kinds,
        ["Hello", "Lsr", "Lsu", "Mar", "MauDelta", "MauFull", "Ra"]
    );
}

#[test]
fn deleted_addresses_are_read_in_either_form() {
    let (_, mut message) = messages()
        .into_iter()
        .find(|(_, m)| {
            body(m)
                .get("del")
                .and_then(Value::as_list)
                .is_some_and(|d| !d.is_empty())
        })
        .expect("a capture with deletions");
    let Ok(Control::MauDelta { add, del, .. }) = Control::decode(&message) else {
        panic!("{message:?}");
    };
    assert_eq!(add, []);
    assert_eq!(del.len(), 10);
    assert_eq!(del[0], "Mmc/sfe.all");
    let Body::Value(Value::Map(entries)) = &mut message.body else {
        panic!("{message:?}");
    };
    for (_, v) in entries
        .iter_mut()
        .filter(|(k, _)| k.as_str() == Some("del"))
    {
        *v = Value::List(del.iter().cloned().map(Value::String).collect());
    }
    let Ok(Control::MauDelta { del: bare, .. }) = Control::decode(&message) else {
        panic!("{message:?}");
    };
    assert_eq!(bare, del);
}
