use super::*;
use crate::model::Namespace;
use std::{fs, os::unix::fs::symlink, path::Path};

/// A test fails if it waits for longer.
const LONG: Duration = Duration::from_secs(20);
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
        Watcher::new(&self.layout)
    }
}

fn namespace(name: &str) -> Namespace {
    Namespace::new(name).unwrap()
}

async fn expect_change(watcher: &mut Watcher) {
    let change = tokio::time::timeout(LONG, watcher.changed());
    change.await.expect("a change");
}

/// No change is reported in a time that would be enough for one.
async fn expect_silence(watcher: &mut Watcher) {
    let change = tokio::time::timeout(MAX_DELAY * 2, watcher.changed()).await;
    assert!(change.is_err(), "{change:?}");
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

watch_test!(files_that_come_change_and_go_are_noticed, async {
    let space = Space::with(&["east", "west"]);
    let mut watcher = space.watch();
    let east = space.resources("east");
    space.put("east", "a.yaml");
    expect_change(&mut watcher).await;
    space.put("east", "a.yaml");
    expect_change(&mut watcher).await;
    // As editors and our own writers do it.
    fs::write(east.join(".a.tmp"), "y").unwrap();
    fs::rename(east.join(".a.tmp"), east.join("a.yaml")).unwrap();
    expect_change(&mut watcher).await;
    fs::rename(east.join("a.yaml"), space.resources("west").join("a.yaml")).unwrap();
    expect_change(&mut watcher).await;
    fs::remove_file(space.resources("west").join("a.yaml")).unwrap();
    expect_change(&mut watcher).await;
    fs::hard_link(
        space.root.path().join("deep/base/namespaces/x"),
        east.join("b.yaml"),
    )
    .unwrap_err();
    fs::write(space.root.path().join("elsewhere"), "x").unwrap();
    fs::hard_link(space.root.path().join("elsewhere"), east.join("b.yaml")).unwrap();
    expect_change(&mut watcher).await;
});

watch_test!(new_directories_are_watched, async {
    let space = Space::with(&["east"]);
    let mut watcher = space.watch();
    let sub = space.resources("east").join("one/two");
    fs::create_dir_all(&sub).unwrap();
    fs::write(sub.join("a.yaml"), "x").unwrap();
    expect_change(&mut watcher).await;
    fs::write(sub.join("a.yaml"), "y").unwrap();
    expect_change(&mut watcher).await;
    // Moved inside, it is still watched; moved outside, no longer.
    let moved = space.resources("east").join("moved");
    fs::rename(space.resources("east").join("one"), &moved).unwrap();
    expect_change(&mut watcher).await;
    fs::write(moved.join("two/a.yaml"), "z").unwrap();
    expect_change(&mut watcher).await;
    let away = space.root.path().join("away");
    fs::rename(&moved, &away).unwrap();
    expect_change(&mut watcher).await;
    fs::write(away.join("two/a.yaml"), "?").unwrap();
    expect_silence(&mut watcher).await;
    fs::create_dir_all(space.resources("west")).unwrap();
    expect_change(&mut watcher).await;
});

watch_test!(namespaces_come_and_go, async {
    let space = Space::with(&["east"]);
    let mut watcher = space.watch();
    fs::create_dir_all(space.resources("west")).unwrap();
    expect_change(&mut watcher).await;
    space.put("west", "a.yaml");
    expect_change(&mut watcher).await;
    fs::create_dir_all(space.layout.input_namespaces().join("Not_One")).unwrap();
    expect_silence(&mut watcher).await;
    let west = space.layout.input_namespaces().join("west");
    fs::remove_dir_all(&west).unwrap();
    expect_change(&mut watcher).await;
    fs::create_dir_all(space.resources("west")).unwrap();
    space.put("west", "a.yaml");
    expect_change(&mut watcher).await;
    let certs = west.join("input/certs/own");
    fs::create_dir_all(&certs).unwrap();
    expect_change(&mut watcher).await;
    fs::write(certs.join("tls.crt"), "x").unwrap();
    expect_change(&mut watcher).await;
});

watch_test!(the_base_may_come_later, async {
    let space = Space::new();
    let mut watcher = space.watch();
    fs::create_dir_all(space.resources("east")).unwrap();
    expect_change(&mut watcher).await;
    space.put("east", "a.yaml");
    expect_change(&mut watcher).await;
    fs::remove_dir_all(space.root.path().join("deep")).unwrap();
    expect_change(&mut watcher).await;
    fs::create_dir_all(space.resources("east")).unwrap();
    expect_change(&mut watcher).await;
    space.put("east", "a.yaml");
    expect_change(&mut watcher).await;
});

watch_test!(temporary_files_and_state_are_no_change, async {
    let space = Space::with(&["east"]);
    let east = space.layout.namespace(&namespace("east"));
    fs::create_dir_all(east.runtime_resources()).unwrap();
    fs::create_dir_all(east.internal()).unwrap();
    let mut watcher = space.watch();
    fs::write(east.runtime_resources().join("Site-a.yaml"), "x").unwrap();
    fs::create_dir_all(east.runtime_links()).unwrap();
    fs::write(east.internal().join("lock"), "x").unwrap();
    fs::write(space.resources("east").join(".skupper-abc"), "x").unwrap();
    // A file is noticed when its writer closes it.
    let open = fs::File::create_new(space.resources("east").join("new.yaml")).unwrap();
    expect_silence(&mut watcher).await;
    drop(open);
    expect_change(&mut watcher).await;
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
    expect_change(&mut watcher).await;
    // Replaced, as config management does: the new one is watched.
    for text in ["z", "?"] {
        let new = space.root.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &target).unwrap();
        expect_change(&mut watcher).await;
    }
    fs::write(shared.join("a.yaml"), "x").unwrap();
    expect_change(&mut watcher).await;
    // It is watched until the last link to it is gone.
    for (namespace, is_watched) in [("east", true), ("west", false)] {
        fs::remove_file(space.resources(namespace).join("dir")).unwrap();
        expect_change(&mut watcher).await;
        fs::write(shared.join("a.yaml"), namespace).unwrap();
        if is_watched {
            expect_change(&mut watcher).await;
        } else {
            expect_silence(&mut watcher).await;
        }
    }
});

