//! Records between two sessions whose handshake rustls did over a real socket.

use super::*;
use crate::{
    link::{tls, wire::Wire},
    pki,
};
use std::{collections::VecDeque, future::poll_fn};
use tokio::net::{TcpListener, TcpStream};

/// Two ends of one connection, each with its session.
async fn pair() -> (Wire, Wire) {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = pki::ensure_issuer(&dir.path().join("ca"), "ca").expect("a CA");
    let hosts = ["127.0.0.1".to_owned()];
    let server = pki::ensure_server(&ca, &dir.path().join("s"), "s", &hosts, None).expect("issued");
    let client = pki::issue_client(&ca, pki::Subject::Numbered("c")).expect("issued");
    let server = pki::server_config("s", &server).expect("usable");
    let client = pki::client_config("c", &client).expect("usable");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("its address");
    let accept = async {
        let (socket, _) = listener.accept().await.expect("accepted");
        tls::accept(socket, server).await.expect("handshake")
    };
    let connect = async {
        let socket = TcpStream::connect(addr).await.expect("connected");
        let name = "127.0.0.1".try_into().expect("a name");
        tls::connect(socket, client, name).await.expect("handshake")
    };
    let (a, b) = tokio::join!(connect, accept);
    (
        Wire::attach(a.parts).expect("attached"),
        Wire::attach(b.parts).expect("attached"),
    )
}

/// Sends from one end and receives as much at the other.
async fn carry(from: &mut Wire, to: &mut Wire, bytes: &[u8]) -> Vec<u8> {
    let mut got = Vec::new();
    let mut chunks = VecDeque::new();
    for part in bytes.chunks(100_000) {
        from.out().put(part);
        let mut sent = false;
        let goal = got.len() + part.len();
        poll_fn(|cx| {
            if !sent && from.poll_flush(cx).map(|r| r.expect("sent")).is_ready() {
                sent = true;
            }
            loop {
                match to.poll_recv(cx, &mut chunks) {
                    std::task::Poll::Ready(result) => {
                        result.expect("received");
                        chunks.drain(..).for_each(|c| got.extend_from_slice(&c));
                    }
                    std::task::Poll::Pending => {
                        let done = sent && got.len() >= goal;
                        return if done {
                            std::task::Poll::Ready(())
                        } else {
                            std::task::Poll::Pending
                        };
                    }
                }
                if sent && got.len() >= goal {
                    return std::task::Poll::Ready(());
                }
            }
        })
        .await;
    }
    got
}

fn noise(n: usize) -> Vec<u8> {
    (0..n)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

#[tokio::test]
async fn bytes_survive_both_ways() {
    let (mut a, mut b) = pair().await;
    let text = noise(3_000_000);
    assert_eq!(carry(&mut a, &mut b, &text).await, text);
    assert_eq!(carry(&mut b, &mut a, &text).await, text);
}

#[tokio::test]
async fn key_updates_go_unnoticed() {
    let (mut a, mut b) = pair().await;
    for n in 0..6 {
        a.session_for_test().force_update();
        if n % 2 == 0 {
            b.session_for_test().force_update();
        }
        let text = noise(50_000 + n);
        assert_eq!(carry(&mut a, &mut b, &text).await, text);
        assert_eq!(carry(&mut b, &mut a, &text).await, text);
    }
}

#[tokio::test]
async fn a_changed_bit_is_forged_and_a_record_is_taken_once() {
    let (mut a, mut b) = pair().await;
    let (a, b) = (a.session_for_test(), b.session_for_test());
    let sealed = |session: &mut RecordLayer| {
        let mut record = vec![0; HEAD];
        record.extend_from_slice(b"hello");
        record.resize(HEAD + 5 + TAIL, 0);
        session.seal(&mut record, APPLICATION).expect("sealed");
        record
    };
    let good = sealed(a);
    let mut first = good.clone();
    let opened = b.open(&mut first).expect("opened").expect("whole");
    assert_eq!(opened, (good.len(), RecordContent::Data(HEAD..HEAD + 5)));
    assert_eq!(&first[HEAD..HEAD + 5], b"hello");
    // The same record again is not the next one.
    assert!(matches!(
        b.open(&mut good.clone()),
        Err(RecordError::Forged(1))
    ));
    let mut bad = sealed(a);
    bad[HEAD + 2] ^= 1;
    assert!(matches!(b.open(&mut bad), Err(RecordError::Forged(_))));
}

#[tokio::test]
async fn partial_and_forged_records_are_detected() {
    let (_a, mut b) = pair().await;
    let b = b.session_for_test();
    assert!(b.open(&mut []).expect("nothing").is_none());
    assert!(b.open(&mut [23, 3, 3, 0]).expect("a part").is_none());
    assert!(
        b.open(&mut [23, 3, 3, 0, 30, 1, 2])
            .expect("a part")
            .is_none()
    );
    assert!(matches!(
        b.open(&mut [23, 3, 3, 0xff, 0xff]),
        Err(RecordError::TooLong(65_535))
    ));
    assert!(matches!(
        b.open(&mut b"GET / HTTP".to_vec()),
        Err(RecordError::NotTls(b'G'))
    ));
    assert!(matches!(
        b.open(&mut [21, 3, 3, 0, 2, 2, 40]),
        Err(RecordError::Alert(40))
    ));
    // Compatibility records mean nothing.
    let ccs = b
        .open(&mut [20, 3, 3, 0, 1, 1])
        .expect("taken")
        .expect("whole");
    assert_eq!(ccs, (6, RecordContent::Nothing));
}
