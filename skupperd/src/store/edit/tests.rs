mod writers;

use super::*;
use crate::{
    model::{Name, Namespace},
    store::{Layout, test_namespace::TestNamespace},
};
use std::os::unix::fs::{MetadataExt, symlink};

impl TestNamespace {
    fn get(&self, file: &str) -> String {
        fs::read_to_string(self.dir.input_resources().join(file)).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.input_resources()).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn mode(&self, file: &str) -> u32 {
        fs::metadata(self.dir.input_resources().join(file))
            .unwrap()
            .mode()
            & 0o777
    }

    fn ports(&self) -> Vec<(String, u16)> {
        let loaded = self.dir.load().unwrap();
        let port = |l: &LocatedResource| match &l.resource.spec {
            crate::model::Spec::Listener(listener) => listener.port,
            _ => 0,
        };
        let mut ports: Vec<_> = loaded
            .resources
            .iter()
            .map(|l| (l.key().to_string(), port(l)))
            .collect();
        ports.sort();
        ports
    }
}

fn listener(name: &str, port: u16) -> String {
    format!(
        "apiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata:\n  name: {name}\nspec:\n  \
         routingKey: k\n  host: 127.0.0.1\n  port: {port}\n"
    )
}

const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  ca.crt: \
                      '-----BEGIN X-----'\n";

fn key(kind: Kind, name: &str) -> Key {
    Key::new(kind, Name::new(name).unwrap())
}

#[test]
fn a_new_resource_gets_a_file_of_its_own() {
    let space = TestNamespace::new();
    let mut editor = space.dir.edit().unwrap();
    let text = format!("# why\n{}", listener("a", 1));
    let path = editor.write_resource(&text).unwrap();
    assert_eq!(path, space.dir.input_resources().join("Listener-a.yaml"));
    assert_eq!(space.get("Listener-a.yaml"), text);
    editor
        .write_resource(&format!("---\n{SECRET}---\n"))
        .unwrap();
    assert_eq!(space.get("Secret-s.yaml"), SECRET);
    assert_eq!(
        (space.mode("Listener-a.yaml"), space.mode("Secret-s.yaml")),
        (0o640, 0o600)
    );
    editor.write_resource(&listener("a", 2)).unwrap();
    assert_eq!(
        space.ports(),
        [("Listener a".to_owned(), 2), ("Secret s".to_owned(), 0)]
    );
    assert_eq!(space.files().len(), 2);
}

#[test]
fn a_namespace_is_made_on_first_need() {
    let root = tempfile::tempdir().unwrap();
    let dir = Layout::root(root.path()).namespace(&Namespace::new("new").unwrap());
    dir.edit()
        .unwrap()
        .write_resource(&listener("a", 1))
        .unwrap();
    for dir in [dir.input_resources(), dir.internal()] {
        assert_eq!(
            fs::metadata(&dir).unwrap().mode() & 0o777,
            0o700,
            "{}",
            dir.display()
        );
    }
    assert_eq!(dir.load().unwrap().resources.len(), 1);
}

#[test]
fn an_invalid_document_is_not_written() {
    let space = TestNamespace::new();
    let mut editor = space.dir.edit().unwrap();
    let error = editor.write_resource(&listener("a", 0)).unwrap_err();
    let text = "refused: -:8: Listener a: spec.port: 0 is not a port (1..65535)";
    assert_eq!(error.to_string(), text);
    let two = format!("{}---\n{}", listener("a", 1), listener("b", 2));
    assert!(matches!(
        editor.write_resource(&two),
        Err(StoreError::NotOne(2))
    ));
    assert!(matches!(
        editor.write_resource("# nothing\n"),
        Err(StoreError::NotOne(0))
    ));
    let other = listener("a", 1).replace("name: a", "name: a\n  namespace: west");
    assert!(matches!(
        editor.write_resource(&other),
        Err(StoreError::Refused(_))
    ));
    assert!(space.files().is_empty());
}

