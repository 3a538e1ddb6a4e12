use super::{
    rotation::{RotationJournal, ca_params, journal_file},
    *,
};
use crate::{
    pki::{Subject, client_config, ensure_server, issue_client, server_config, template::DAYS},
    store::{PRIVATE, write_file},
};
use rcgen::PKCS_ECDSA_P256_SHA256;
use std::{
    collections::BTreeSet, os::unix::fs::PermissionsExt, sync::Barrier, thread, time::SystemTime,
};

#[test]
fn concurrent_first_users_get_the_same_ca() {
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

/// A handshake in memory; fails if one side refuses the other.
fn handshake(server: &Secret, client: &Secret) -> Result<(), rustls::Error> {
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

fn server_secret(issuer: &Issuer, dir: &Path) -> Secret {
    ensure_server(issuer, dir, "server", &["127.0.0.1".to_owned()], None).unwrap()
}

fn now() -> Rotation {
    Rotation {
        before: Some(Timestamp::now()),
        ..Rotation::default()
    }
}

/// Waits until a CA made before this counts as older than now: certificates have whole seconds.
fn next_second() {
    let second = Timestamp::now().as_second();
    while Timestamp::now().as_second() <= second + 1 {
        thread::yield_now();
    }
}

#[test]
fn both_peers_recognise_each_other_in_the_overlap() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, server) = (dir.path().join("ca"), dir.path().join("server"));
    let first = ensure_issuer(&ca, "ca").unwrap();
    let mut clients = vec![issue_client(&first, Subject::Numbered("a")).unwrap()];
    handshake(&server_secret(&first, &server), &clients[0]).unwrap();
    for name in ["b", "c"] {
        next_second();
        let fresh = rotated_issuer(&ca, "ca", &now()).unwrap();
        clients.push(issue_client(&fresh, Subject::Numbered(name)).unwrap());
        let shown = server_secret(&fresh, &server);
        assert_eq!(shown, server_secret(&fresh, &server), "issued once");
        for client in &clients {
            handshake(&shown, client).unwrap();
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
fn without_an_overlap_the_old_ca_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, server) = (dir.path().join("ca"), dir.path().join("server"));
    let client = issue_client(&ensure_issuer(&ca, "ca").unwrap(), Subject::Numbered("a")).unwrap();
    next_second();
    let at_once = Rotation {
        overlap: Duration::ZERO,
        ..now()
    };
    let fresh = rotated_issuer(&ca, "ca", &at_once).unwrap();
    let shown = server_secret(&fresh, &server);
    handshake(&shown, &client).unwrap_err();
    handshake(
        &shown,
        &issue_client(&fresh, Subject::Numbered("b")).unwrap(),
    )
    .unwrap();
}

#[test]
fn a_rotation_time_counts_once_it_has_come_and_only_for_older_cas() {
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
fn a_crash_during_a_rotation_loses_neither_ca() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, server) = (dir.path().join("ca"), dir.path().join("server"));
    let first = ensure_issuer(&ca, "ca").unwrap();
    let client = issue_client(&first, Subject::Numbered("a")).unwrap();
    begin_rotation(&first, Rotation::default().overlap).unwrap();
    // A crash after some of the files: the new certificate is there, its key is not.
    let step: RotationJournal = read_json(&journal_file(&ca)).unwrap().unwrap();
    write_file(&ca.join("tls.crt"), step.certificate.as_bytes(), PRIVATE).unwrap();
    let fresh = ensure_issuer(&ca, "ca").unwrap();
    assert_eq!(fresh.certificate, step.certificate);
    assert_eq!(fresh.retired[0].certificate, first.certificate);
    assert!(!journal_file(&ca).exists());
    handshake(&server_secret(&fresh, &server), &client).unwrap();
}

/// A CA that was made this much later than the clock says now.
fn ca_from_later(dir: &Path, later: Duration) -> Issuer {
    let mut params = ca_params("ca").unwrap();
    let made = SystemTime::now() + later;
    params.not_before = (made - Duration::from_secs(EARLY.unsigned_abs())).into();
    params.not_after = (made + Duration::from_secs(DAYS.unsigned_abs() * 86_400)).into();
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = params.self_signed(&pair).unwrap().pem();
    let key = Zeroizing::new(pair.serialize_pem());
    save_ca(dir, &certificate, &key).unwrap();
    ensure_issuer(dir, "ca").unwrap()
}

