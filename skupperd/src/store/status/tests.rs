use super::*;
use crate::{
    manifest::parse,
    model::{ConditionType, ListenerDetails, State},
    store::Layout,
};
use std::os::unix::fs::MetadataExt;

struct Space {
    _root: tempfile::TempDir,
    dir: NamespaceDir,
}

impl Space {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = Layout::root(root.path()).namespace(&Namespace::default_namespace());
        Self { _root: root, dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.runtime_resources().join(name)
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_750_000_000 + seconds).unwrap()
}

fn document(text: &str) -> (Key, Value) {
    let located = parse(Path::new("f"), text.as_bytes(), None)
        .remove(0)
        .unwrap();
    (located.key(), (*located.document).clone())
}

fn listener() -> (Key, Value) {
    document(
        "apiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata: {name: a}\nspec: {routingKey: k, \
         host: h, port: 1}\n",
    )
}

fn draft(matched: bool) -> Draft {
    Draft::new(Kind::Listener, false)
        .with(ConditionType::Configured, State::True)
        .with(
            ConditionType::Matched,
            State::when(matched, "No matching connectors"),
        )
        .details(ListenerDetails {
            has_matching_connector: matched,
            ..ListenerDetails::default()
        })
}

#[test]
fn resource_with_status_as_upstream_writes_it() {
    let space = Space::new();
    let (key, document) = listener();
    let mut dir = StatusDir::open(&space.dir).unwrap();
    assert!(dir.write(&key, document, draft(false), at(0)).unwrap());
    let path = space.file("Listener-a.yaml");
    insta::assert_snapshot!(fs::read_to_string(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    let read = space.dir.statuses(Kind::Listener).unwrap();
    assert_eq!(read["a"]["status"]["hasMatchingConnector"], false);
    assert!(space.dir.statuses(Kind::Connector).unwrap().is_empty());
}

#[test]
fn written_only_when_changed() {
    let space = Space::new();
    let (key, document) = listener();
    let mut dir = StatusDir::open(&space.dir).unwrap();
    assert!(
        dir.write(&key, document.clone(), draft(false), at(0))
            .unwrap()
    );
    assert!(
        !dir.write(&key, document.clone(), draft(false), at(1))
            .unwrap()
    );
    // After a restart too.
    let mut dir = StatusDir::open(&space.dir).unwrap();
    assert!(
        !dir.write(&key, document.clone(), draft(false), at(2))
            .unwrap()
    );
    assert!(
        dir.write(&key, document.clone(), draft(true), at(3))
            .unwrap()
    );
    let status = &space.dir.statuses(Kind::Listener).unwrap()["a"]["status"];
    let since: Vec<&str> = ["/conditions/0", "/conditions/1"]
        .iter()
        .map(|c| {
            status
                .pointer(&format!("{c}/lastTransitionTime"))
                .unwrap()
                .as_str()
                .unwrap()
        })
        .collect();
    assert_eq!(since, [at(0).to_string(), at(3).to_string()]);
    // Somebody has taken it away.
    fs::remove_file(space.file("Listener-a.yaml")).unwrap();
    assert!(dir.write(&key, document, draft(true), at(4)).unwrap());
}

#[test]
fn files_of_what_is_gone_go() {
    let space = Space::new();
    let (key, document) = listener();
    let mut dir = StatusDir::open(&space.dir).unwrap();
    dir.write(&key, document, draft(false), at(0)).unwrap();
    fs::write(
        space.file("ConfigMap-skupper-network-status.yaml"),
        "theirs",
    )
    .unwrap();
    fs::write(space.file("Link-broken.yaml"), "\u{0}[").unwrap();
    // Left from before a restart, and not even to be read.
    let mut dir = StatusDir::open(&space.dir).unwrap();
    dir.retain(&BTreeSet::from([key.clone()])).unwrap();
    assert!(space.file("Listener-a.yaml").exists() && !space.file("Link-broken.yaml").exists());
    fs::remove_file(space.file("Listener-a.yaml")).unwrap();
    dir.retain(&BTreeSet::new()).unwrap();
    assert!(space.file("ConfigMap-skupper-network-status.yaml").exists());
}

#[test]
fn l20_nothing_secret_is_written() {
    let space = Space::new();
    let secret = "LS0tLS1CRUdJTiBTRUNSRVQtLS0tLQ==";
    let text = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\ndata:\n  tls.key: {secret}\n  password: \
         aGlkZGVu\n  ca.crt: LS0tLS1CRUdJTiBYLS0tLS0=\n"
    );
    let (key, _) = document(&text);
    // Even when the document is whole.
    let whole: Value = serde_yaml::from_str(&text).unwrap();
    let mut dir = StatusDir::open(&space.dir).unwrap();
    let draft = Draft::new(Kind::Secret, false).with(ConditionType::Configured, State::True);
    dir.write(&key, whole, draft, at(0)).unwrap();
    let path = space.file("Secret-s.yaml");
    let written = fs::read_to_string(&path).unwrap();
    assert!(
        !written.contains(secret) && !written.contains("aGlkZGVu"),
        "{written}"
    );
    assert!(
        written.contains("ca.crt") && written.contains("status: Ready"),
        "{written}"
    );
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_directory_that_can_not_be_made_is_named() {
    let space = Space::new();
    let state = space.dir.runtime_resources();
    let above = state.parent().unwrap().parent().unwrap();
    fs::create_dir_all(above.parent().unwrap()).unwrap();
    fs::write(above, "a file").unwrap();
    let (key, document) = listener();
    let mut dir = StatusDir {
        dir: state,
        written: BTreeMap::new(),
    };
    let error = dir.write(&key, document, draft(false), at(0)).unwrap_err();
    assert!(
        error.to_string().starts_with("writing ") && error.to_string().ends_with("Listener-a.yaml")
    );
}
