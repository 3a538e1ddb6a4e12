//! AMQP 1.0, sans-I/O: values, frames, messages and the state machine of a connection.
//!
//! Nothing here reads a clock or a socket. What the router protocol adds to AMQP is in
//! [`message`] (router annotations, heads of TCP streams); everything else is the standard.

#[cfg(test)]
pub(crate) mod captured;
pub mod codec;
pub mod connection;
#[cfg(test)]
pub(crate) mod cpu_time;
pub mod frame;
pub mod message;
pub mod performative;
pub mod sasl;
pub mod value;
