//! The origin of a client, as native ends send it to each other, and as a server gets it by
//! the PROXY protocol of HAProxy (<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>).

pub use crate::model::ProxyProtocol;
use std::net::{IpAddr, SocketAddr};

/// Application property of a stream's head with the address of the client and the one that it
/// connected to, apart by a blank. It is there only where a connector of the routing key asks for it.
pub const ORIGIN: &str = "io.skupper.origin";
/// Prefix of the address that announces a connector of a routing key that needs [`ORIGIN`]; nothing
/// is sent to it.
pub const ORIGIN_ADVERT: &str = "skupper-origin/";
/// Application property of a stream's head with the protocol that the listener has agreed on with the
/// client (ALPN), as in skupper-router.
pub const ALPN: &str = "alpn";

/// What begins a header of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// A client's address, and the one that it connected to; both of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub client: SocketAddr,
    pub listener: SocketAddr,
}

impl Origin {
    /// Of a client's socket. None where it has no such addresses.
    pub fn of(socket: &std::net::TcpStream) -> Option<Self> {
        let plain = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
        Some(Self {
            client: plain(socket.peer_addr().ok()?),
            listener: plain(socket.local_addr().ok()?),
        })
    }

    /// Reads what [`Self::to_string`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (client, listener) = text.split_once(' ')?;
        let origin = Self {
            client: client.parse().ok()?,
            listener: listener.parse().ok()?,
        };
        (origin.client.is_ipv4() == origin.listener.is_ipv4()).then_some(origin)
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.client, self.listener)
    }
}

/// The PROXY protocol header with the addresses of the client. Without an origin: `UNKNOWN` in
/// version 1, `LOCAL` in version 2.
pub fn header(version: ProxyProtocol, origin: Option<&Origin>) -> Vec<u8> {
    match version {
        ProxyProtocol::V1 => match origin {
            Some(Origin { client, listener }) => {
                let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
                format!(
                    "PROXY {family} {} {} {} {}\r\n",
                    client.ip(),
                    listener.ip(),
                    client.port(),
                    listener.port()
                )
                .into_bytes()
            }
            None => b"PROXY UNKNOWN\r\n".to_vec(),
        },
        ProxyProtocol::V2 => binary(origin),
    }
}

fn binary(origin: Option<&Origin>) -> Vec<u8> {
    // Version 2 with the command PROXY or LOCAL; address family with the transport, here a stream.
    const PROXY: u8 = 0x21;
    const LOCAL: u8 = 0x20;
    const TCP4: u8 = 0x11;
    const TCP6: u8 = 0x21;
    let mut addresses = Vec::with_capacity(36);
    let (command, family) = match origin {
        None => (LOCAL, 0),
        Some(Origin { client, listener }) => {
            for ip in [client.ip(), listener.ip()] {
                match ip {
                    IpAddr::V4(ip) => addresses.extend(ip.octets()),
                    IpAddr::V6(ip) => addresses.extend(ip.octets()),
                }
            }
            addresses.extend(client.port().to_be_bytes());
            addresses.extend(listener.port().to_be_bytes());
            (PROXY, if client.is_ipv4() { TCP4 } else { TCP6 })
        }
    };
    let mut header = SIGNATURE.to_vec();
    header.extend([command, family]);
    header.extend((addresses.len() as u16).to_be_bytes());
    header.extend(addresses);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(client: &str, listener: &str) -> Origin {
        Origin {
            client: client.parse().unwrap(),
            listener: listener.parse().unwrap(),
        }
    }

    #[test]
    fn proxy_headers_follow_the_protocol() {
        let four = origin("10.0.0.1:1000", "10.0.0.2:80");
        let six = origin("[2001:db8::1]:1000", "[::2]:80");
        let text = |o: Option<&Origin>| String::from_utf8(header(ProxyProtocol::V1, o)).unwrap();
        assert_eq!(
            text(Some(&four)),
            "PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\n"
        );
        assert_eq!(text(Some(&six)), "PROXY TCP6 2001:db8::1 ::2 1000 80\r\n");
        assert_eq!(text(None), "PROXY UNKNOWN\r\n");
        let mut expected = SIGNATURE.to_vec();
        expected.extend([
            0x21, 0x11, 0, 12, 10, 0, 0, 1, 10, 0, 0, 2, 0x03, 0xe8, 0, 80,
        ]);
        assert_eq!(header(ProxyProtocol::V2, Some(&four)), expected);
        let bytes = header(ProxyProtocol::V2, Some(&six));
        assert_eq!(
            (bytes.len(), &bytes[12..16]),
            (16 + 36, &[0x21, 0x21, 0, 36][..])
        );
        let bytes = header(ProxyProtocol::V2, None);
        assert_eq!((bytes.len(), &bytes[12..]), (16, &[0x20, 0, 0, 0][..]));
    }

    #[test]
    fn an_origin_is_read_as_it_was_written() {
        for o in [
            origin("10.0.0.1:1000", "10.0.0.2:80"),
            origin("[fe80::1]:1", "[::1]:2"),
        ] {
            assert_eq!(Origin::parse(&o.to_string()), Some(o));
        }
        for bad in [
            "",
            "a b",
            "1.1.1.1:1",
            "1.1.1.1:1 ",
            "1.1.1.1:1 [::1]:2",
            "1.1.1.1:1 1.1.1.1:2 x",
        ] {
            assert_eq!(Origin::parse(bad), None, "{bad}");
        }
    }
}
