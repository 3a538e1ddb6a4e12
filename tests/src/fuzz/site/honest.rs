//! The honest neighbour: an interior router that keeps to the protocol, with a connector of its own
//! and a client whose streams to the site carry known bytes.
//!
//! It is a task with its own timers, on the simulated clock: while the hostile peer lets time pass, it
//! goes on saying HELLO. [`Report`] says how it fares.

pub(super) mod behind;
mod streams;

use behind::Behind;
use bytes::{Bytes, BytesMut};
use skupperd::{
    amqp::{
        connection::{AttachArgs, Config, Connection, Event, LinkId, SessionId},
        performative::{Role, Source, Target},
        sasl::{EXTERNAL, Sasl},
    },
    router::{self, Output, Router, Treatment},
    sys::clock,
};
use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    time::{Duration, Instant},
};
use streams::Streams;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Id of its router.
pub(super) const ID: &str = "honest";
/// Routing key of its connector.
pub(super) const SERVICE: &str = "honest-service";
/// Its links, as its router knows them: to the site, and to the router behind it.
const LINK: u64 = 1;
const BEHIND: u64 = 2;
/// Interval at which it looks at its streams.
const LOOK: Duration = Duration::from_millis(250);
/// Names of the capabilities of links between routers.
const CONTROL: &str = "qd.router";
pub(super) const DATA: &str = "qd.router-data";
/// Credit of the links that it receives on; that of routers.
const CREDIT: u32 = 250;

/// How the neighbour fares.
#[derive(Default)]
pub(super) struct Report {
    /// Why its connection is over.
    pub(super) ended: Option<String>,
    /// What was wrong with its streams.
    pub(super) faults: Vec<String>,
    /// The routers hear each other.
    pub(super) is_up: bool,
    /// Times that they no longer did.
    pub(super) losses: usize,
    /// Streams of its own whose bytes have come back, in order and to the end.
    pub(super) streams: usize,
    /// Streams of others to its connector.
    pub(super) served: usize,
}

/// The neighbour as the checks see it.
pub(super) struct Honest {
    pub(super) report: Rc<RefCell<Report>>,
    router: Rc<RefCell<Router>>,
}

impl Honest {
    /// Starts the neighbour on this connection to router `site`, whose connector `service` echoes.
    pub(super) fn start(pipe: DuplexStream, site: &'static str, service: &'static str) -> Self {
        let config = router::RouterConfig::new(ID, 7);
        let mut router = Router::new(config, clock::now());
        router.add_consumer(SERVICE, Treatment::Balanced);
        router.add_link(BEHIND, 1, clock::now());
        router.bind_link(BEHIND, behind::ROUTER, BEHIND);
        let this = Self {
            report: Rc::default(),
            router: Rc::new(RefCell::new(router)),
        };
        let (report, router) = (this.report.clone(), this.router.clone());
        tokio::task::spawn_local(async move {
            let task = Task {
                pipe,
                input: BytesMut::new(),
                amqp: Connection::new(config_of_open(), clock::now()),
                router,
                behind: Behind::new(clock::now()),
                report: report.clone(),
                site,
                control_in: None,
                control: None,
                is_linked: false,
                queue: VecDeque::new(),
                message: BytesMut::new(),
                streams: Streams::new(service, report.clone()),
            };
            let reason = task.run().await;
            report.borrow_mut().ended = Some(reason);
        });
        this
    }

    /// Ids of the routers that it reaches.
    pub(super) fn routers(&self) -> Vec<String> {
        let routes = self.router.borrow().routes();
        routes.routers.keys().cloned().collect()
    }

    /// Whether it has a way to the consumers of an address.
    pub(super) fn reaches(&self, address: &str) -> bool {
        let routes = self.router.borrow().routes();
        let route = routes.addresses.get(address);
        route.is_some_and(|route| !route.remotes.is_empty())
    }
}

fn config_of_open() -> Config {
    let mut config = Config::new(ID);
    config.capabilities = vec!["qd.streaming-links".into()];
    config
}

struct Task {
    pipe: DuplexStream,
    input: BytesMut,
    amqp: Connection,
    router: Rc<RefCell<Router>>,
    behind: Behind,
    report: Rc<RefCell<Report>>,
    /// Id of the site's router.
    site: &'static str,
    control_in: Option<LinkId>,
    control: Option<LinkId>,
    /// Control messages can be sent.
    is_linked: bool,
    /// Control messages that wait for credit.
    queue: VecDeque<Bytes>,
    /// What has come of a control message.
    message: BytesMut,
    streams: Streams,
}