#[test]
fn a_document_is_replaced_where_it_is() {
    let space = TestNamespace::new();
    let (a, b, c) = (listener("a", 1), listener("b", 2), listener("c", 3));
    space.put(
        "mine.yaml",
        &format!("# mine\n{a}---\n# second\n{b}---\n{c}"),
    );
    let mut editor = space.dir.edit().unwrap();
    let path = editor.write_resource(&listener("b", 20)).unwrap();
    assert_eq!(path.file_name().unwrap(), "mine.yaml");
    let expected = format!("# mine\n{a}---\n{}---\n{c}", listener("b", 20));
    assert_eq!(space.get("mine.yaml"), expected);
    editor.write_resource(&listener("a", 10)).unwrap();
    editor.write_resource(listener("c", 30).trim_end()).unwrap();
    let expected = [listener("a", 10), listener("b", 20), listener("c", 30)].join("---\n");
    assert_eq!(space.get("mine.yaml"), expected);
    assert_eq!(space.files(), ["mine.yaml"]);
}

#[test]
fn a_resource_in_a_json_file_moves_to_a_file_of_its_own() {
    let space = TestNamespace::new();
    let json = |name: &str, port: u16| {
        format!(
            "{{\"apiVersion\": \"skupper.io/v2alpha1\", \"kind\": \"Listener\", \"metadata\": \
             {{\"name\": \"{name}\"}}, \"spec\": {{\"routingKey\": \"k\", \"host\": \"h\", \"port\": {port}}}}}"
        )
    };
    space.put("one.json", &json("a", 1));
    space.put("row.yaml", &format!("{}\n{}\n", json("b", 2), json("c", 3)));
    let mut editor = space.dir.edit().unwrap();
    editor.write_resource(&listener("a", 10)).unwrap();
    editor.write_resource(&listener("b", 20)).unwrap();
    assert_eq!(
        space.files(),
        ["Listener-a.yaml", "Listener-b.yaml", "row.yaml"]
    );
    let ports: Vec<u16> = space.ports().into_iter().map(|(_, port)| port).collect();
    assert_eq!(ports, [10, 20, 3]);
    assert_eq!(space.get("row.yaml").trim(), json("c", 3));
}

#[test]
fn other_resources_in_the_file_of_that_name_stay() {
    let space = TestNamespace::new();
    space.put("Listener-a.yaml", &listener("other", 9));
    let mut editor = space.dir.edit().unwrap();
    editor.write_resource(&listener("a", 1)).unwrap();
    let expected = format!("{}---\n{}", listener("other", 9), listener("a", 1));
    assert_eq!(space.get("Listener-a.yaml"), expected);
    // An invalid version of the resource is in its file, and is replaced.
    space.put("Listener-b.yaml", &listener("b", 0));
    editor.write_resource(&listener("b", 2)).unwrap();
    assert_eq!(space.get("Listener-b.yaml"), listener("b", 2));
}

#[test]
fn removal_leaves_all_other_bytes() {
    let (a, b, c) = (listener("a", 1), listener("b", 2), listener("c", 3));
    let whole = format!("# head\r\n--- # first\n{a}\n\n---\n# second\n{b}...\n---   \n{c}");
    let cases = [
        ("a", format!("# head\r\n---\n# second\n{b}...\n---   \n{c}")),
        (
            "b",
            format!("# head\r\n--- # first\n{a}\n\n...\n---   \n{c}"),
        ),
        (
            "c",
            format!("# head\r\n--- # first\n{a}\n\n---\n# second\n{b}...\n"),
        ),
    ];
    for (name, expected) in cases {
        let space = TestNamespace::new();
        let path = space.put("sub/all.yml", &whole);
        let mut editor = space.dir.edit().unwrap();
        let changed = editor.remove_resource(&key(Kind::Listener, name)).unwrap();
        assert_eq!(changed, [path]);
        assert_eq!(space.get("sub/all.yml"), expected, "{name}");
        assert_eq!(space.ports().len(), 2);
        assert!(
            editor
                .remove_resource(&key(Kind::Listener, name))
                .unwrap()
                .is_empty()
        );
    }
}

