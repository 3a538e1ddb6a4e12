//! Many routers in one process, on simulated time.

mod network;
mod properties;
mod scenarios;
mod vectors;