#[test]
fn a_clock_that_is_behind_replaces_nothing_that_remote_sites_trust() {
    for hours in [2, 400 * 24] {
        let dir = tempfile::tempdir().unwrap();
        let (ca, server) = (dir.path().join("ca"), dir.path().join("server"));
        let issuer = ca_from_later(&ca, Duration::from_secs(hours * 3600));
        issue_client(&issuer, Subject::Numbered("a")).unwrap();
        let credentials = server_secret(&issuer, &server);
        let same = rotated_issuer(&ca, "ca", &Rotation::default()).unwrap();
        assert_eq!(same.certificate, issuer.certificate, "{hours} hours");
        assert!(same.is_ahead_of_clock());
        assert_eq!(
            server_secret(&same, &server).certificate,
            credentials.certificate
        );
        // What is signed meanwhile is valid as long as anything else by a clock that is right.
        let (begin, end) = validity(&credentials.certificate).unwrap();
        let (made, ends) = validity(&issuer.certificate).unwrap();
        assert!((begin.as_second() - made.as_second()).abs() < 5);
        assert!((end.as_second() - ends.as_second()).abs() < 5);
    }
}

#[test]
fn a_ca_from_a_clock_ahead_is_replaced_while_nobody_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = ca_from_later(dir.path(), Duration::from_secs(7200));
    let fresh = rotated_issuer(dir.path(), "ca", &Rotation::default()).unwrap();
    assert_ne!(fresh.certificate, issuer.certificate);
    assert!(!fresh.is_ahead_of_clock());
}

#[test]
fn credentials_whose_key_is_another_certificates_are_issued_anew() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = ensure_issuer(&dir.path().join("ca"), "ca").unwrap();
    let (server, other) = (dir.path().join("server"), dir.path().join("other"));
    let client = issue_client(&issuer, Subject::Numbered("a")).unwrap();
    server_secret(&issuer, &server);
    server_secret(&issuer, &other);
    // A crash between the two files; a file that is cut off.
    for key in [
        fs::read(other.join("tls.key")).unwrap(),
        b"-----BEGIN".to_vec(),
    ] {
        fs::write(server.join("tls.key"), key).unwrap();
        handshake(&server_secret(&issuer, &server), &client).unwrap();
    }
    for certificate in [fs::read(other.join("tls.crt")).unwrap(), Vec::new()] {
        fs::write(server.join("tls.crt"), certificate).unwrap();
        handshake(&server_secret(&issuer, &server), &client).unwrap();
    }
}

#[test]
fn a_ca_without_its_key_is_an_error_and_not_another_ca() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    let made = ensure_issuer(&ca, "ca").unwrap();
    fs::remove_file(ca.join("tls.key")).unwrap();
    for refused in [
        ensure_issuer(&ca, "ca"),
        rotated_issuer(&ca, "ca", &Rotation::default()),
    ] {
        let Err(PkiError::KeyLost { name, path }) = refused else {
            panic!("another CA");
        };
        assert_eq!((name.as_str(), path), ("ca", ca.join("tls.key")));
    }
    assert_eq!(
        fs::read_to_string(ca.join("tls.crt")).unwrap(),
        made.certificate
    );
    // A crash between the files of a new CA, which nobody has.
    fs::remove_file(ca.join("tls.crt")).unwrap();
    fs::write(ca.join("tls.key"), "").unwrap();
    let fresh = ensure_issuer(&ca, "ca").unwrap();
    assert_ne!(fresh.certificate, made.certificate);
    issue_client(&fresh, Subject::Numbered("a")).unwrap();
}

#[test]
fn a_ca_that_is_gone_from_the_disk_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    ensure_issuer(&ca, "ca").unwrap();
    let known = rotated_issuer(&ca, "ca", &now()).unwrap();
    assert!(!known.restore_if_lost().unwrap());
    for lost in [
        &["tls.key"][..],
        &["tls.crt"],
        &["tls.crt", "tls.key", "ca.crt", "retired.json"],
    ] {
        for file in lost {
            fs::remove_file(ca.join(file)).unwrap();
        }
        assert!(known.restore_if_lost().unwrap(), "{lost:?}");
        let again = ensure_issuer(&ca, "ca").unwrap();
        assert_eq!(again.certificate, known.certificate);
        assert_eq!((&again.key, again.retired()), (&known.key, known.retired()));
        assert!(!known.restore_if_lost().unwrap());
    }
    // The one on the disk is another's by now.
    let other = ensure_issuer(&dir.path().join("other"), "ca").unwrap();
    fs::write(ca.join("tls.crt"), &other.certificate).unwrap();
    fs::remove_file(ca.join("tls.key")).unwrap();
    assert!(!known.restore_if_lost().unwrap());
}
