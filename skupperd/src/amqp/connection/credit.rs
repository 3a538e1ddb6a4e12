//! Flow control: credit of links and windows of sessions.

use super::{
    Connection,
    event::{ConnectionError, Event, LinkId, SessionId},
    state::Session,
};
use crate::amqp::performative::{Flow, Performative, Role};

impl Connection {
    /// Deliveries that may be started on a sending link.
    pub fn credit(&self, link: LinkId) -> u32 {
        self.link(link).map_or(0, |l| l.credit)
    }

    /// Transfer frames that the link's session may send. After 0, `Event::Window` follows once there
    /// is room again.
    pub fn window(&mut self, link: LinkId) -> u32 {
        let Some(channel) = self.link(link).map(|l| l.session) else {
            return 0;
        };
        let Some(session) = self.session_mut(channel) else {
            return 0;
        };
        session.window_awaited |= session.remote_window == 0;
        session.remote_window
    }

    /// Gives credit on a receiving link, once; 0 takes back what was not used.
    pub fn flow(&mut self, link: LinkId, credit: u32) {
        if let Some(state) = self.link_mut(link).filter(|l| l.role == Role::Receiver) {
            state.credit = credit;
            self.put_link_flow(link, false);
        }
    }

    /// Answers a drain: gives back the credit that is left.
    pub fn drained(&mut self, link: LinkId) {
        if let Some(state) = self.link_mut(link).filter(|l| l.role == Role::Sender) {
            state.delivery_count = state.delivery_count.wrapping_add(state.credit);
            state.credit = 0;
            self.put_link_flow(link, true);
        }
    }

    /// Tops the credit of a receiving link up once half of it is used.
    pub(super) fn top_up(&mut self, link: LinkId, force: bool) {
        let Some(state) = self.link_mut(link) else {
            return;
        };
        if state.role == Role::Receiver
            && state.credit_target > 0
            && !state.detached
            && (force || state.credit <= state.credit_target / 2)
        {
            state.credit = state.credit_target;
            self.put_link_flow(link, false);
        }
    }

    fn put_link_flow(&mut self, link: LinkId, drain: bool) {
        let Some(state) = self.link(link) else { return };
        let (channel, handle) = (state.session, state.handle);
        let (count, credit) = (state.delivery_count, state.credit);
        let Some(session) = self.session_mut(channel) else {
            return;
        };
        let flow = Flow {
            handle: Some(handle),
            delivery_count: Some(count),
            link_credit: Some(credit),
            drain,
            ..session.flow()
        };
        self.put(channel, &Performative::Flow(flow));
    }

    pub(super) fn on_flow(
        &mut self,
        remote: u16,
        flow: &Flow,
    ) -> Result<Option<Event>, ConnectionError> {
        let channel = self.local_channel(remote)?;
        let Some(session) = self.session_mut(channel) else {
            return Ok(None);
        };
        if session.update_window(flow) {
            self.events.push_back(Event::Window {
                session: SessionId(channel),
            });
        }
        let Some(handle) = flow.handle else {
            if flow.echo
                && let Some(answer) = self.session_mut(channel).map(Session::flow)
            {
                self.put(channel, &Performative::Flow(answer));
            }
            return Ok(None);
        };
        let link = self.link_by_handle(channel, handle)?;
        let event = self.update_credit(link, flow);
        if flow.echo {
            self.put_link_flow(link, false);
        }
        Ok(event)
    }

    /// Takes a link's state from the peer's flow.
    fn update_credit(&mut self, link: LinkId, flow: &Flow) -> Option<Event> {
        let state = self.link_mut(link)?;
        match state.role {
            Role::Sender => {
                // Counted from the deliveries that the receiver knew of (part 2.6.7).
                let known = flow.delivery_count.unwrap_or(0);
                let on_the_way = state.delivery_count.wrapping_sub(known);
                let credit = flow.link_credit?.saturating_sub(on_the_way);
                state.credit = credit;
                Some(Event::Flow {
                    link,
                    credit,
                    drain: flow.drain,
                })
            }
            Role::Receiver => {
                // The sender gives credit back after a drain.
                let count = flow.delivery_count?;
                let given_back = count.wrapping_sub(state.delivery_count);
                if given_back > 0 && given_back <= state.credit {
                    state.delivery_count = count;
                    state.credit -= given_back;
                }
                None
            }
        }
    }
}