watch_test!(a_loop_of_links_ends, async {
    let space = Space::with(&["east"]);
    let resources = space.resources("east");
    symlink(&resources, resources.join("self")).unwrap();
    symlink(space.root.path(), resources.join("up")).unwrap();
    symlink("loop.yaml", resources.join("loop.yaml")).unwrap();
    let mut watcher = space.watch();
    space.put("east", "a.yaml");
    expect_change(&mut watcher).await;
});

watch_test!(a_burst_is_one_change, async {
    let space = Space::with(&["east"]);
    let mut watcher = space.watch();
    for n in 0..200 {
        space.put("east", &format!("{n}.yaml"));
    }
    expect_change(&mut watcher).await;
    expect_silence(&mut watcher).await;
});

watch_test!(a_burst_that_does_not_end_is_reported, async {
    let space = Space::with(&["east"]);
    let mut watcher = space.watch();
    let writing = async {
        for n in 0u64.. {
            space.put("east", &format!("{}.yaml", n % 10));
            tokio::task::yield_now().await;
        }
    };
    // No pause is as long as [`QUIET`].
    tokio::select! {
        () = expect_change(&mut watcher) => {}
        () = writing => {}
    }
});

watch_test!(a_noticed_change_survives_a_cancelled_wait, async {
    let space = Space::with(&["east"]);
    let mut watcher = space.watch();
    space.put("east", "a.yaml");
    while watcher.pending.is_none() {
        tokio::select! {
            biased;
            () = watcher.changed() => panic!("too early"),
            () = tokio::task::yield_now() => {}
        }
    }
    expect_change(&mut watcher).await;
});

watch_test!(an_overflow_of_events_is_a_change, async {
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
    expect_change(&mut watcher).await;
    space.put("east", "c.yaml");
    expect_change(&mut watcher).await;
});

watch_test!(
    a_directory_that_could_not_be_watched_is_watched_later,
    async {
        let space = Space::with(&["east"]);
        let mut watcher = space.watch();
        // The directory is there before anybody could see its event.
        let input = watcher.inotify.as_mut().unwrap();
        input.dirs = WatchedDirs::new(space.layout.input_namespaces());
        watcher.rewatch();
        space.put("east", "a.yaml");
        expect_change(&mut watcher).await;
    }
);

watch_test!(what_the_kernel_refuses_is_tried_again, async {
    let space = Space::with(&["default"]);
    let mut watcher = space.watch();
    watcher.unavailable(&io::Error::from_raw_os_error(sys::TOO_MANY_FILES));
    assert!(!watcher.is_watching());
    space.put("default", "a.yaml");
    expect_silence(&mut watcher).await;
    watcher.rewatch();
    assert!(watcher.is_watching());
    space.put("default", "b.yaml");
    expect_change(&mut watcher).await;
});
