//! Writes a file as a whole or not at all, and reads one with a bound on its size.

use crate::{
    manifest::MAX_FILE_SIZE,
    sys::{
        self, open_without_waiting,
        trusted_path::{O_NOFOLLOW, open_dir, open_file},
    },
};
use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io::{
        self,
        ErrorKind::{AlreadyExists, DirectoryNotEmpty, InvalidInput, NotFound, PermissionDenied},
        Read, Write,
    },
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    },
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// Mode of files with secrets.
pub const PRIVATE: u32 = 0o600;
/// Mode of other files.
pub const SHARED: u32 = 0o640;
/// Mode of files for every program of the host.
pub const PUBLIC: u32 = 0o644;
/// Mode of new directories.
const DIRECTORY: u32 = 0o700;
/// Prefix of temporary files and directories.
pub(super) const TEMPORARY: &str = ".skupper-";

/// An open directory, through which its files are named: renaming its parents does not replace it.
pub(super) struct DirHandle(File);

impl DirHandle {
    /// Opens a directory without following links of others.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        open_dir(dir).map(Self)
    }

    pub(super) fn file(&self) -> &File {
        &self.0
    }

    /// The path of a file in it, for as long as the handle lives.
    pub(super) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

/// Writes a file atomically: to a temporary file beside it, synced, then renamed. After an error or a
/// crash at any point there is the old file or the complete new one. Missing directories are made.
/// `mode` applies whatever the umask is. The file gets the owner of the one that it replaces, or else of
/// its directory.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    StagedFile::new(path, mode, |file| file.write_all(bytes))?.commit()
}

/// Like [`write_file`], for a file that the user of the command names: it belongs to that user,
/// regardless of the directory's owner.
pub fn write_own(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let staged = StagedFile::stage(path, mode, false, |file| file.write_all(bytes))?;
    staged.commit()
}

/// The error without the random name of a temporary file, which would make each one look like a new one.
fn without_path(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|e| e.source());
    let cause = cause.and_then(|e| e.downcast_ref::<io::Error>());
    match cause.and_then(io::Error::raw_os_error) {
        Some(number) => io::Error::from_raw_os_error(number),
        None => error,
    }
}

/// A complete file on disk that does not have its name yet.
pub(super) struct StagedFile {
    // Dropped before the directory that its path leads through.
    file: NamedTempFile,
    dir: DirHandle,
    name: OsString,
}

