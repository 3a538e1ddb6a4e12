//! Writers that write at the same time, or are killed.

use super::*;

#[test]
fn twenty_writers_at_once_lose_nothing() {
    let space = TestNamespace::new();
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

/// Environment variable of the child process below: where to write.
const CHILD: &str = "SKUPPER_TEST_WRITER";

/// Does nothing by itself: the next test starts and kills it in a process of its own.
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
fn a_writer_killed_at_any_time_leaves_the_old_or_the_new() {
    let space = TestNamespace::new();
    space.put(
        "b.yaml",
        &format!("{}---\n{}", listener("stays", 1), listener("b", 2)),
    );
    let program = std::env::current_exe().unwrap();
    let mut last = String::new();
    for round in 0..15 {
        let mut child = std::process::Command::new(&program)
            .args([
                "store::edit::tests::writers::writer_that_is_killed",
                "--exact",
                "--nocapture",
            ])
            .env(CHILD, space.root.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // The child is at work once the file has changed.
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
    // Locks of killed writers are free, and their temporary files are removed.
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
