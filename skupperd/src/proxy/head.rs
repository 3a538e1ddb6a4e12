//! The head of a stream that begins here.

use crate::{
    amqp::{
        message::{
            FLAG_DISABLE_Q2, FLAG_STREAMING, MessageHead, Properties, RouterAnnotations,
            STREAM_CONTENT_TYPE, encode_stream_head,
        },
        value::Value,
    },
    link::names::NATIVE_END,
    router::Routes,
};
use bytes::{Bytes, BytesMut};

/// Encodes the head of a stream that begins at the router of these routes, with the addresses it goes
/// to and is answered at. `native`: this end acknowledges in small steps. `flow_fields`: this end's
/// part of the flow record, for the other end.
pub(super) fn encode(
    routes: &Routes,
    properties: Properties,
    native: bool,
    flow_fields: Vec<(&'static str, String)>,
) -> Bytes {
    // What an edge sends enters the network at its interior router.
    let own = match &routes.mesh {
        Some(_) => None,
        None => Some(format!("0/{}", routes.self_id)),
    };
    let mut application_properties = vec![(Value::from("V"), Value::Uint(1))];
    if native {
        application_properties.push((Value::from(NATIVE_END), Value::Uint(1)));
    }
    let flow_fields = flow_fields.into_iter();
    application_properties.extend(flow_fields.map(|(k, v)| (Value::from(k), Value::from(v))));
    let head = MessageHead {
        annotations: RouterAnnotations {
            flags: FLAG_STREAMING | FLAG_DISABLE_Q2,
            ingress: own.clone(),
            trace: own.into_iter().collect(),
            ingress_mesh: routes.mesh.as_deref().map(str::to_owned),
            ..RouterAnnotations::default()
        },
        properties: Properties {
            content_type: Some(Value::from(STREAM_CONTENT_TYPE)),
            ..properties
        },
        application_properties,
    };
    let mut bytes = BytesMut::with_capacity(256);
    encode_stream_head(&head, &mut bytes);
    bytes.freeze()
}
