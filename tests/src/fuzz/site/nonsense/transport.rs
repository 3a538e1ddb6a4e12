//! Steps that speak AMQP: sessions, links, deliveries, dispositions, and bytes that are no frames.

use super::{
    super::peer::{ANSWERS, Peer},
    Input,
};
use crate::{fuzz::site::words, hostile_peer::stream_head};
use bytes::{Bytes, BytesMut};
use skupperd::{
    amqp::{
        codec, frame,
        message::encode_stream_head,
        performative::{
            DeliveryState, Detach, Disposition, Error, Flow, Open, Performative, Role, Transfer,
        },
        value::{Symbol, Value},
    },
    simulation::SimulatedPort,
};

/// SASL, the protocol header and the open of a connection; sometimes with wrong fields.
pub(super) fn open(peer: &mut Peer, port: SimulatedPort, input: &mut Input<'_>) {
    let choice = input.byte();
    peer.bytes(&frame::SASL_HEADER);
    let mechanism = match port {
        SimulatedPort::Local => "ANONYMOUS",
        _ => "EXTERNAL",
    };
    let mut init = vec![0, 0x53, 0x41, 0xc0, 0, 2];
    codec::symbol(mechanism, &mut init);
    init.extend([0xa0, 0]);
    init[4] = (init.len() - 5) as u8;
    let mut sasl = BytesMut::new();
    frame::put(frame::SASL, 0, &init, &mut sasl);
    peer.bytes(&sasl);
    peer.bytes(&frame::AMQP_HEADER);
    let symbol = |name: &'static str| Value::Symbol(Symbol::from(name));
    let mut open = Open {
        container_id: peer.id.clone(),
        properties: vec![(symbol("qd.annotations-version"), Value::Int(2))],
        ..Open::default()
    };
    // Bits: capabilities of a router of ours, a data connection, wrong fields.
    if choice & 1 != 0 {
        open.offered_capabilities = vec![
            "qd.streaming-links".into(),
            "qd.connection_trunking".into(),
            "io.skupper.native:1".into(),
        ];
        open.desired_capabilities = open.offered_capabilities.clone();
    }
    if choice & 2 != 0 {
        let correlator = format!("group{}", choice >> 6);
        open.properties
            .push((symbol("qd.group-correlator"), correlator.into()));
    }
    if choice & 6 == 6 {
        open.properties
            .push((symbol("qd.inter-router-role"), Value::Int(4)));
    }
    if choice & 8 != 0 {
        let cost = Value::Int(input.number().cast_signed());
        open.properties.push((symbol("qd.inter-router-cost"), cost));
    }
    if choice & 48 == 48 {
        open.max_frame_size = Some(input.number());
        open.channel_max = Some(input.number() as u16);
        open.idle_time_out = Some(input.number());
        let value = words::value(input.byte(), 0);
        open.properties.push((value.clone(), value));
    }
    peer.put(0, &Performative::Open(Box::new(open)), b"");
}

/// A channel with a session, or another.
fn channel(input: &mut Input<'_>) -> u16 {
    match input.byte() {
        choice @ 0..=127 => u16::from(choice % 2),
        choice @ 128..=223 => ANSWERS + u16::from(choice % 12),
        choice => words::number(choice) as u16,
    }
}

fn handle(input: &mut Input<'_>) -> u32 {
    match input.byte() {
        choice @ 0..=191 => u32::from(choice % 8),
        choice => words::number(choice),
    }
}

fn role(input: &mut Input<'_>) -> Role {
    if input.byte().is_multiple_of(2) {
        Role::Sender
    } else {
        Role::Receiver
    }
}

fn error(n: usize, input: &mut Input<'_>) -> Option<Error> {
    let choice = input.byte();
    (choice % 4 == 1).then(|| Error {
        condition: match choice % 8 {
            1 => "io.skupper.link-deleted".into(),
            _ => Symbol::from(words::address(choice / 8, n)),
        },
        description: Some(words::address(input.byte(), n)),
        info: vec![(words::value(choice, n), words::value(choice, n))],
    })
}