impl Task {
    /// Runs until the connection is over. Returns why.
    async fn run(mut self) -> String {
        match self.serve().await {
            Ok(never) => match never {},
            Err(reason) => reason,
        }
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, String> {
        self.authenticate().await?;
        loop {
            self.feed()?;
            let now = clock::now();
            if self.amqp.poll_timeout().is_some_and(|at| at <= now) {
                let alive = self.amqp.handle_timeout(now);
                alive.map_err(|e| format!("the site is silent: {e}"))?;
            }
            self.drive_router(now);
            self.streams.drive(&mut self.amqp, &self.router, now);
            self.flush().await;
            let wake = self.wake(now);
            tokio::select! {
                read = self.pipe.read_buf(&mut self.input) => match read {
                    Ok(0) => return Err("cut off by the site".to_owned()),
                    Ok(_) => {}
                    Err(e) => return Err(format!("reading: {e}")),
                },
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    /// When something is due.
    fn wake(&self, now: Instant) -> Instant {
        let router = self.router.borrow().poll_timeout();
        let routers = router.min(self.behind.poll_timeout());
        let connection = self.amqp.poll_timeout().unwrap_or(routers);
        (now + LOOK).min(routers).min(connection)
    }

    /// Sends what there is to send. Where the site takes nothing any more, it has said why: that is
    /// read next.
    async fn flush(&mut self) {
        let output = self.amqp.output().split();
        if !output.is_empty() && self.pipe.write_all(&output).await.is_ok() {
            self.amqp.note_sent(clock::now());
        }
    }

    async fn authenticate(&mut self) -> Result<(), String> {
        let mut sasl = Sasl::client(&[EXTERNAL]);
        loop {
            let output = sasl.output.split();
            let written = self.pipe.write_all(&output).await;
            written.map_err(|e| format!("writing: {e}"))?;
            if sasl.is_done() {
                return Ok(());
            }
            match self.pipe.read_buf(&mut self.input).await {
                Ok(n) if n > 0 => {}
                _ => return Err("cut off during SASL".to_owned()),
            }
            let taken = sasl.feed(&mut self.input);
            taken.map_err(|e| format!("SASL: {e}"))?;
        }
    }

    fn feed(&mut self) -> Result<(), String> {
        let mut input = self.input.split().freeze();
        let now = clock::now();
        loop {
            let event = self.amqp.receive(&mut input, now);
            match event.map_err(|e| format!("the site breaks the protocol: {e}"))? {
                Some(event) => self.event(event, now)?,
                None => return Ok(()),
            }
        }
    }

    fn event(&mut self, event: Event, now: Instant) -> Result<(), String> {
        match event {
            Event::Open(_) => self.attach_fixed()?,
            Event::Close(error) => {
                let error = error.map_or("no error".to_owned(), |e| e.to_string());
                return Err(format!("closed by the site: {error}"));
            }
            Event::Flow { link, credit, .. } if self.control == Some(link) && credit > 0 => {
                if !std::mem::replace(&mut self.is_linked, true) {
                    let mut router = self.router.borrow_mut();
                    router.add_link(LINK, 1, now);
                    router.bind_link(LINK, self.site, LINK);
                }
            }
            Event::Transfer {
                link,
                payload,
                more,
                ..
            } if self.control_in == Some(link) => {
                self.message.extend_from_slice(&payload);
                if !more {
                    let message = self.message.split();
                    // What the hostile peer has others told may be no message.
                    let taken = self
                        .router
                        .borrow_mut()
                        .receive_control(LINK, &message, now);
                    drop(taken);
                }
            }
            Event::Detach { link, error, .. } if self.fixed(link) => {
                return Err(format!("control link detached by the site: {error:?}"));
            }
            event => self.streams.event(event, &mut self.amqp),
        }
        Ok(())
    }

    fn fixed(&self, link: LinkId) -> bool {
        self.control == Some(link) || self.control_in == Some(link)
    }

    /// Attaches what a dialling router does: control links on the first session, message links of ten
    /// priorities on ten more, and the links of its own streams.
    fn attach_fixed(&mut self) -> Result<(), String> {
        for priority in 0..=10 {
            let session = self.amqp.begin().map_err(|e| e.to_string())?;
            let capability = if priority == 0 { CONTROL } else { DATA };
            let receives = self.attach(session, capability, Role::Receiver)?;
            let sends = self.attach(session, capability, Role::Sender)?;
            if priority == 0 {
                (self.control_in, self.control) = (Some(receives), Some(sends));
            }
        }
        let session = self.amqp.begin().map_err(|e| e.to_string())?;
        let link = self.attach(session, DATA, Role::Sender)?;
        self.streams.set_link(link);
        Ok(())
    }

    fn attach(
        &mut self,
        session: SessionId,
        capability: &'static str,
        role: Role,
    ) -> Result<LinkId, String> {
        let name = format!("honest.{}", self.amqp.link_count());
        let args = AttachArgs {
            name,
            role,
            source: Source {
                capabilities: vec![capability.into()],
                ..Source::default()
            },
            target: Target {
                capabilities: vec![capability.into()],
                ..Target::default()
            },
            credit: if role == Role::Receiver { CREDIT } else { 0 },
        };
        self.amqp.attach(session, args).map_err(|e| e.to_string())
    }

    /// Lets the router do what is due, and sends what it wants sent.
    fn drive_router(&mut self, now: Instant) {
        let mut router = self.router.borrow_mut();
        if router.poll_timeout() <= now {
            router.handle_timeout(now);
        }
        let report = &mut *self.report.borrow_mut();
        let mut is_quiet = false;
        while !is_quiet {
            while let Some(output) = router.poll_output() {
                match output {
                    Output::Control {
                        link: BEHIND,
                        message,
                    } => self.behind.receive(&message, now),
                    Output::Control { message, .. } => self.queue.push_back(message),
                    Output::NeighbourUp { link: LINK, .. } => report.is_up = true,
                    Output::NeighbourLost { .. } => {
                        report.is_up = false;
                        report.losses += 1;
                    }
                    _ => {}
                }
            }
            is_quiet = true;
            while let Some(message) = self.behind.poll(now) {
                is_quiet = false;
                drop(router.receive_control(BEHIND, &message, now));
            }
        }
        while let (Some(link), Some(message)) = (self.control, self.queue.front()) {
            if self.amqp.send_message(link, message, true).is_err() {
                // The site gives credit again.
                break;
            }
            self.queue.pop_front();
        }
    }
}