impl StagedFile {
    pub(super) fn new(
        path: &Path,
        mode: u32,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<Self> {
        Self::stage(path, mode, true, fill)
    }

    /// `inherit`: the file gets the owner of the one that it replaces, or else of its directory.
    fn stage(
        path: &Path,
        mode: u32,
        inherit: bool,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<Self> {
        let (dir, name) = split(path)?;
        let dir = make_dirs(dir)?;
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .permissions(Permissions::from_mode(PRIVATE))
            .tempfile_in(dir.path())
            .map_err(without_path)?;
        fill(file.as_file_mut())?;
        // The owner first: changing it may clear bits of the mode.
        if inherit {
            set_owner(file.as_file(), &dir, name)?;
        }
        file.as_file()
            .set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        let name = name.to_owned();
        Ok(Self { file, dir, name })
    }

    pub(super) fn commit(self) -> io::Result<()> {
        self.file
            .persist(self.dir.join(&self.name))
            .map_err(|e| e.error)?;
        self.dir.sync()
    }
}

/// The directory of a path, and the name in it.
pub(super) fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let invalid = || io::Error::from(InvalidInput);
    let dir = path.parent().ok_or_else(invalid)?;
    let name = path.file_name().ok_or_else(invalid)?;
    // A name without a directory is in the current one.
    Ok(match dir.as_os_str().is_empty() {
        true => (Path::new("."), name),
        false => (dir, name),
    })
}

/// Gives a new file the owner of the one that it replaces, or else of its directory: the daemon must be
/// able to read what root writes with the command.
fn set_owner(file: &File, dir: &DirHandle, name: &OsStr) -> io::Result<()> {
    let old = fs::symlink_metadata(dir.join(name)).ok();
    match old.filter(Metadata::is_file) {
        Some(old) => copy_owner(file, &old),
        None => copy_owner(file, &dir.file().metadata()?),
    }
}

pub(super) fn copy_owner(file: &File, owner: &Metadata) -> io::Result<()> {
    let mine = file.metadata()?;
    if (mine.uid(), mine.gid()) == (owner.uid(), owner.gid()) {
        return Ok(());
    }
    match fchown(file, Some(owner.uid()), Some(owner.gid())) {
        // Only root may; and even root cannot in a container that lacks the user.
        Err(e) if matches!(e.kind(), PermissionDenied | InvalidInput) => Ok(()),
        given => given,
    }
}

/// Opens a directory, which is made with its missing parents.
pub(super) fn make_dirs(dir: &Path) -> io::Result<DirHandle> {
    match DirHandle::open(dir) {
        Err(e) if e.kind() == NotFound => {}
        other => return other,
    }
    let (above, name) = split(dir)?;
    let above = make_dirs(above)?;
    make_dir(&above, name)?;
    above.sync()?;
    DirHandle::open(dir)
}

/// Makes a directory that has the owner of its parent from the moment it has its name: the daemon reads a
/// new directory at once, and would warn if it were not allowed to.
fn make_dir(above: &DirHandle, name: &OsStr) -> io::Result<()> {
    let made = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(Permissions::from_mode(DIRECTORY))
        .tempdir_in(above.path())
        .map_err(without_path)?;
    copy_owner(&File::open(made.path())?, &above.file().metadata()?)?;
    match sys::rename_new(made.path(), &above.join(name)) {
        Ok(()) => {
            // Renamed: there is no temporary directory left to remove.
            let _ = made.keep();
            Ok(())
        }
        // Another process was faster, and may have files in it already.
        Err(e) if matches!(e.kind(), AlreadyExists | DirectoryNotEmpty) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Removes a file, and syncs its directory.
pub fn remove_file(path: &Path) -> io::Result<()> {
    let (dir, name) = split(path)?;
    let dir = DirHandle::open(dir)?;
    fs::remove_file(dir.join(name))?;
    dir.sync()
}

/// Appends a line to a file, which is made if it is missing, and syncs it.
pub fn append_line(path: &Path, line: &[u8]) -> io::Result<()> {
    let (dir, name) = split(path)?;
    let dir = make_dirs(dir)?;
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(PRIVATE);
    let mut file = options.custom_flags(O_NOFOLLOW).open(dir.join(name))?;
    copy_owner(&file, &dir.file().metadata()?)?;
    file.write_all(&[line, b"\n"].concat())?;
    file.sync_data()
}

/// Opens a regular file for reading. Anything that could block, such as a pipe, is refused.
pub(super) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    regular(open_file(path)?)
}

fn regular(file: File) -> io::Result<(File, Metadata)> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(InvalidInput, "not a plain file"));
    }
    Ok((file, metadata))
}

/// Reads an open file. Of one that is longer than [`MAX_FILE_SIZE`] one byte more than that is read.
pub(super) fn read(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a text file of bounded size ([`MAX_FILE_SIZE`]).
pub fn read_text(path: &Path) -> io::Result<String> {
    text_of(open(path)?.0)
}

/// Like [`read_text`], for a file that the user of the command names: links lead where the user would
/// get without the command.
pub fn read_named(path: &Path) -> io::Result<String> {
    text_of(regular(open_without_waiting(path)?)?.0)
}

fn text_of(file: File) -> io::Result<String> {
    let bytes = read(file)?;
    if bytes.len() as u64 > MAX_FILE_SIZE {
        let text = format!("file is larger than {MAX_FILE_SIZE} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "file is not UTF-8"))
}

#[cfg(test)]
mod tests;
