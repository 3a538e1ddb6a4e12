use super::*;
use crate::{
    manifest::parse,
    model::{ConditionState, ConditionType},
    store::test_namespace::TestNamespace,
};
use std::os::unix::fs::MetadataExt;

impl TestNamespace {
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

impl StatusDir {
    /// Sets a status, and writes what is outdated. Returns whether files were written.
    fn write(
        &mut self,
        key: &Key,
        document: Value,
        draft: StatusDraft,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.set(key, document, draft, now);
        self.flush()
    }

    fn flush(&mut self) -> Result<bool, StoreError> {
        let Some(batch) = self.take_batch() else {
            return Ok(false);
        };
        let result = batch.write();
        self.finish_batch(&result);
        result.error.map_or(Ok(true), Err)
    }
}

fn listener() -> (Key, Value) {
    document(
        "apiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata: {name: a}\nspec: {routingKey: k, \
         host: h, port: 1}\n",
    )
}

#[test]
fn a_status_file_has_the_form_of_skuppers() {
    let space = TestNamespace::new();
    let (key, document) = listener();
    let mut dir = StatusDir::open(&space.dir).unwrap();
    assert!(
        dir.write(&key, document, StatusDraft::of_listener(false), at(0))
            .unwrap()
    );
    let path = space.file("Listener-a.yaml");
    insta::assert_snapshot!(fs::read_to_string(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    let read = space.dir.statuses(Kind::Listener).unwrap();
    assert_eq!(read["a"]["status"]["hasMatchingConnector"], false);
    assert!(space.dir.statuses(Kind::Connector).unwrap().is_empty());
}

#[test]
fn a_status_file_is_written_only_if_it_changes() {
    let space = TestNamespace::new();
    let (key, document) = listener();
    let mut dir = StatusDir::open(&space.dir).unwrap();
    assert!(
        dir.write(
            &key,
            document.clone(),
            StatusDraft::of_listener(false),
            at(0)
        )
        .unwrap()
    );
    assert!(
        !dir.write(
            &key,
            document.clone(),
            StatusDraft::of_listener(false),
            at(1)
        )
        .unwrap()
    );
    // After a restart too.
    let mut dir = StatusDir::open(&space.dir).unwrap();
    assert!(
        !dir.write(
            &key,
            document.clone(),
            StatusDraft::of_listener(false),
            at(2)
        )
        .unwrap()
    );
    assert!(
        dir.write(
            &key,
            document.clone(),
            StatusDraft::of_listener(true),
            at(3)
        )
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
    // Removed by another program.
    fs::remove_file(space.file("Listener-a.yaml")).unwrap();
    assert!(
        dir.write(&key, document, StatusDraft::of_listener(true), at(4))
            .unwrap()
    );
}

#[test]
fn status_files_of_removed_resources_are_removed() {
    let space = TestNamespace::new();
    let (key, document) = listener();
    let mut dir = StatusDir::open(&space.dir).unwrap();
    dir.write(&key, document, StatusDraft::of_listener(false), at(0))
        .unwrap();
    fs::write(
        space.file("ConfigMap-skupper-network-status.yaml"),
        "theirs",
    )
    .unwrap();
    fs::write(space.file("Link-broken.yaml"), "\u{0}[").unwrap();
    // Left from before a restart, and unreadable.
    let mut dir = StatusDir::open(&space.dir).unwrap();
    dir.retain(&BTreeSet::from([key.clone()]));
    dir.flush().unwrap();
    assert!(space.file("Listener-a.yaml").exists() && !space.file("Link-broken.yaml").exists());
    fs::remove_file(space.file("Listener-a.yaml")).unwrap();
    dir.retain(&BTreeSet::new());
    dir.flush().unwrap();
    assert!(space.file("ConfigMap-skupper-network-status.yaml").exists());
}

#[test]
fn status_files_hold_nothing_secret() {
    let space = TestNamespace::new();
    let secret = "LS0tLS1CRUdJTiBTRUNSRVQtLS0tLQ==";
    let text = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\ndata:\n  tls.key: {secret}\n  password: \
         aGlkZGVu\n  ca.crt: LS0tLS1CRUdJTiBYLS0tLS0=\n"
    );
    let (key, _) = document(&text);
    // Even if the document has them.
    let whole: Value = serde_yaml::from_str(&text).unwrap();
    let mut dir = StatusDir::open(&space.dir).unwrap();
    let draft =
        StatusDraft::new(Kind::Secret, false).with(ConditionType::Configured, ConditionState::True);
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
fn a_directory_that_cannot_be_made_is_an_error_until_it_can() {
    let space = TestNamespace::new();
    let state = space.dir.runtime_resources();
    let above = state.parent().unwrap().parent().unwrap().to_owned();
    fs::remove_dir_all(&above).unwrap();
    fs::write(&above, "a file").unwrap();
    let (key, document) = listener();
    let mut dir = StatusDir {
        dir: state,
        input: "/".into(),
        documents: BTreeMap::new(),
        outdated: BTreeSet::new(),
        in_batch: BTreeSet::new(),
    };
    let mut write = || {
        dir.write(
            &key,
            document.clone(),
            StatusDraft::of_listener(false),
            at(0),
        )
    };
    let error = write().unwrap_err().to_string();
    assert!(
        error.starts_with("writing ") && error.ends_with("Listener-a.yaml"),
        "{error}"
    );
    // Readers of this process have it, and it is written when that can be done.
    assert!(write().is_err());
    fs::remove_file(&above).unwrap();
    assert!(write().unwrap() && !write().unwrap());
    assert_eq!(space.dir.statuses(Kind::Listener).unwrap().len(), 1);
    assert_eq!(dir.documents().len(), 1);
}

#[test]
fn what_changes_while_a_batch_is_written_is_in_the_next_one() {
    let space = TestNamespace::new();
    let (key, document) = listener();
    let mut dir = StatusDir::open(&space.dir).unwrap();
    let set = |dir: &mut StatusDir, connected, now| {
        let draft = StatusDraft::of_listener(connected);
        dir.set(&key, document.clone(), draft, at(now));
    };
    let read = || space.dir.statuses(Kind::Listener).unwrap()["a"]["status"].clone();
    set(&mut dir, false, 0);
    let first = dir.take_batch().unwrap();
    // As before, and then otherwise, while the disk stalls.
    set(&mut dir, false, 1);
    assert!(dir.outdated.is_empty());
    set(&mut dir, true, 2);
    assert!(dir.take_batch().is_none());
    assert_eq!(
        dir.documents()[&key]["status"]["hasMatchingConnector"],
        true
    );
    dir.finish_batch(&first.write());
    assert_eq!(read()["hasMatchingConnector"], false);
    let second = dir.take_batch().unwrap();
    // The resource goes meanwhile, and so does its file.
    dir.retain(&BTreeSet::new());
    dir.finish_batch(&second.write());
    assert_eq!(read()["hasMatchingConnector"], true);
    assert!(dir.flush().unwrap() && !dir.flush().unwrap());
    assert!(!space.file("Listener-a.yaml").exists());
}

#[test]
fn a_batch_does_not_bring_back_a_namespace() {
    let space = TestNamespace::new();
    fs::create_dir_all(space.dir.input_resources()).unwrap();
    let (key, document) = listener();
    let mut dir = StatusDir::open(&space.dir).unwrap();
    dir.set(&key, document, StatusDraft::of_listener(false), at(0));
    let batch = dir.take_batch().unwrap();
    assert!(space.dir.remove().unwrap());
    dir.finish_batch(&batch.write());
    assert!(!space.dir.runtime_resources().exists());
}
