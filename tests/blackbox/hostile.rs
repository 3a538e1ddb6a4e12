//! What somebody with a foothold may not do: an issuer of tokens, the owner of a namespace.
//! Each test fails on the tree before its fault was mended.

mod issuers;
mod peers;
mod tenants;
mod tokens;
