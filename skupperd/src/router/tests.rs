//! Many routers in one process, on simulated time.

mod edges;
mod hostile;
mod impostors;
mod network;
mod properties;
mod scale;
mod scenarios;
mod vectors;
