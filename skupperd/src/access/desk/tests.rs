use super::*;
use crate::model::{Host, Role, Spec};
use std::time::Duration;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn grant(allowed: u32) -> AccessGrant {
    AccessGrant {
        redemptions_allowed: allowed,
        expiration_window: Duration::from_secs(60),
        code: None,
        issuer: None,
        settings: BTreeMap::new(),
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

/// A desk with one grant, named g, of id 1.
fn desk(dir: &std::path::Path, grant: AccessGrant) -> Desk {
    let mut desk = Desk::open(dir.join("grants.json")).unwrap();
    let issuer = pki::ensure_issuer(&dir.join("ca"), "ca").unwrap();
    desk.offer(Offer {
        endpoints: vec![Endpoint {
            role: Role::InterRouter,
            host: Host::new("192.0.2.1").unwrap(),
            port: 55671,
            group: String::new(),
        }],
        authority: None,
        issuers: BTreeMap::from([(None, issuer)]),
    });
    let wanted = BTreeMap::from([(name("g"), grant)]);
    desk.set(wanted, at(0), || "1".to_owned()).unwrap();
    desk
}

fn code(desk: &Desk) -> String {
    desk.seen(&name("g")).unwrap().code.reveal().to_owned()
}

fn documents(answer: Result<Redeemed, Refusal>) -> Result<String, Refusal> {
    answer.map(|redeemed| redeemed.documents)
}

#[test]
fn t5_t6_a_grant_is_good_for_its_number_of_redemptions() {
    let dir = tempfile::tempdir().unwrap();
    let mut desk = desk(dir.path(), grant(3));
    let code = code(&desk);
    assert_eq!(code.len(), 24);
    let mut ask = || documents(desk.redeem("1", code.as_bytes(), None, None, at(1)));
    let answers: Vec<String> = (0..3).map(|_| ask().unwrap()).collect();
    assert_eq!(ask(), Err(Refusal::UsedUp));
    // T19: each has a key of its own.
    assert!(answers[0] != answers[1] && answers[1] != answers[2]);
    assert_eq!(desk.seen(&name("g")).unwrap().redemptions, 3);
}

#[test]
fn t8_a_wrong_code_counts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut desk = desk(dir.path(), grant(1));
    for wrong in ["", "x", "000000000000000000000000"] {
        let answer = documents(desk.redeem("1", wrong.as_bytes(), None, None, at(1)));
        assert_eq!(answer, Err(Refusal::WrongCode));
    }
    assert_eq!(desk.seen(&name("g")).unwrap().redemptions, 0);
}

#[test]
fn t7_t15_grants_that_are_over_or_gone_are_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let mut desk = desk(dir.path(), grant(9));
    let code = code(&desk);
    let ask =
        |desk: &mut Desk, id, now| documents(desk.redeem(id, code.as_bytes(), None, None, now));
    assert!(ask(&mut desk, "1", at(59)).is_ok());
    assert_eq!(ask(&mut desk, "1", at(60)), Err(Refusal::Unknown));
    assert_eq!(ask(&mut desk, "2", at(1)), Err(Refusal::Unknown));
    desk.set(BTreeMap::new(), at(2), String::new).unwrap();
    assert_eq!(ask(&mut desk, "1", at(2)), Err(Refusal::Unknown));
}

#[test]
fn counts_and_codes_survive_a_restart_and_a_second_look() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = desk(dir.path(), grant(2));
    let code = code(&first);
    first
        .redeem("1", code.as_bytes(), None, None, at(1))
        .unwrap();
    drop(first);
    let mut again = desk(dir.path(), grant(2));
    let seen = again.seen(&name("g")).unwrap();
    assert_eq!((seen.redemptions, seen.code.reveal()), (1, &*code));
    assert_eq!(seen.expires, at(60));
    documents(again.redeem("1", code.as_bytes(), None, None, at(1))).unwrap();
    assert_eq!(
        documents(again.redeem("1", code.as_bytes(), None, None, at(1))),
        Err(Refusal::UsedUp)
    );
}

#[test]
fn t18_own_code_and_issuer_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let mut wanted = grant(1);
    wanted.code = Some(Code::new("open-sesame"));
    wanted.issuer = Some(name("other"));
    let mut desk = desk(dir.path(), wanted);
    // Its issuer is not there: nothing else is used in its place, and nothing is counted.
    let answer = documents(desk.redeem("1", b"open-sesame", None, None, at(1)));
    assert_eq!(answer, Err(Refusal::NoIssuer));
    let other = pki::ensure_issuer(&dir.path().join("other"), "other").unwrap();
    let ca = other.certificate().to_owned();
    desk.offer.issuers.insert(Some(name("other")), other);
    let text = documents(desk.redeem("1", b"open-sesame", Some(name("mine")), Some("east"), at(1)))
        .unwrap();
    let documents = crate::manifest::parse(std::path::Path::new("-"), text.as_bytes(), None);
    let resources: Vec<_> = documents.into_iter().map(|d| d.unwrap().resource).collect();
    let [secret, link] = &resources[..] else {
        panic!("{resources:?}");
    };
    let Spec::Secret(credentials) = &secret.spec else {
        panic!("{secret:?}");
    };
    assert_eq!(
        (secret.name().as_str(), link.name().as_str()),
        ("mine", "mine")
    );
    assert_eq!(credentials.ca, ca);
}

/// T20.
#[test]
fn t20_what_can_not_be_recorded_is_not_given_and_what_fails_is_not_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut desk = desk(dir.path(), grant(1));
    let code = code(&desk);
    let endpoints = std::mem::take(&mut desk.offer.endpoints);
    let answer = documents(desk.redeem("1", code.as_bytes(), None, None, at(1)));
    assert_eq!(answer, Err(Refusal::NoEndpoints));
    desk.offer.endpoints = endpoints;
    // A directory where the file should be: it can not be written.
    let path = std::mem::replace(&mut desk.path, dir.path().join("ca"));
    let answer = documents(desk.redeem("1", code.as_bytes(), None, None, at(1)));
    assert_eq!(answer, Err(Refusal::Internal));
    desk.path = path;
    assert_eq!(desk.seen(&name("g")).unwrap().redemptions, 0);
    assert!(documents(desk.redeem("1", code.as_bytes(), None, None, at(1))).is_ok());
}

#[test]
fn a_later_version_of_the_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("grants.json");
    std::fs::write(&path, r#"{"version": 2, "grants": {}}"#).unwrap();
    let error = Desk::open(path).err().unwrap().to_string();
    assert!(
        error.ends_with("is of version 2, and this program knows 1"),
        "{error}"
    );
}
