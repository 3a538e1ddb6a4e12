//! Single files: written as a whole or not at all, read with a bound.

use crate::{
    manifest::MAX_FILE_SIZE,
    sys::{self, open_without_waiting},
};
use std::{
    fs::{self, DirBuilder, File, Metadata, Permissions},
    io::{
        self,
        ErrorKind::{AlreadyExists, DirectoryNotEmpty, InvalidInput, PermissionDenied},
        Read, Write,
    },
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown},
    path::Path,
};
use tempfile::NamedTempFile;

/// Mode of files with something secret in them.
pub const PRIVATE: u32 = 0o600;
/// Mode of other files.
pub const SHARED: u32 = 0o640;
/// Mode of files that are for every program of the host.
pub const PUBLIC: u32 = 0o644;
/// Mode of directories we make.
const DIRECTORY: u32 = 0o700;
/// How names of files begin that are not yet what they will be.
pub(super) const TEMPORARY: &str = ".skupper-";

/// Writes a file as a whole: to a file beside it, to disk, then over the old one. Whatever goes
/// wrong, and wherever it is killed, the old file stays or the new one is complete. Directories are
/// made as needed. `mode`: of the file, whatever the umask says.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    Staged::new(path, mode, |file| file.write_all(bytes))?.commit()
}

/// A complete file on disk that has not got its name yet.
pub(super) struct Staged<'a> {
    file: NamedTempFile,
    path: &'a Path,
}

impl<'a> Staged<'a> {
    pub(super) fn new(
        path: &'a Path,
        mode: u32,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<Self> {
        let dir = directory(path)?;
        make_dirs(dir)?;
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .permissions(Permissions::from_mode(PRIVATE))
            .tempfile_in(dir)?;
        fill(file.as_file_mut())?;
        // The owner first: changing it may take bits of the mode away.
        own(file.as_file(), path)?;
        file.as_file()
            .set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        Ok(Self { file, path })
    }

    pub(super) fn commit(self) -> io::Result<()> {
        self.file.persist(self.path).map_err(|e| e.error)?;
        sync_dir(directory(self.path)?)
    }
}

fn directory(path: &Path) -> io::Result<&Path> {
    let dir = path.parent().ok_or_else(|| io::Error::from(InvalidInput))?;
    // A name alone is in the directory where we are.
    Ok(match dir.as_os_str().is_empty() {
        true => Path::new("."),
        false => dir,
    })
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Gives a new file to the owner of the one it replaces, or else of its directory: what root writes
/// with a command is for the daemon to read.
fn own(file: &File, path: &Path) -> io::Result<()> {
    let old = fs::symlink_metadata(path).ok().filter(Metadata::is_file);
    match old {
        Some(old) => give(file, &old),
        None => give(file, &fs::metadata(directory(path)?)?),
    }
}

fn give(file: &File, owner: &Metadata) -> io::Result<()> {
    let mine = file.metadata()?;
    if (mine.uid(), mine.gid()) == (owner.uid(), owner.gid()) {
        return Ok(());
    }
    match fchown(file, Some(owner.uid()), Some(owner.gid())) {
        // Only root gives files away; and not to users that a container does not have.
        Err(e) if matches!(e.kind(), PermissionDenied | InvalidInput) => Ok(()),
        given => given,
    }
}

/// Makes a directory and those above it that are missing.
pub(super) fn make_dirs(dir: &Path) -> io::Result<()> {
    match fs::metadata(dir) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let above = dir.parent().filter(|d| !d.as_os_str().is_empty());
    if let Some(above) = above {
        make_dirs(above)?;
    }
    match above {
        Some(above) => make_dir(dir, above)?,
        None => DirBuilder::new().mode(DIRECTORY).create(dir)?,
    }
    if let Some(above) = above {
        sync_dir(above)?;
    }
    Ok(())
}

/// Makes a directory that belongs to the owner of the one above it from the moment it has its name:
/// the daemon looks at once into what it may look into, and warns of what it may not.
fn make_dir(dir: &Path, above: &Path) -> io::Result<()> {
    let made = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(Permissions::from_mode(DIRECTORY))
        .tempdir_in(above)?;
    give(&File::open(made.path())?, &fs::metadata(above)?)?;
    match sys::rename_new(made.path(), dir) {
        Ok(()) => {
            // It has another name now, under which nobody removes it.
            let _ = made.keep();
            Ok(())
        }
        // Somebody else was faster, and may have something in it already.
        Err(e) if matches!(e.kind(), AlreadyExists | DirectoryNotEmpty) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Removes a file and has that on disk.
pub fn remove_file(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    sync_dir(directory(path)?)
}

/// Opens a plain file for reading. What would wait, such as a pipe, is refused.
pub(super) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let file = open_without_waiting(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(InvalidInput, "not a plain file"));
    }
    Ok((file, metadata))
}

/// Reads an open file. One that is too long is given out one byte too long.
pub(super) fn read(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a text file of bounded size ([`MAX_FILE_SIZE`]).
pub fn read_text(path: &Path) -> io::Result<String> {
    let bytes = read(open(path)?.0)?;
    if bytes.len() as u64 > MAX_FILE_SIZE {
        let text = format!("file is larger than {MAX_FILE_SIZE} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "file is not UTF-8"))
}

#[cfg(test)]
mod tests {
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
    fn a_name_alone_is_in_the_directory_where_we_are() {
        assert_eq!(directory(Path::new("token.yaml")).unwrap(), Path::new("."));
        assert_eq!(directory(Path::new("a/b")).unwrap(), Path::new("a"));
        assert!(directory(Path::new("/")).is_err());
    }

    #[test]
    fn writes_modes_and_directories() {
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
    fn full_disk_leaves_the_old_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        write_file(&path, b"old", SHARED).unwrap();
        let full = Staged::new(&path, SHARED, |file| {
            file.write_all(b"ne")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(full.err().unwrap().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(root.path()), ["file"]);
    }

    #[test]
    fn death_before_the_rename_leaves_the_old_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        write_file(&path, b"old", SHARED).unwrap();
        let staged = Staged::new(&path, SHARED, |file| file.write_all(b"new")).unwrap();
        // As after SIGKILL nobody tidies up.
        drop(staged.file.keep().unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let left = names(root.path());
        assert!(
            left.len() == 2 && left[0].starts_with(TEMPORARY),
            "{left:?}"
        );
        assert_eq!(mode(&root.path().join(&left[0])), SHARED);
    }

    #[test]
    fn a_directory_that_can_not_be_written_is_named() {
        let root = tempfile::tempdir().unwrap();
        let blocked = root.path().join("blocked");
        fs::write(&blocked, "a file").unwrap();
        let error = write_file(&blocked.join("x/y"), b"", SHARED).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
        // Not even root writes there.
        assert!(write_file(Path::new("/proc/skupper/file"), b"", SHARED).is_err());
    }

    #[test]
    fn replaces_a_link_and_not_what_it_points_at() {
        let root = tempfile::tempdir().unwrap();
        let (target, link) = (root.path().join("target"), root.path().join("link"));
        fs::write(&target, "target").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_file(&link, b"new", SHARED).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"target");
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
    }

    #[test]
    fn what_root_writes_belongs_to_the_owner_of_the_directory() {
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
    fn what_is_no_plain_file_is_refused_at_once() {
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
    fn long_files_and_bad_texts_are_refused() {
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
}
