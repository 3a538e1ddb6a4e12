//! Hostile input and hostile users: bytes, peers, issuers of tokens, owners of a namespace. Each test
//! failed before its fault was corrected.

mod decoders;
mod issuers;
mod link_port;
mod peers;
mod tenants;
mod tokens;
