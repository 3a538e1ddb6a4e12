//! A connection against captured conversations, against itself, and against hostile peers.

mod hostile;
mod pair;
mod vectors;
mod work;
