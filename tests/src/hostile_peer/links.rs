//! Sessions, links and deliveries of a hostile peer.

use super::{CONTROL, HostilePeer};
use bytes::Bytes;
use skupperd::amqp::{
    performative::{
        Attach, Begin, Disposition, Flow, Performative, Role, Source, Target, Transfer,
    },
    value::Symbol,
};

impl HostilePeer {
    pub fn begin(&mut self, channel: u16) {
        let begin = Begin {
            incoming_window: 1 << 20,
            outgoing_window: 1 << 20,
            ..Begin::default()
        };
        self.put(channel, &Performative::Begin(begin), b"");
    }

    /// A link that this peer sends on. Without an address it is for streams and for any message.
    pub fn sender(&mut self, channel: u16, handle: u32, address: Option<&str>) {
        self.attach(channel, handle, Role::Sender, address, None);
    }

    /// A link that this peer receives on, with credit.
    pub fn receiver(&mut self, channel: u16, handle: u32, address: &str) {
        self.attach(channel, handle, Role::Receiver, Some(address), None);
        self.credit(channel, handle, 1000);
    }

    pub fn attach(
        &mut self,
        channel: u16,
        handle: u32,
        role: Role,
        address: Option<&str>,
        capability: Option<&'static str>,
    ) {
        let capabilities: Vec<Symbol> = capability.map(Symbol::from).into_iter().collect();
        let address = address.map(str::to_owned);
        let (to, from) = match role {
            Role::Sender => (address, None),
            Role::Receiver => (None, address),
        };
        let attach = Attach {
            name: format!("link-{channel}-{handle}"),
            handle,
            role,
            source: Some(Source {
                address: from,
                capabilities: capabilities.clone(),
                ..Source::default()
            }),
            target: Some(Target {
                address: to,
                capabilities,
                ..Target::default()
            }),
            initial_delivery_count: (role == Role::Sender).then_some(0),
            ..Attach::default()
        };
        self.put(channel, &Performative::Attach(Box::new(attach)), b"");
    }

    /// The control links of an interior site, with credit: handles 0 (to the site) and 1 on channel 0.
    pub fn control_links(&mut self) {
        self.begin(0);
        self.attach(0, 0, Role::Sender, None, Some(CONTROL));
        self.attach(0, 1, Role::Receiver, None, Some(CONTROL));
        self.credit(0, 1, 10_000);
        self.flush().expect("sent");
        self.wait_credit();
    }

    pub fn credit(&mut self, channel: u16, handle: u32, credit: u32) {
        let flow = Flow {
            next_incoming_id: Some(0),
            incoming_window: 1 << 20,
            next_outgoing_id: 0,
            outgoing_window: 1 << 20,
            handle: Some(handle),
            delivery_count: Some(0),
            link_credit: Some(credit),
            ..Flow::default()
        };
        self.put(channel, &Performative::Flow(flow), b"");
    }

    /// Waits until the site gives credit on a link.
    pub fn wait_credit(&mut self) {
        self.wait("credit", |frame| match &frame.performative {
            Some(Performative::Flow(flow)) => flow.link_credit.filter(|credit| *credit > 0),
            _ => None,
        });
    }

    /// Puts a transfer of a delivery that may go on.
    pub fn transfer(&mut self, channel: u16, handle: u32, payload: &[u8], more: bool) {
        let transfer = Transfer {
            handle,
            delivery_id: Some(self.next_delivery),
            delivery_tag: Some(Bytes::copy_from_slice(&self.next_delivery.to_be_bytes())),
            message_format: Some(0),
            more,
            ..Transfer::default()
        };
        self.next_delivery += 1;
        self.put(channel, &Performative::Transfer(transfer), payload);
    }

    /// Puts the begin of a delivery in frames of at most `piece` bytes, after which it goes on.
    pub fn parts(&mut self, channel: u16, handle: u32, payload: &[u8], piece: usize) {
        let mut pieces = payload.chunks(piece);
        self.transfer(channel, handle, pieces.next().unwrap_or_default(), true);
        for piece in pieces {
            self.more(channel, handle, piece);
        }
    }

    /// Puts one frame more of the delivery that is under way on a link.
    pub fn more(&mut self, channel: u16, handle: u32, payload: &[u8]) {
        let transfer = Transfer {
            handle,
            more: true,
            ..Transfer::default()
        };
        self.put(channel, &Performative::Transfer(transfer), payload);
    }

    /// Puts the end of the delivery that is under way on a link.
    pub fn finish(&mut self, channel: u16, handle: u32) {
        let transfer = Transfer {
            handle,
            ..Transfer::default()
        };
        self.put(channel, &Performative::Transfer(transfer), b"");
    }

    /// Puts a complete message in frames of at most `piece` bytes.
    pub fn split_message(&mut self, channel: u16, handle: u32, message: &[u8], piece: usize) {
        self.parts(channel, handle, message, piece);
        self.finish(channel, handle);
    }

    /// Puts a complete delivery that is settled.
    pub fn message(&mut self, channel: u16, handle: u32, message: &[u8]) {
        let transfer = Transfer {
            handle,
            delivery_id: Some(self.next_delivery),
            delivery_tag: Some(Bytes::copy_from_slice(&self.next_delivery.to_be_bytes())),
            message_format: Some(0),
            settled: true,
            ..Transfer::default()
        };
        self.next_delivery += 1;
        self.put(channel, &Performative::Transfer(transfer), message);
    }

    /// Waits until the site says how a delivery of ours fared.
    pub fn wait_outcome(&mut self) -> Disposition {
        self.wait("outcome", |frame| match &frame.performative {
            Some(Performative::Disposition(disposition)) => Some(disposition.clone()),
            _ => None,
        })
    }
}
