//! What a hostile peer speaks over: TCP, or TLS with a certificate.

use crate::tls::TlsConnection;
use std::{
    io::{Read, Write},
    net::TcpStream,
};

pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsConnection>),
}

impl Transport {
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    pub(super) fn both(&mut self) -> &mut dyn ReadWrite {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.as_mut(),
        }
    }
}

pub(super) trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}
