use super::*;
use crate::{
    model::{Name, Namespace},
    store::Layout,
};
use std::os::unix::fs::{MetadataExt, symlink};

struct Space {
    root: tempfile::TempDir,
    dir: NamespaceDir,
}

impl Space {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = Layout::root(root.path()).namespace(&Namespace::default_namespace());
        fs::create_dir_all(dir.input_resources()).unwrap();
        Self { root, dir }
    }

    fn put(&self, file: &str, text: &str) -> PathBuf {
        let path = self.dir.input_resources().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

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
        let port = |l: &Located| match &l.resource.spec {
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
fn new_resources_get_files_of_their_own() {
    let space = Space::new();
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
fn what_would_be_refused_is_not_written() {
    let space = Space::new();
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
fn documents_are_replaced_where_they_are() {
    let space = Space::new();
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
fn json_and_rows_of_it_are_left_to_json() {
    let space = Space::new();
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
fn others_in_the_file_of_that_name_stay() {
    let space = Space::new();
    space.put("Listener-a.yaml", &listener("other", 9));
    let mut editor = space.dir.edit().unwrap();
    editor.write_resource(&listener("a", 1)).unwrap();
    let expected = format!("{}---\n{}", listener("other", 9), listener("a", 1));
    assert_eq!(space.get("Listener-a.yaml"), expected);
    // A form of it that is refused is in its place, and goes.
    space.put("Listener-b.yaml", &listener("b", 0));
    editor.write_resource(&listener("b", 2)).unwrap();
    assert_eq!(space.get("Listener-b.yaml"), listener("b", 2));
}

#[test]
fn removal_leaves_other_documents_to_the_byte() {
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
        let space = Space::new();
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
fn the_last_document_takes_its_file_along() {
    let space = Space::new();
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
fn a_bad_document_beside_keeps_the_file() {
    let space = Space::new();
    let bad = "kind: [\n";
    space.put("x.yaml", &format!("{}---\n{bad}", listener("a", 1)));
    let mut editor = space.dir.edit().unwrap();
    editor.remove_resource(&key(Kind::Listener, "a")).unwrap();
    assert_eq!(space.get("x.yaml"), format!("---\n{bad}"));
}

#[test]
fn l20_a_file_that_gets_a_secret_is_closed_to_others() {
    let space = Space::new();
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
    let space = Space::new();
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
fn what_dead_writers_left_is_swept_up() {
    let space = Space::new();
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
fn what_can_not_be_read_is_passed_over() {
    let space = Space::new();
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
fn conflicts_are_told_before_anything_is_written() {
    let space = Space::new();
    space.put("x.yaml", &listener("a", 80));
    let editor = space.dir.edit().unwrap();
    let new = |text: &str| {
        let parsed = parse(Path::new("-"), text.as_bytes(), None);
        parsed.into_iter().map(Result::unwrap).collect::<Vec<_>>()
    };
    let conflicts = editor.conflicts(&new(&listener("b", 80))).unwrap();
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].name.as_deref(), Some("b"));
    // Itself is replaced, and no conflict.
    assert!(
        editor
            .conflicts(&new(&listener("a", 80)))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn c28_twenty_writers_at_once() {
    let space = Space::new();
    space.put(
        "shared.yaml",
        &(0..20)
            .map(|n| format!("---\n{}", listener(&format!("s{n}"), 100 + n)))
            .collect::<String>(),
    );
    std::thread::scope(|scope| {
        for n in 0..20u16 {
            let dir = &space.dir;
            scope.spawn(move || {
                let mut editor = dir.edit().unwrap();
                editor
                    .write_resource(&listener(&format!("w{n}"), 200 + n))
                    .unwrap();
                drop(editor);
                // All of them change the same file.
                let mut editor = dir.edit().unwrap();
                editor
                    .write_resource(&listener(&format!("s{n}"), 300 + n))
                    .unwrap();
            });
        }
    });
    let loaded = space.dir.load().unwrap();
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    let ports = space.ports();
    assert_eq!(ports.len(), 40);
    for n in 0..20u16 {
        assert!(ports.contains(&(format!("Listener w{n}"), 200 + n)));
        assert!(ports.contains(&(format!("Listener s{n}"), 300 + n)));
    }
    assert!(space.files().iter().all(|name| !name.starts_with('.')));
}

/// Environment of the child below: where to write.
const CHILD: &str = "SKUPPER_TEST_WRITER";

/// Does nothing by itself: the process that the next test starts and kills.
#[test]
fn writer_that_is_killed() {
    let Ok(root) = std::env::var(CHILD) else {
        return;
    };
    let dir = Layout::root(Path::new(&root)).namespace(&Namespace::default_namespace());
    let mut n = 0u16;
    loop {
        n = n % 30_000 + 10;
        let mut editor = dir.edit().unwrap();
        editor.write_resource(&listener("a", n)).unwrap();
        editor.write_resource(&listener("b", 30_100 + n)).unwrap();
    }
}

#[test]
fn c29_killed_at_any_time() {
    let space = Space::new();
    space.put(
        "b.yaml",
        &format!("{}---\n{}", listener("stays", 1), listener("b", 2)),
    );
    let program = std::env::current_exe().unwrap();
    let mut last = String::new();
    for round in 0..15 {
        let mut child = std::process::Command::new(&program)
            .args([
                "store::edit::tests::writer_that_is_killed",
                "--exact",
                "--nocapture",
            ])
            .env(CHILD, space.root.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // It is at work when the file is not what it was.
        let file = space.dir.input_resources().join("Listener-a.yaml");
        let mut seen = 0;
        while seen <= round {
            assert!(
                child.try_wait().unwrap().is_none(),
                "the writer has ended by itself"
            );
            let now = fs::read_to_string(&file).unwrap_or_default();
            seen += usize::from(now != last);
            last = now;
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let loaded = space.dir.load().unwrap();
        assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
        assert_eq!(loaded.resources.len(), 3);
        last = fs::read_to_string(&file).unwrap();
    }
    // The lock of the dead is free, and their remains go.
    space
        .dir
        .edit()
        .unwrap()
        .write_resource(&listener("a", 1))
        .unwrap();
    assert!(
        space.files().iter().all(|name| !name.starts_with('.')),
        "{:?}",
        space.files()
    );
}
