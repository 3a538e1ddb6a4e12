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

impl GrantStore {
    /// Sets the grants and saves them.
    fn set(
        &self,
        wanted: BTreeMap<Name, AccessGrant>,
        now: Timestamp,
        new_id: impl FnMut() -> String,
    ) -> Result<(), GrantStoreError> {
        self.set_grants(wanted);
        self.save(now, new_id)
    }
}

/// A store with one grant: name g, id 1.
fn store(dir: &std::path::Path, grant: AccessGrant) -> GrantStore {
    let store = GrantStore::open(dir.join("grants.json")).unwrap();
    let issuer = pki::ensure_issuer(&dir.join("ca"), "ca").unwrap();
    store.set_offer(LinkOffer {
        endpoints: vec![Endpoint {
            role: Role::InterRouter,
            host: Host::new("192.0.2.1").unwrap(),
            port: 55671,
            group: String::new(),
        }],
        authority: None,
        hosts: ["hub.example".to_owned()].into(),
        issuers: BTreeMap::from([(None, issuer)]),
    });
    let wanted = BTreeMap::from([(name("g"), grant)]);
    store.set(wanted, at(0), || "1".to_owned()).unwrap();
    store
}

fn code(store: &GrantStore) -> String {
    store.info(&name("g")).unwrap().code.reveal().to_owned()
}

fn documents(answer: Result<Redemption, Refusal>) -> Result<String, Refusal> {
    answer.map(|redeemed| redeemed.documents)
}

#[test]
fn a_grant_allows_its_number_of_redemptions_each_with_its_own_key() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), grant(3));
    let code = code(&store);
    assert_eq!(code.len(), 24);
    let ask = || documents(store.redeem("1", code.as_bytes(), None, None, at(1)));
    let answers: Vec<String> = (0..3).map(|_| ask().unwrap()).collect();
    assert_eq!(ask(), Err(Refusal::UsedUp));
    assert!(answers[0] != answers[1] && answers[1] != answers[2]);
    assert_eq!(store.info(&name("g")).unwrap().redemptions, 3);
}

#[test]
fn a_wrong_code_counts_no_redemption() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), grant(1));
    for wrong in ["", "x", "000000000000000000000000"] {
        let answer = documents(store.redeem("1", wrong.as_bytes(), None, None, at(1)));
        assert_eq!(answer, Err(Refusal::WrongCode));
    }
    assert_eq!(store.info(&name("g")).unwrap().redemptions, 0);
}

#[test]
fn a_subject_is_a_name_that_is_not_one_of_the_site() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), grant(9));
    let code = code(&store);
    let ask = |subject| store.redeem("1", code.as_bytes(), None, Some(subject), at(1));
    for bad in ["x\",kind=\"Site\"} 1 #", "a b", "A", "a\n", "hub.example"] {
        assert_eq!(ask(bad).map(drop), Err(Refusal::Subject), "{bad:?}");
    }
    assert_eq!(ask("west").unwrap().subject, "west");
    assert_eq!(ask("west").unwrap().subject, "west-2");
    assert_eq!(store.info(&name("g")).unwrap().redemptions, 2);
}

#[test]
fn expired_and_removed_grants_are_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), grant(9));
    let code = code(&store);
    let ask =
        |store: &GrantStore, id, now| documents(store.redeem(id, code.as_bytes(), None, None, now));
    assert!(ask(&store, "1", at(59)).is_ok());
    assert_eq!(ask(&store, "1", at(60)), Err(Refusal::Unknown));
    assert_eq!(ask(&store, "2", at(1)), Err(Refusal::Unknown));
    store.set(BTreeMap::new(), at(2), String::new).unwrap();
    assert_eq!(ask(&store, "1", at(2)), Err(Refusal::Unknown));
}

#[test]
fn counts_and_codes_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = store(dir.path(), grant(2));
    let code = code(&first);
    first
        .redeem("1", code.as_bytes(), None, None, at(1))
        .unwrap();
    drop(first);
    let reopened = store(dir.path(), grant(2));
    let info = reopened.info(&name("g")).unwrap();
    assert_eq!((info.redemptions, info.code.reveal()), (1, &*code));
    assert_eq!(info.expires, at(60));
    documents(reopened.redeem("1", code.as_bytes(), None, None, at(1))).unwrap();
    assert_eq!(
        documents(reopened.redeem("1", code.as_bytes(), None, None, at(1))),
        Err(Refusal::UsedUp)
    );
}

