use super::*;
use std::{fs, os::unix::fs::symlink, path::Path};

/// A test that waits this long has failed.
const LONG: Duration = Duration::from_secs(20);
/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

struct Space {
    root: tempfile::TempDir,
    layout: Layout,
}

impl Space {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::root(&root.path().join("deep/base"));
        Self { root, layout }
    }

    fn with(namespaces: &[&str]) -> Self {
        let space = Self::new();
        for name in namespaces {
            fs::create_dir_all(space.resources(name)).unwrap();
        }
        space
    }

    fn resources(&self, name: &str) -> PathBuf {
        self.layout.namespace(&namespace(name)).input_resources()
    }

    fn put(&self, name: &str, file: &str) {
        fs::write(self.resources(name).join(file), "x").unwrap();
    }

    fn watch(&self) -> Watcher {
        Watcher::with_interval(&self.layout, NEVER).unwrap()
    }
}

fn namespace(name: &str) -> Namespace {
    Namespace::new(name).unwrap()
}

async fn next(watcher: &mut Watcher) -> Change {
    tokio::time::timeout(LONG, watcher.next())
        .await
        .expect("no change is told of")
        .unwrap()
}

fn only(names: &[&str]) -> Change {
    Change::Namespaces(names.iter().map(|n| namespace(n)).collect())
}

macro_rules! watch_test {
    ($name:ident, $body:expr) => {
        #[test]
        fn $name() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on($body);
        }
    };
}

watch_test!(c23_files_that_come_change_and_go, async {
    let space = Space::with(&["east", "west"]);
    let mut watcher = space.watch();
    let east = space.resources("east");
    let here = only(&["east"]);
    space.put("east", "a.yaml");
    assert_eq!(next(&mut watcher).await, here);
    space.put("east", "a.yaml");
    assert_eq!(next(&mut watcher).await, here);
    // As editors and our own writers do it.
    fs::write(east.join(".a.tmp"), "y").unwrap();
    fs::rename(east.join(".a.tmp"), east.join("a.yaml")).unwrap();
    assert_eq!(next(&mut watcher).await, here);
    fs::rename(east.join("a.yaml"), space.resources("west").join("a.yaml")).unwrap();
    assert_eq!(next(&mut watcher).await, only(&["east", "west"]));
    fs::remove_file(space.resources("west").join("a.yaml")).unwrap();
    assert_eq!(next(&mut watcher).await, only(&["west"]));
    fs::hard_link(
        space.root.path().join("deep/base/namespaces/x"),
        east.join("b.yaml"),
    )
    .unwrap_err();
    fs::write(space.root.path().join("elsewhere"), "x").unwrap();
    fs::hard_link(space.root.path().join("elsewhere"), east.join("b.yaml")).unwrap();
    assert_eq!(next(&mut watcher).await, here);
});

watch_test!(directories_that_come_are_watched_too, async {
    let space = Space::with(&["east"]);
    let mut watcher = space.watch();
    let sub = space.resources("east").join("one/two");
    fs::create_dir_all(&sub).unwrap();
    fs::write(sub.join("a.yaml"), "x").unwrap();
    let here = only(&["east"]);
    assert_eq!(next(&mut watcher).await, here);
    fs::write(sub.join("a.yaml"), "y").unwrap();
    assert_eq!(next(&mut watcher).await, here);
    // Moved inside, it is still watched; moved outside, no longer.
    let moved = space.resources("east").join("moved");
    fs::rename(space.resources("east").join("one"), &moved).unwrap();
    assert_eq!(next(&mut watcher).await, here);
    fs::write(moved.join("two/a.yaml"), "z").unwrap();
    assert_eq!(next(&mut watcher).await, here);
    let away = space.root.path().join("away");
    fs::rename(&moved, &away).unwrap();
    assert_eq!(next(&mut watcher).await, here);
    fs::write(away.join("two/a.yaml"), "?").unwrap();
    fs::create_dir_all(space.resources("west")).unwrap();
    assert_eq!(next(&mut watcher).await, only(&["west"]));
});

watch_test!(namespaces_come_and_go, async {
    let space = Space::with(&["east"]);
    let mut watcher = space.watch();
    fs::create_dir_all(space.resources("west")).unwrap();
    assert_eq!(next(&mut watcher).await, only(&["west"]));
    space.put("west", "a.yaml");
    assert_eq!(next(&mut watcher).await, only(&["west"]));
    fs::create_dir_all(space.layout.input_namespaces().join("Not_One")).unwrap();
    let west = space.layout.input_namespaces().join("west");
    fs::remove_dir_all(&west).unwrap();
    assert_eq!(next(&mut watcher).await, only(&["west"]));
    fs::create_dir_all(space.resources("west")).unwrap();
    space.put("west", "a.yaml");
    assert_eq!(next(&mut watcher).await, only(&["west"]));
    let certs = west.join("input/certs/own");
    fs::create_dir_all(&certs).unwrap();
    assert_eq!(next(&mut watcher).await, only(&["west"]));
    fs::write(certs.join("tls.crt"), "x").unwrap();
    assert_eq!(next(&mut watcher).await, only(&["west"]));
});

watch_test!(the_base_may_come_later, async {
    let space = Space::new();
    let mut watcher = space.watch();
    fs::create_dir_all(space.resources("east")).unwrap();
    assert_eq!(next(&mut watcher).await, Change::Resync);
    space.put("east", "a.yaml");
    assert_eq!(next(&mut watcher).await, only(&["east"]));
    fs::remove_dir_all(space.root.path().join("deep")).unwrap();
    assert_eq!(next(&mut watcher).await, Change::Resync);
    fs::create_dir_all(space.resources("east")).unwrap();
    assert_eq!(next(&mut watcher).await, Change::Resync);
    space.put("east", "a.yaml");
    assert_eq!(next(&mut watcher).await, only(&["east"]));
});

