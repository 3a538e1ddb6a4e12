//! The two ends of a redemption, each with a hostile peer, over an in-memory stream.

use super::heap;
use skupperd::{
    access::{GrantHandler, GrantStore, LinkOffer, SharedGrantStore, redeem_over},
    model::{AccessGrant, AccessToken, Code, Name, Namespace, Spec},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::Notify,
};

/// Memory of a connection: buffers of both directions, and header tables.
const BASE: usize = 1024 * 1024;
/// Per input byte: the answer is kept whole, as documents and as resources.
const EACH: usize = 1024;

const ID: &str = "1";
const CODE: &str = "abcdefghijklmnopqrstuvwx";

/// A store with one grant that issues no link, so that the right code writes no file.
static STORE: LazyLock<SharedGrantStore> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    let store = GrantStore::open(dir.path().join("grants.json")).expect("a store");
    store.set_offer(LinkOffer {
        endpoints: Vec::new(),
        authority: None,
        hosts: ["hub.example".to_owned()].into(),
        issuers: BTreeMap::new(),
    });
    let grant = AccessGrant {
        redemptions_allowed: 1,
        expiration_window: Duration::from_secs(24 * 3600),
        code: Some(Code::new(CODE)),
        issuer: None,
        settings: BTreeMap::new(),
    };
    let wanted = BTreeMap::from([(name("g"), grant)]);
    let now = jiff::Timestamp::now();
    store.set_grants(wanted);
    store.save(now, || ID.to_owned()).expect("a grant");
    store.shared()
});

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// Runs a future that waits for nothing but its stream.
fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let most = Duration::from_secs(5);
        let done = tokio::time::timeout(most, future).await;
        done.expect("it waits for what can not come")
    })
}

/// A client that sends everything, reads, and closes.
async fn ask(mut stream: DuplexStream, what: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    // The peer may close the stream early.
    drop(stream.write_all(what).await);
    // Closing before the server has answered would suppress the answer, so let it run for a few
    // turns.
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
    drop(stream.shutdown().await);
    drop(stream.read_to_end(&mut answer).await);
    answer
}

/// A request to the grant server. Returns the first line of the answer.
pub fn request(data: &[u8]) -> String {
    let store = STORE.clone();
    heap::bounded(data.len(), BASE, EACH, || {
        let handler = GrantHandler::new(store, Arc::new(Notify::new()));
        let peer = SocketAddr::from(([192, 0, 2, 1], 1));
        let (stream, stranger) = tokio::io::duplex(4096);
        // Invalid HTTP ends in an error or in a refusal.
        let both = async { tokio::join!(handler.handle(stream, peer), ask(stranger, data)) };
        let (_, answer) = run(both);
        let seen = STORE.info(&name("g"));
        assert_eq!(seen.expect("the grant").redemptions, 0);
        if answer.is_empty() {
            return String::new();
        }
        let text = String::from_utf8(answer).expect("text");
        assert!(text.starts_with("HTTP/1."), "{text:?}");
        assert!(!text.contains(CODE), "the code is told: {text:?}");
        text.lines().next().unwrap_or_default().to_owned()
    })
}

/// A server that reads a part of the request, then sends everything.
async fn say(mut stream: DuplexStream, what: &[u8]) {
    let mut heard = [0; 4096];
    let heard = stream.read(&mut heard).await;
    assert!(heard.is_ok_and(|n| n > 0), "there was no request");
    // The peer may close the stream early.
    if stream.write_all(what).await.is_ok() {
        drop(stream.shutdown().await);
    }
}

/// An answer to a redemption. Returns the kinds that were accepted, or the error.
pub fn answer(data: &[u8]) -> String {
    heap::bounded(data.len(), BASE, EACH, || {
        let token = AccessToken {
            url: "https://192.0.2.1:9090/1".to_owned(),
            code: Code::new(CODE),
            ca: String::new(),
            link_cost: 7,
            settings: BTreeMap::new(),
        };
        let (link, namespace) = (name("t"), Namespace::default_namespace());
        let (stream, stranger) = tokio::io::duplex(4096);
        let both = async {
            let redeem = redeem_over(stream, &token, &link, "us", &namespace);
            tokio::join!(redeem, say(stranger, data)).0
        };
        match run(both) {
            Ok(taken) => {
                for located in &taken {
                    assert!(located.resource.name().starts_with("t"));
                    if let Spec::Link(link) = &located.resource.spec {
                        assert_eq!(link.cost, 7);
                    }
                }
                let kinds = taken.iter().map(|l| l.resource.kind().as_str());
                kinds.collect::<Vec<_>>().join(" ")
            }
            Err(e) => {
                let text = e.to_string();
                assert!(text.len() < 4096, "{text:?}");
                assert!(!text.contains(CODE), "the code is told: {text:?}");
                text
            }
        }
    })
}