#[test]
fn the_code_and_issuer_of_the_resource_are_used() {
    let dir = tempfile::tempdir().unwrap();
    let mut wanted = grant(1);
    wanted.code = Some(Code::new("open-sesame"));
    wanted.issuer = Some(name("other"));
    let mut store = store(dir.path(), wanted);
    // Without its issuer no other one is used, and nothing is counted.
    let answer = documents(store.redeem("1", b"open-sesame", None, None, at(1)));
    assert_eq!(answer, Err(Refusal::NoIssuer));
    let other = pki::ensure_issuer(&dir.path().join("other"), "other").unwrap();
    let ca = other.certificate().to_owned();
    store
        .state
        .get_mut()
        .offer
        .issuers
        .insert(Some(name("other")), other);
    let text =
        documents(store.redeem("1", b"open-sesame", Some(name("mine")), Some("east"), at(1)))
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

#[test]
fn an_unrecorded_redemption_is_refused_and_a_failed_one_is_not_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path(), grant(1));
    let code = code(&store);
    let endpoints = std::mem::take(&mut store.state.get_mut().offer.endpoints);
    let answer = documents(store.redeem("1", code.as_bytes(), None, None, at(1)));
    assert_eq!(answer, Err(Refusal::NoEndpoints));
    store.state.get_mut().offer.endpoints = endpoints;
    // A directory in place of the file: it cannot be written.
    let path = std::mem::replace(&mut store.path, dir.path().join("ca"));
    let answer = documents(store.redeem("1", code.as_bytes(), None, None, at(1)));
    assert_eq!(answer, Err(Refusal::Internal));
    store.path = path;
    assert_eq!(store.info(&name("g")).unwrap().redemptions, 0);
    assert!(documents(store.redeem("1", code.as_bytes(), None, None, at(1))).is_ok());
}

#[test]
fn a_grant_that_cannot_be_written_is_offered_when_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path(), grant(1));
    let path = std::mem::replace(&mut store.path, dir.path().join("ca"));
    let wanted = BTreeMap::from([(name("g"), grant(1)), (name("new"), grant(1))]);
    // As often as it is tried, nobody gets a code that a restart would forget.
    for _ in 0..2 {
        let refused = store.set(wanted.clone(), at(1), || "2".to_owned());
        assert!(matches!(
            refused,
            Err(GrantStoreError::File { op: "write", .. })
        ));
        assert!(store.info(&name("new")).is_none());
    }
    store.path.clone_from(&path);
    store.set(wanted.clone(), at(2), || "3".to_owned()).unwrap();
    let code = store.info(&name("new")).unwrap().code;
    // The next process knows it.
    let next = GrantStore::open(path).unwrap();
    next.set_offer(store.state.get_mut().offer.clone());
    next.set(wanted, at(3), || "4".to_owned()).unwrap();
    let redeemed = next.redeem("3", code.reveal().as_bytes(), None, None, at(3));
    assert_eq!(redeemed.unwrap().grant, name("new"));
}

#[test]
fn a_later_version_of_the_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("grants.json");
    std::fs::write(&path, r#"{"version": 2, "grants": {}}"#).unwrap();
    let error = GrantStore::open(path).err().unwrap().to_string();
    assert!(
        error.ends_with("has version 2; this program supports up to 1: upgrade it"),
        "{error}"
    );
}

#[test]
fn a_grant_waits_for_the_disk_and_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), grant(1));
    let (code, now) = (code(&store), at(1));
    // Somebody writes, and the disk stalls.
    let turn = store.turn.lock();
    let wanted = [(name("g"), grant(1)), (name("new"), grant(1))];
    store.set_grants(wanted.into());
    assert!(!store.is_saved());
    assert!(store.info(&name("g")).is_some() && store.info(&name("new")).is_none());
    assert_eq!(store.check("1", code.as_bytes(), now), Ok(()));
    assert_eq!(store.check("1", b"x", now), Err(Refusal::WrongCode));
    store.set_grants(BTreeMap::from([(name("new"), grant(1))]));
    assert_eq!(
        store.check("1", code.as_bytes(), now),
        Err(Refusal::Unknown)
    );
    drop(turn);
    store.save(now, || "2".to_owned()).unwrap();
    assert!(store.is_saved() && store.info(&name("g")).is_none());
    let code = store.info(&name("new")).unwrap().code;
    assert_eq!(store.check("2", code.reveal().as_bytes(), now), Ok(()));
}
