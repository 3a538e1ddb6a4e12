//! What hostile peers send: heads of streams, messages of routers.

use bytes::BytesMut;
use skupperd::amqp::{
    message::{Body, Message, MessageHead, Properties, RouterAnnotations, encode_stream_head},
    value::Value,
};

/// An entry of a map whose keys are symbols.
pub fn symbol(name: &'static str, value: Value) -> (Value, Value) {
    (Value::Symbol(name.into()), value)
}

/// The head of a stream to an address, with these application properties.
pub fn stream_head(to: &str, properties: Vec<(Value, Value)>) -> MessageHead {
    MessageHead {
        annotations: RouterAnnotations {
            flags: 5,
            ..RouterAnnotations::default()
        },
        properties: Properties {
            to: Some(to.to_owned()),
            reply_to: Some("amqp:/_topo/0/nobody/temp.000000000000000".to_owned()),
            content_type: Some("application/octet-stream".into()),
            ..Properties::default()
        },
        application_properties: properties,
    }
}

/// The bytes that a stream begins with.
pub fn stream(to: &str, properties: Vec<(Value, Value)>) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode_stream_head(&stream_head(to, properties), &mut out);
    out.to_vec()
}

/// A message as bytes.
pub fn encoded(message: &Message) -> Vec<u8> {
    let mut out = BytesMut::new();
    message.encode(&mut out);
    out.to_vec()
}

/// A control message of a router: `from` is its id, `to` the address, `body` the map.
pub fn control(from: &str, to: &str, opcode: &str, body: Vec<(&str, Value)>) -> Vec<u8> {
    let own = format!("0/{from}");
    let body = body.into_iter().map(|(name, value)| (name.into(), value));
    encoded(&Message {
        annotations: Some(RouterAnnotations {
            ingress: Some(own.clone()),
            trace: vec![own],
            ..RouterAnnotations::default()
        }),
        properties: Some(Properties {
            to: Some(to.to_owned()),
            ..Properties::default()
        }),
        application_properties: vec![("opcode".into(), opcode.into())],
        body: Body::Value(Value::Map(body.collect())),
        ..Message::default()
    })
}
