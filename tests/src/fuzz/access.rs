//! The two ends of a redemption, each with a stranger at the other: octets over a stream that is no
//! socket.

use super::heap;
use skupperd::{
    access::{Desk, Offer, Window, redeem_over},
    model::{AccessGrant, AccessToken, Code, Name, Namespace, Spec},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::Notify,
};

/// A connection: buffers of both directions, and tables for headers.
const BASE: usize = 1024 * 1024;
/// An answer is kept whole, as its documents and as resources.
const EACH: usize = 1024;

/// The only grant there is.
const ID: &str = "1";
/// Its code.
const CODE: &str = "abcdefghijklmnopqrstuvwx";

/// A desk with one grant, and nothing to offer for it: so that the right code writes no file.
static DESK: LazyLock<Arc<Mutex<Desk>>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    let mut desk = Desk::open(dir.path().join("grants.json")).expect("a desk");
    desk.offer(Offer {
        endpoints: Vec::new(),
        authority: None,
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
    desk.set(wanted, now, || ID.to_owned()).expect("a grant");
    Arc::new(Mutex::new(desk))
});

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// Runs to the end what never waits: a stream that ends is all there is to wait for.
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

/// Says all it has to say, listens, and hangs up.
async fn ask(mut stream: DuplexStream, what: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    // Whoever has heard enough hangs up.
    drop(stream.write_all(what).await);
    // To be found hanging up before the answer is there would be to get none. It takes a few turns.
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
    drop(stream.shutdown().await);
    drop(stream.read_to_end(&mut answer).await);
    answer
}

/// What a stranger sends to the grant server. Tells the first line of the answer.
pub fn request(data: &[u8]) -> String {
    let desk = DESK.clone();
    heap::bounded(data.len(), BASE, EACH, || {
        let window = Window::new(desk, Arc::new(Notify::new()));
        let peer = SocketAddr::from(([192, 0, 2, 1], 1));
        let (stream, stranger) = tokio::io::duplex(4096);
        // What is no HTTP may end in an error or in a refusal.
        let both = async { tokio::join!(window.hear(stream, peer), ask(stranger, data)) };
        let (_, answer) = run(both);
        let seen = DESK.lock().expect("the desk").seen(&name("g"));
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

/// Hears something, then says all it has to say.
async fn say(mut stream: DuplexStream, what: &[u8]) {
    let mut heard = [0; 4096];
    let heard = stream.read(&mut heard).await;
    assert!(heard.is_ok_and(|n| n > 0), "there was no request");
    // Whoever has heard enough hangs up.
    if stream.write_all(what).await.is_ok() {
        drop(stream.shutdown().await);
    }
}

/// What comes back when a token is redeemed. Tells the kinds of what was taken, or why not.
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
