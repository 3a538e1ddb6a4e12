use super::*;
use crate::pki::{client_config, ensure_server, issue_client, server_config};
use std::{
    collections::BTreeSet,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Barrier},
    thread,
};

#[test]
fn all_who_need_a_ca_first_get_the_same_one() {
    let dir = tempfile::tempdir().unwrap();
    let together = Barrier::new(8);
    let certificates: BTreeSet<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    together.wait();
                    ensure_issuer(&dir.path().join("ca"), "ca")
                        .unwrap()
                        .certificate
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(certificates.len(), 1);
}

/// Both sides of a handshake in memory: whether it comes to an end.
fn meet(server: &Secret, client: &Secret) -> Result<(), rustls::Error> {
    let name = "127.0.0.1".try_into().unwrap();
    let config = client_config("client", client).unwrap();
    let mut client = rustls::ClientConnection::new(config, name).unwrap();
    let mut server =
        rustls::ServerConnection::new(server_config("server", server).unwrap()).unwrap();
    for _ in 0..8 {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        client.write_tls(&mut there).unwrap();
        server.read_tls(&mut there.as_slice()).unwrap();
        server.process_new_packets()?;
        server.write_tls(&mut back).unwrap();
        client.read_tls(&mut back.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

fn served(issuer: &Issuer, dir: &Path) -> Secret {
    ensure_server(issuer, dir, "server", &["127.0.0.1".to_owned()], None).unwrap()
}

fn now() -> Rotation {
    Rotation {
        before: Some(Timestamp::now()),
        ..Rotation::default()
    }
}

/// Waits until a CA made by now counts as made before now: certificates know whole seconds.
fn next_second() {
    let second = Timestamp::now().as_second();
    while Timestamp::now().as_second() <= second + 1 {
        thread::yield_now();
    }
}

#[test]
fn l30_both_ends_recognise_each_other_in_the_overlap() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, server) = (dir.path().join("ca"), dir.path().join("server"));
    let first = ensure_issuer(&ca, "ca").unwrap();
    let mut clients = vec![issue_client(&first, "a").unwrap()];
    meet(&served(&first, &server), &clients[0]).unwrap();
    for name in ["b", "c"] {
        next_second();
        let fresh = rotated_issuer(&ca, "ca", &now()).unwrap();
        clients.push(issue_client(&fresh, name).unwrap());
        let shown = served(&fresh, &server);
        assert_eq!(shown, served(&fresh, &server), "issued once");
        for client in &clients {
            meet(&shown, client).unwrap();
        }
    }
    let second = rotated_issuer(&ca, "ca", &Rotation::default()).unwrap();
    assert_eq!(second.retired.len(), 2, "nothing asks for another one");
    for file in ["tls.key", "retired.json"] {
        let mode = fs::metadata(ca.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let old = KeyPair::from_pem(&first.key).unwrap().serialize_pem();
    for file in fs::read_dir(&ca).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains(old.trim()), "the old key is gone");
    }
}

#[test]
fn l30_without_an_overlap_the_old_ones_are_strangers() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, server) = (dir.path().join("ca"), dir.path().join("server"));
    let client = issue_client(&ensure_issuer(&ca, "ca").unwrap(), "a").unwrap();
    next_second();
    let at_once = Rotation {
        overlap: Duration::ZERO,
        ..now()
    };
    let fresh = rotated_issuer(&ca, "ca", &at_once).unwrap();
    let shown = served(&fresh, &server);
    meet(&shown, &client).unwrap_err();
    meet(&shown, &issue_client(&fresh, "b").unwrap()).unwrap();
}

#[test]
fn a_time_ahead_waits_and_a_time_before_it_was_made_asks_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let made = ensure_issuer(dir.path(), "ca").unwrap();
    for offset in [-7200, 3600] {
        let before = Timestamp::now() + jiff::SignedDuration::from_secs(offset);
        let rotation = Rotation {
            before: Some(before),
            ..Rotation::default()
        };
        let same = rotated_issuer(dir.path(), "ca", &rotation).unwrap();
        assert_eq!(same.certificate, made.certificate);
    }
}

#[test]
fn a_crash_in_the_middle_loses_neither_ca() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, server) = (dir.path().join("ca"), dir.path().join("server"));
    let first = ensure_issuer(&ca, "ca").unwrap();
    let client = issue_client(&first, "a").unwrap();
    replace(&first, OVERLAP).unwrap();
    // Cut after some of the files: the new certificate is there, its key is not.
    let step: Step = read_json(&journal(&ca)).unwrap().unwrap();
    write_file(&ca.join("tls.crt"), step.certificate.as_bytes(), PRIVATE).unwrap();
    let fresh = ensure_issuer(&ca, "ca").unwrap();
    assert_eq!(fresh.certificate, step.certificate);
    assert_eq!(fresh.retired[0].certificate, first.certificate);
    assert!(!journal(&ca).exists());
    meet(&served(&fresh, &server), &client).unwrap();
    // Nor does one before the very first key was written.
    let half = dir.path().join("half");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("tls.crt"), "cut").unwrap();
    let whole = Arc::new(ensure_issuer(&half, "ca").unwrap());
    issue_client(&whole, "a").unwrap();
}
