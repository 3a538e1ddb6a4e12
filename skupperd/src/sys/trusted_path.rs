//! Opens files without following symbolic links of others.
//!
//! A link is followed if root or the user of this process owns it. Others who may write to a
//! directory on the way cannot redirect this process to a file that they may not read or write
//! themselves. Links that an administrator makes work as usual: mounted secrets, `/var/run`, a
//! namespace that is kept elsewhere.

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat},
    libc,
    sys::stat::Mode,
};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Component, Path, PathBuf},
};

/// Flag that makes the last component of a path fail to open when it is a link.
pub const O_NOFOLLOW: i32 = libc::O_NOFOLLOW;
/// Most links on the way to a file, as in the kernel.
const MAX_LINKS: usize = 40;

/// Opens a file for reading, without waiting for the other end of a pipe.
pub fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    open(path, flags).map(File::from)
}

/// Opens a directory for reading.
pub fn open_dir(path: &Path) -> io::Result<File> {
    open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY).map(File::from)
}

/// Finds a file without opening it, for its metadata.
pub fn find(path: &Path) -> io::Result<File> {
    open(path, OFlag::O_PATH).map(File::from)
}

fn open(path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let flags = flags | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags).resolve(resolve);
    match openat2(AT_FDCWD, path, how) {
        // There is a link on the way; or the kernel or a filter of system calls lacks openat2.
        Err(Errno::ELOOP | Errno::ENOSYS | Errno::EPERM) => open_by_steps(path, flags),
        other => Ok(other?),
    }
}

/// Opens a path one component at a time, and looks at each link before it is followed.
fn open_by_steps(path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let mut dir = start(path)?;
    let mut rest = components(path);
    let mut links = 0;
    while let Some(name) = rest.pop() {
        let step = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found = openat(&dir, name.as_os_str(), step, Mode::empty())?;
        let metadata = File::from(found.try_clone()?).metadata()?;
        if metadata.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::ELOOP.into());
            }
            ensure_trusted(&name, metadata.uid())?;
            // Of the link that was looked at: another may have its name by now.
            let target = PathBuf::from(readlinkat(&found, "")?);
            if target.is_absolute() {
                dir = start(&target)?;
            }
            rest.extend(components(&target));
        } else if rest.is_empty() {
            return Ok(openat(
                &dir,
                name.as_os_str(),
                flags | OFlag::O_NOFOLLOW,
                Mode::empty(),
            )?);
        } else {
            dir = found;
        }
    }
    Ok(openat(&dir, ".", flags, Mode::empty())?)
}

/// Where a path begins.
fn start(path: &Path) -> io::Result<OwnedFd> {
    let start = if path.is_absolute() { "/" } else { "." };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(openat(AT_FDCWD, start, flags, Mode::empty())?)
}

/// Names on a path, the first one last.
fn components(path: &Path) -> Vec<OsString> {
    let name = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    };
    let mut names: Vec<OsString> = path.components().filter_map(name).collect();
    names.reverse();
    names
}

fn ensure_trusted(link: &OsStr, owner: u32) -> io::Result<()> {
    if owner == 0 || owner == super::user() {
        return Ok(());
    }
    let text = format!(
        "{} is a symbolic link of user {owner}; only links of root and of user {} are followed",
        link.display(),
        super::user()
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// The access ACL of a file in the kernel's form (`system.posix_acl_access`, see acl(5)); `None` when
/// the mode says everything.
pub fn posix_acl(file: &File) -> io::Result<Option<Vec<u8>>> {
    // A header and 8 bytes for each entry; file systems keep less than a page.
    let mut acl = vec![0u8; 64 * 1024];
    // SAFETY: the kernel writes at most as many bytes as the buffer has, and the name ends with zero.
    let length = unsafe {
        libc::fgetxattr(
            file.as_raw_fd(),
            c"system.posix_acl_access".as_ptr(),
            acl.as_mut_ptr().cast(),
            acl.len(),
        )
    };
    match usize::try_from(length) {
        Ok(length) => {
            acl.truncate(length);
            Ok(Some(acl))
        }
        Err(_) => match Errno::last() {
            Errno::ENODATA | Errno::EOPNOTSUPP => Ok(None),
            error => Err(error.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        io::Read,
        os::unix::fs::{lchown, symlink},
    };

    fn text(path: &Path) -> io::Result<String> {
        let mut text = String::new();
        open_file(path)?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn own_links_are_followed_and_their_loops_end() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/b/file"), "text").unwrap();
        symlink("a/b", dir.join("relative")).unwrap();
        symlink(dir.join("a"), dir.join("absolute")).unwrap();
        symlink("../../relative/file", dir.join("a/b/up")).unwrap();
        symlink("self", dir.join("self")).unwrap();
        for path in ["a/b/file", "relative/file", "absolute/b/file", "a/b/up"] {
            assert_eq!(text(&dir.join(path)).unwrap(), "text", "{path}");
        }
        let looped = open_file(&dir.join("self")).unwrap_err();
        assert_eq!(looped.raw_os_error(), Some(libc::ELOOP));
        let missing = open_dir(&dir.join("relative/none")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(
            find(&dir.join("absolute"))
                .unwrap()
                .metadata()
                .unwrap()
                .is_dir()
        );
        assert!(open_dir(Path::new("/")).is_ok() && open_dir(Path::new(".")).is_ok());
    }

    #[test]
    fn links_of_others_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        fs::create_dir(dir.join("real")).unwrap();
        fs::write(dir.join("real/file"), "text").unwrap();
        symlink("real", dir.join("theirs")).unwrap();
        symlink("real/file", dir.join("file")).unwrap();
        symlink("theirs", dir.join("ours")).unwrap();
        for link in ["theirs", "file"] {
            if lchown(dir.join(link), Some(4711), None).is_err() {
                println!("skipped: only root gives links away");
                return;
            }
        }
        for path in ["theirs/file", "file", "ours/file"] {
            let error = text(&dir.join(path)).unwrap_err();
            assert!(error.to_string().contains("link of user 4711"), "{error}");
        }
        assert!(open_dir(&dir.join("theirs")).is_err() && find(&dir.join("file")).is_err());
    }

    #[test]
    fn a_file_without_an_acl_has_none() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(posix_acl(&file).unwrap(), None);
    }
}
