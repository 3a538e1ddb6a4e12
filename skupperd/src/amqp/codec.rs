//! Encoding and decoding of AMQP values (OASIS AMQP 1.0 part 1.6), bounded against hostile input.

mod decode;
mod encode;
mod fields;
mod list;

pub use decode::{DecodeError, Reader};
pub use encode::{encode, string, symbol, uint, ulong};
pub use fields::ListFields;
pub use list::List;