pub(super) fn speak(peer: &mut Peer, choice: u8, n: usize, input: &mut Input<'_>) {
    match choice {
        10 => {
            let channel = channel(input);
            let mut begin = words::begin(input.one_in(8).then(|| input.number() as u16));
            if input.one_in(4) {
                begin.next_outgoing_id = input.number();
                begin.incoming_window = input.number();
                begin.handle_max = Some(input.number());
            }
            peer.put(channel, &Performative::Begin(begin), b"");
        }
        11..=13 => attach(peer, n, input),
        14 => flow(peer, input),
        15 => {
            let (channel, handle) = (channel(input), handle(input));
            peer.credit(channel, handle, 100);
        }
        16 | 17 => stream(peer, n, input),
        18 | 19 => {
            let (channel, handle) = (channel(input), handle(input));
            let transfer = Transfer {
                handle,
                more: !input.one_in(4),
                aborted: input.one_in(16),
                ..Transfer::default()
            };
            let payload = vec![0x5a; words::length(input.byte())];
            peer.put(channel, &Performative::Transfer(transfer), &payload);
        }
        20 => transfer(peer, input),
        21 | 22 => disposition(peer, n, input),
        23 => {
            let detach = Detach {
                closed: !input.one_in(3),
                error: error(n, input),
                handle: handle(input),
            };
            let channel = channel(input);
            peer.detach(channel, detach);
        }
        24 => {
            let (channel, error) = (channel(input), error(n, input));
            peer.put(channel, &Performative::End(error), b"");
        }
        25 => {
            let error = error(n, input);
            peer.put(0, &Performative::Close(error), b"");
        }
        26 => raw_frame(peer, input),
        27 => peer.bytes(input.take(255)),
        28 => {
            let choice = input.byte();
            (peer.polite, peer.reads) = (choice & 1 == 0, choice & 6 != 2);
        }
        29 => {
            let at = usize::from(input.byte()) * 256 + usize::from(input.byte());
            peer.corrupt(at, input.byte().max(1));
        }
        _ => peer.frame(channel(input), b""),
    }
}

fn attach(peer: &mut Peer, n: usize, input: &mut Input<'_>) {
    let (channel, handle, role) = (channel(input), handle(input), role(input));
    let choice = input.byte();
    let capability = [
        None,
        None,
        Some("qd.router-data"),
        Some("qd.router"),
        Some("qd.router-edge-downlink"),
    ][usize::from(choice % 5)];
    let address = match choice / 5 % 4 {
        0 => None,
        1 => Some(peer.id.clone()),
        _ => Some(words::address(input.byte(), n)),
    };
    let mut attach = words::attach(handle, role, address, capability);
    if choice >= 200 {
        let wrong = input.byte();
        attach.name = ["", "qdlink.1", "evil.0.Sender"][usize::from(wrong) % 3].to_owned();
        attach.initial_delivery_count = Some(input.number());
        attach.coordinator = wrong & 4 != 0;
        attach.unsettled = Some(words::value(wrong, n));
        attach.max_message_size = Some(input.number().into());
        if let Some(source) = &mut attach.source {
            source.dynamic = wrong & 8 != 0;
            source.filter = Some(words::value(wrong / 2, n));
        }
        if wrong & 16 != 0 {
            attach.target = None;
        }
        if wrong & 32 != 0 {
            attach.source = None;
        }
    }
    peer.attach(channel, attach);
    if role == Role::Receiver {
        peer.credit(channel, handle, 100);
    }
}

fn flow(peer: &mut Peer, input: &mut Input<'_>) {
    let channel = channel(input);
    let flow = Flow {
        next_incoming_id: input.one_in(2).then(|| input.number()),
        incoming_window: input.number(),
        next_outgoing_id: input.number(),
        outgoing_window: input.number(),
        handle: (!input.one_in(4)).then(|| handle(input)),
        delivery_count: input.one_in(2).then(|| input.number()),
        link_credit: input.one_in(2).then(|| input.number()),
        available: None,
        drain: input.one_in(3),
        echo: input.one_in(3),
        rest: Vec::new(),
    };
    peer.put(channel, &Performative::Flow(flow), b"");
}

