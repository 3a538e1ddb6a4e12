use super::*;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_name_without_a_directory_is_in_the_current_one() {
    let of = |path| split(Path::new(path)).map(|(dir, name)| (dir.to_owned(), name.to_owned()));
    assert_eq!(of("token.yaml").unwrap(), (".".into(), "token.yaml".into()));
    assert_eq!(of("a/b").unwrap(), ("a".into(), "b".into()));
    assert!(of("/").is_err());
}

#[test]
fn writing_sets_modes_and_makes_directories() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a/b/file");
    write_file(&path, b"one", PRIVATE).unwrap();
    assert_eq!(
        (fs::read(&path).unwrap().as_slice(), mode(&path)),
        (&b"one"[..], PRIVATE)
    );
    assert_eq!(mode(&root.path().join("a")), DIRECTORY);
    assert_eq!(mode(&root.path().join("a/b")), DIRECTORY);
    write_file(&path, b"two", SHARED).unwrap();
    assert_eq!(
        (fs::read(&path).unwrap().as_slice(), mode(&path)),
        (&b"two"[..], SHARED)
    );
    assert_eq!(names(&root.path().join("a/b")), ["file"]);
}

#[test]
fn a_full_disk_leaves_the_old_file() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file");
    write_file(&path, b"old", SHARED).unwrap();
    let full = StagedFile::new(&path, SHARED, |file| {
        file.write_all(b"ne")?;
        Err(io::ErrorKind::StorageFull.into())
    });
    assert_eq!(full.err().unwrap().kind(), io::ErrorKind::StorageFull);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names(root.path()), ["file"]);
}

#[test]
fn a_crash_before_the_rename_leaves_the_old_file() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file");
    write_file(&path, b"old", SHARED).unwrap();
    let staged = StagedFile::new(&path, SHARED, |file| file.write_all(b"new")).unwrap();
    // As after SIGKILL, the temporary file stays.
    let StagedFile { file, dir, .. } = staged;
    drop(file.keep().unwrap());
    drop(dir);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    let left = names(root.path());
    assert!(
        left.len() == 2 && left[0].starts_with(TEMPORARY),
        "{left:?}"
    );
    assert_eq!(mode(&root.path().join(&left[0])), SHARED);
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let blocked = root.path().join("blocked");
    fs::write(&blocked, "a file").unwrap();
    let error = write_file(&blocked.join("x/y"), b"", SHARED).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    // Not even root writes there.
    assert!(write_file(Path::new("/proc/skupper/file"), b"", SHARED).is_err());
}

#[test]
fn writing_replaces_a_symbolic_link_and_not_its_target() {
    let root = tempfile::tempdir().unwrap();
    let (target, link) = (root.path().join("target"), root.path().join("link"));
    fs::write(&target, "target").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    write_file(&link, b"new", SHARED).unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"target");
    assert!(fs::symlink_metadata(&link).unwrap().is_file());
}

#[test]
fn nothing_is_written_or_removed_through_a_link_of_others() {
    let root = tempfile::tempdir().unwrap();
    let (real, link) = (root.path().join("real"), root.path().join("link"));
    fs::create_dir(&real).unwrap();
    fs::write(real.join("file"), "old").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    if std::os::unix::fs::lchown(&link, Some(4711), None).is_err() {
        println!("skipped: only root gives links away");
        return;
    }
    assert!(write_file(&link.join("file"), b"new", SHARED).is_err());
    assert!(write_file(&link.join("sub/file"), b"new", SHARED).is_err());
    assert!(append_line(&link.join("file"), b"new").is_err());
    assert!(remove_file(&link.join("file")).is_err());
    assert!(read_text(&link.join("file")).is_err());
    assert_eq!(read_named(&link.join("file")).unwrap(), "old");
    assert_eq!(names(&real), ["file"]);
    assert_eq!(fs::read(real.join("file")).unwrap(), b"old");
}

#[test]
fn files_that_users_name_belong_to_them() {
    let root = tempfile::tempdir().unwrap();
    if std::os::unix::fs::chown(root.path(), Some(4711), Some(4712)).is_err() {
        println!("skipped: only root gives files away");
        return;
    }
    let path = root.path().join("dump");
    write_own(&path, b"", PRIVATE).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().uid(), sys::user());
}

#[test]
fn files_of_root_get_the_owner_of_the_directory() {
    let root = tempfile::tempdir().unwrap();
    let (dir, other) = (root.path().join("dir"), root.path().join("dir/other"));
    fs::create_dir(&dir).unwrap();
    let theirs = (Some(4711), Some(4712));
    if std::os::unix::fs::chown(&dir, theirs.0, theirs.1).is_err() {
        println!("skipped: only root gives files away");
        return;
    }
    let owner = |path: &Path| {
        let found = fs::metadata(path).unwrap();
        (Some(found.uid()), Some(found.gid()))
    };
    write_file(&dir.join("sub/file"), b"", PRIVATE).unwrap();
    assert_eq!(owner(&dir.join("sub")), theirs);
    assert_eq!(owner(&dir.join("sub/file")), theirs);
    assert_eq!(mode(&dir.join("sub/file")), PRIVATE);
    fs::write(&other, "").unwrap();
    std::os::unix::fs::chown(&other, Some(4713), Some(4714)).unwrap();
    write_file(&other, b"x", SHARED).unwrap();
    assert_eq!(owner(&other), (Some(4713), Some(4714)));
}

#[test]
fn only_regular_files_are_read() {
    let root = tempfile::tempdir().unwrap();
    let pipe = root.path().join("pipe");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap();
    assert!(made.success());
    assert!(
        read_text(&pipe)
            .unwrap_err()
            .to_string()
            .contains("not a plain file")
    );
    assert!(read_text(Path::new("/dev/zero")).is_err());
    assert!(read_text(root.path()).is_err());
}

#[test]
fn long_files_and_invalid_utf8_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file");
    File::create(&path)
        .unwrap()
        .set_len(MAX_FILE_SIZE + 1)
        .unwrap();
    assert_eq!(
        read_text(&path).unwrap_err().kind(),
        io::ErrorKind::FileTooLarge
    );
    fs::write(&path, b"\xff").unwrap();
    assert_eq!(
        read_text(&path).unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
}