watch_test!(our_own_writing_and_state_are_no_change, async {
    let space = Space::with(&["east", "west"]);
    let east = space.layout.namespace(&namespace("east"));
    fs::create_dir_all(east.runtime_resources()).unwrap();
    fs::create_dir_all(east.internal()).unwrap();
    let mut watcher = space.watch();
    fs::write(east.runtime_resources().join("Site-a.yaml"), "x").unwrap();
    fs::create_dir_all(east.runtime_links()).unwrap();
    fs::write(east.internal().join("lock"), "x").unwrap();
    fs::write(space.resources("east").join(".skupper-abc"), "x").unwrap();
    // What was opened and is not yet written.
    let open = fs::File::create_new(space.resources("east").join("new.yaml")).unwrap();
    space.put("west", "a.yaml");
    assert_eq!(next(&mut watcher).await, only(&["west"]));
    drop(open);
    assert_eq!(next(&mut watcher).await, only(&["east"]));
});

watch_test!(targets_of_links_are_watched, async {
    let space = Space::with(&["east", "west"]);
    let target = space.root.path().join("managed.yaml");
    let shared = space.root.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(&target, "x").unwrap();
    symlink(&target, space.resources("east").join("link.yaml")).unwrap();
    symlink(&shared, space.resources("east").join("dir")).unwrap();
    symlink(&shared, space.resources("west").join("dir")).unwrap();
    let mut watcher = space.watch();
    fs::write(&target, "y").unwrap();
    assert_eq!(next(&mut watcher).await, only(&["east"]));
    // Replaced, as config management does: the new one is watched.
    for text in ["z", "?"] {
        let new = space.root.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &target).unwrap();
        assert_eq!(next(&mut watcher).await, only(&["east"]));
    }
    fs::write(shared.join("a.yaml"), "x").unwrap();
    assert_eq!(next(&mut watcher).await, only(&["east", "west"]));
    // One of the two lets go: the other still sees.
    fs::remove_file(space.resources("east").join("dir")).unwrap();
    assert_eq!(next(&mut watcher).await, only(&["east"]));
    fs::write(shared.join("a.yaml"), "y").unwrap();
    assert_eq!(next(&mut watcher).await, only(&["west"]));
});

watch_test!(a_loop_of_links_ends, async {
    let space = Space::with(&["east"]);
    let resources = space.resources("east");
    symlink(&resources, resources.join("self")).unwrap();
    symlink(space.root.path(), resources.join("up")).unwrap();
    symlink("loop.yaml", resources.join("loop.yaml")).unwrap();
    let mut watcher = space.watch();
    space.put("east", "a.yaml");
    assert_eq!(next(&mut watcher).await, only(&["east"]));
});

watch_test!(a_burst_is_one_change, async {
    let space = Space::with(&["east"]);
    let mut watcher = space.watch();
    for n in 0..200 {
        space.put("east", &format!("{n}.yaml"));
    }
    assert_eq!(next(&mut watcher).await, only(&["east"]));
    let again = tokio::time::timeout(QUIET * 2, watcher.next()).await;
    assert!(again.is_err(), "{again:?}");
});

watch_test!(a_burst_that_does_not_end_is_told_of, async {
    let space = Space::with(&["east"]);
    let mut watcher = space.watch();
    let writing = async {
        for n in 0u64.. {
            space.put("east", &format!("{}.yaml", n % 10));
            tokio::task::yield_now().await;
        }
    };
    // No pause is as long as the quiet that is waited for.
    tokio::select! {
        change = next(&mut watcher) => assert_eq!(change, only(&["east"])),
        () = writing => {}
    }
});

watch_test!(what_was_noticed_survives_a_wait_that_is_given_up, async {
    let space = Space::with(&["east"]);
    let mut watcher = space.watch();
    space.put("east", "a.yaml");
    while watcher.since.is_none() {
        tokio::select! {
            biased;
            change = watcher.next() => panic!("too early: {change:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(next(&mut watcher).await, only(&["east"]));
});

watch_test!(too_many_events_mean_look_at_everything, async {
    let space = Space::with(&["east"]);
    let limit = Path::new("/proc/sys/fs/inotify/max_queued_events");
    let limit: usize = fs::read_to_string(limit).unwrap().trim().parse().unwrap();
    let mut watcher = space.watch();
    let (a, b) = (
        space.resources("east").join("a"),
        space.resources("east").join("b"),
    );
    fs::write(&a, "x").unwrap();
    // Two events each, none like the one before it.
    for _ in 0..=limit / 4 {
        fs::rename(&a, &b).unwrap();
        fs::rename(&b, &a).unwrap();
    }
    assert_eq!(next(&mut watcher).await, Change::Resync);
    space.put("east", "c.yaml");
    assert_eq!(next(&mut watcher).await, only(&["east"]));
});

watch_test!(from_time_to_time_everything_is_looked_at, async {
    let space = Space::with(&["east"]);
    let mut watcher = Watcher::with_interval(&space.layout, Duration::from_millis(20)).unwrap();
    assert_eq!(next(&mut watcher).await, Change::Resync);
    assert_eq!(next(&mut watcher).await, Change::Resync);
});