/// The head of a stream, and how it goes on.
fn stream(peer: &mut Peer, n: usize, input: &mut Input<'_>) {
    let (channel, handle) = (channel(input), handle(input));
    let to = words::address(input.byte(), n);
    let mut head = stream_head(&to, Vec::new());
    head.properties.reply_to = match input.byte() {
        0..=127 => Some(format!("amqp:/_topo/0/{}/temp.1", peer.id)),
        128..=159 => None,
        choice => Some(words::address(choice, n)),
    };
    if input.one_in(3) {
        let origin = format!("0/{}", words::id(input.byte(), n));
        head.annotations.trace = vec![origin.clone(); words::length(input.byte()).min(600)];
        head.annotations.ingress = Some(origin);
        head.annotations.to_override = input.one_in(4).then(|| words::address(input.byte(), n));
        let value = words::value(input.byte(), n);
        head.application_properties = vec![
            ("io.skupper.native".into(), Value::Uint(1)),
            (value.clone(), value),
        ];
    }
    let mut bytes = BytesMut::new();
    encode_stream_head(&head, &mut bytes);
    bytes.extend_from_slice(&vec![0xa5; words::length(input.byte())]);
    let id = peer.delivery();
    let transfer = Transfer {
        handle,
        delivery_id: Some(id),
        delivery_tag: Some(Bytes::copy_from_slice(&id.to_be_bytes())),
        settled: input.one_in(8),
        more: !input.one_in(4),
        ..Transfer::default()
    };
    peer.put(channel, &Performative::Transfer(transfer), &bytes);
}

/// A transfer with fields of its own.
fn transfer(peer: &mut Peer, input: &mut Input<'_>) {
    let channel = channel(input);
    let transfer = Transfer {
        handle: handle(input),
        delivery_id: input.one_in(2).then(|| input.number()),
        delivery_tag: None,
        message_format: Some(input.number()),
        settled: input.one_in(2),
        more: input.one_in(2),
        rcv_settle_mode: Some(input.byte()),
        state: input.one_in(4).then_some(DeliveryState::Accepted),
        resume: input.one_in(4),
        aborted: input.one_in(4),
        batchable: false,
    };
    let payload = input.take(200);
    peer.put(channel, &Performative::Transfer(transfer), payload);
}

fn disposition(peer: &mut Peer, n: usize, input: &mut Input<'_>) {
    let (known, choice) = (peer.site_delivery, input.byte());
    let (channel, first) = match known.filter(|_| choice < 160) {
        Some(delivery) => delivery,
        None => (channel(input), input.number()),
    };
    let state = match input.byte() % 8 {
        0 => None,
        1 => Some(DeliveryState::Accepted),
        2 => Some(DeliveryState::Released),
        3 => Some(DeliveryState::Rejected(error(n, input))),
        4 => Some(DeliveryState::Modified {
            delivery_failed: true,
            undeliverable_here: true,
            annotations: Some(words::value(input.byte(), n)),
        }),
        _ => Some(DeliveryState::Received {
            section_number: input.number(),
            section_offset: u64::from(input.number()) << (input.byte() % 33),
        }),
    };
    let disposition = Disposition {
        role: if choice % 4 == 3 {
            Role::Sender
        } else {
            Role::Receiver
        },
        first,
        last: input.one_in(3).then(|| input.number()),
        settled: input.one_in(2),
        state,
        batchable: false,
    };
    peer.put(channel, &Performative::Disposition(disposition), b"");
}

/// A performative whose fields are bytes of the program.
fn raw_frame(peer: &mut Peer, input: &mut Input<'_>) {
    let channel = channel(input);
    let mut body = vec![0, 0x53, 0x10 + input.byte() % 10];
    let fields = input.take(120);
    match input.byte() % 3 {
        0 => {
            body.extend([0xc0, (fields.len() + 1) as u8, input.byte()]);
        }
        1 => {
            body.push(0xd0);
            body.extend((fields.len() as u32 + 4).to_be_bytes());
            body.extend(input.number().to_be_bytes());
        }
        _ => body.push(input.byte()),
    }
    body.extend_from_slice(fields);
    peer.frame(channel, &body);
}