#[test]
fn the_file_of_the_last_document_is_removed() {
    let space = TestNamespace::new();
    space.put("x.yaml", &format!("# license\n---\n{}", listener("a", 1)));
    space.put(
        "y.yaml",
        &format!("{}---\n{}", listener("b", 2), listener("b", 3)),
    );
    space.put("z.yaml", &listener("c", 0));
    let mut editor = space.dir.edit().unwrap();
    for name in ["a", "b", "c"] {
        let changed = editor.remove_resource(&key(Kind::Listener, name)).unwrap();
        assert_eq!(changed.len(), 1, "{name}");
    }
    assert!(space.files().is_empty());
}

#[test]
fn an_invalid_document_beside_it_keeps_the_file() {
    let space = TestNamespace::new();
    let bad = "kind: [\n";
    space.put("x.yaml", &format!("{}---\n{bad}", listener("a", 1)));
    let mut editor = space.dir.edit().unwrap();
    editor.remove_resource(&key(Kind::Listener, "a")).unwrap();
    assert_eq!(space.get("x.yaml"), format!("---\n{bad}"));
}

#[test]
fn a_file_that_gets_a_secret_is_closed_to_others() {
    let space = TestNamespace::new();
    let path = space.put("both.yaml", &format!("{}---\n{SECRET}", listener("a", 1)));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut editor = space.dir.edit().unwrap();
    editor.write_resource(&listener("a", 2)).unwrap();
    assert_eq!(space.mode("both.yaml"), 0o600);
    let plain = space.put("plain.yaml", &listener("b", 1));
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o604)).unwrap();
    editor.write_resource(&listener("b", 3)).unwrap();
    assert_eq!(space.mode("plain.yaml"), 0o604);
}

#[test]
fn links_are_replaced_and_their_targets_stay() {
    let space = TestNamespace::new();
    let target = space.root.path().join("managed.yaml");
    let text = format!("{}---\n{}", listener("a", 1), listener("b", 2));
    fs::write(&target, &text).unwrap();
    symlink(&target, space.dir.input_resources().join("link.yaml")).unwrap();
    let mut editor = space.dir.edit().unwrap();
    editor.remove_resource(&key(Kind::Listener, "a")).unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), text);
    assert_eq!(space.get("link.yaml"), format!("---\n{}", listener("b", 2)));
}

#[test]
fn temporary_files_of_killed_writers_are_removed() {
    let space = TestNamespace::new();
    space.put(&format!("{TEMPORARY}abc"), "half");
    space.put(".editor.swp", "theirs");
    assert!(space.dir.load().unwrap().errors.is_empty());
    space
        .dir
        .edit()
        .unwrap()
        .write_resource(&listener("a", 1))
        .unwrap();
    assert_eq!(space.files(), [".editor.swp", "Listener-a.yaml"]);
}

#[test]
fn unreadable_files_are_skipped() {
    let space = TestNamespace::new();
    symlink("nowhere", space.dir.input_resources().join("dangling.yaml")).unwrap();
    symlink("loop.yaml", space.dir.input_resources().join("loop.yaml")).unwrap();
    let pipe = space.dir.input_resources().join("pipe.yaml");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap();
    assert!(made.success());
    let mut editor = space.dir.edit().unwrap();
    editor.write_resource(&listener("a", 1)).unwrap();
    let loaded = editor.load().unwrap();
    assert_eq!((loaded.resources.len(), loaded.errors.len()), (1, 3));
    assert!(
        loaded.errors.iter().any(|e| e.reason == "not a plain file"),
        "{loaded:?}"
    );
}

#[test]
fn conflicts_are_known_before_anything_is_written() {
    let space = TestNamespace::new();
    space.put("x.yaml", &listener("a", 80));
    let editor = space.dir.edit().unwrap();
    let new = |text: &str| {
        let parsed = parse(Path::new("-"), text.as_bytes(), None);
        parsed.into_iter().map(Result::unwrap).collect::<Vec<_>>()
    };
    let conflicts = editor.conflicts(&new(&listener("b", 80))).unwrap();
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].name.as_deref(), Some("b"));
    // The resource does not conflict with its own old version.
    assert!(
        editor
            .conflicts(&new(&listener("a", 80)))
            .unwrap()
            .is_empty()
    );
}
