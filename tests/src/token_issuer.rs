//! An issuer of tokens that answers redemptions with whatever it likes.

use crate::{echo::Server, pki, tls::Pair};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{ServerConnection, StreamOwned};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A connection of somebody who redeems a token.
pub type IssuerStream = StreamOwned<ServerConnection, TcpStream>;

/// What a redemption brings.
pub struct IssuerAnswer {
    /// The CA in its Secret.
    pub ca: String,
    /// The certificate and key in its Secret.
    pub credentials: Pair,
    /// `spec.settings` of its Link, in flow style.
    pub settings: String,
    /// Where its Link leads.
    pub endpoint: SocketAddr,
    /// Documents after it.
    pub more: String,
}

/// A grant server under the control of somebody else.
pub struct TokenIssuer {
    server: Server,
    ca: String,
    requests: Arc<AtomicUsize>,
}

impl TokenIssuer {
    /// Answers every redemption of a token of this name.
    pub fn start(name: &str, answer: &IssuerAnswer) -> Self {
        let body = documents(name, answer);
        Self::answering(move |stream| {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            // The client may be gone; the test looks at what it has made of the answer.
            stream.write_all(head.as_bytes()).ok();
            stream.write_all(body.as_bytes()).ok();
        })
    }

    /// Answers every request with what `answer` writes.
    pub fn answering(answer: impl Fn(&mut IssuerStream) + Send + Sync + 'static) -> Self {
        let ca = pki::ca("issuer of tokens");
        let own = pki::server(&ca, &["127.0.0.1"]);
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        let server = crate::tls::serve(crate::free_addr(), &own, move |mut stream| {
            read_request(&mut stream);
            count.fetch_add(1, Ordering::SeqCst);
            answer(&mut stream);
            // As above.
            stream.flush().ok();
        });
        Self {
            server,
            ca: ca.0,
            requests,
        }
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Writes the token that leads here.
    pub fn token(&self, dir: &Path, name: &str) -> PathBuf {
        let text = serde_json::json!({
            "apiVersion": "skupper.io/v2alpha1",
            "kind": "AccessToken",
            "metadata": {"name": name},
            "spec": {"url": format!("https://{}/1", self.server.addr), "code": "code", "ca": self.ca},
        });
        let file = dir.join(format!("AccessToken-{name}.yaml"));
        std::fs::write(&file, text.to_string()).expect("a token");
        file
    }
}

/// Reads a request with its body.
fn read_request(stream: &mut impl Read) {
    let (mut bytes, mut buf) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut buf) {
        bytes.extend_from_slice(&buf[..n]);
        let text = String::from_utf8_lossy(&bytes);
        if text
            .split_once("\r\n\r\n")
            .is_some_and(|(_, body)| body == "code")
        {
            return;
        }
    }
}

fn documents(name: &str, answer: &IssuerAnswer) -> String {
    let encode = |text: &str| STANDARD.encode(text);
    let (certificate, key) = &answer.credentials;
    let (host, port) = (answer.endpoint.ip(), answer.endpoint.port());
    format!(
        "---\napiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: {name}}}\n\
         data: {{ca.crt: {}, tls.crt: {}, tls.key: {}}}\n\
         ---\napiVersion: skupper.io/v2alpha1\nkind: Link\nmetadata: {{name: {name}}}\n\
         spec: {{tlsCredentials: {name}, settings: {}, endpoints: \
         [{{name: inter-router, host: \"{host}\", port: \"{port}\"}}]}}\n{}",
        encode(&answer.ca),
        encode(certificate),
        encode(key),
        answer.settings,
        answer.more,
    )
}
