//! Who may write to the input of a namespace, and so decides what the daemon does for it.
//!
//! A namespace is foreign when others than root, the user and the group of this process can write to
//! its directories or manifests. Everything that uses rights of the daemon asks for that, and the
//! D-Bus service asks who the others are. Both understand modes and POSIX ACLs: with an ACL the group
//! bits of the mode are its mask and say nothing about the group.

use super::{NamespaceDir, files::DirHandle};
use crate::sys;
use std::{
    fmt,
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Why a namespace is foreign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignPath(PathBuf);

impl fmt::Display for ForeignPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not allowed while users other than root and the daemon can write to {}",
            self.0.display()
        )
    }
}

/// Tags of the entries of an ACL, and the version, from linux/posix_acl_xattr.h.
mod acl {
    pub(super) const VERSION: u32 = 2;
    pub(super) const USER: u16 = 0x02;
    pub(super) const GROUP_OBJ: u16 = 0x04;
    pub(super) const GROUP: u16 = 0x08;
    pub(super) const MASK: u16 = 0x10;
    pub(super) const WRITE: u16 = 0x2;
}

/// Who may write to a file or directory. The owner always counts: they may change the mode.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Writers {
    users: Vec<u32>,
    groups: Vec<u32>,
    everybody: bool,
}

impl Writers {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        let mut writers = Self {
            users: vec![meta.uid()],
            groups: Vec::new(),
            everybody: meta.mode() & 0o002 != 0,
        };
        match sys::trusted_path::posix_acl(file)? {
            Some(acl) => writers.add_acl(meta.gid(), &acl)?,
            None if meta.mode() & 0o020 != 0 => writers.groups.push(meta.gid()),
            None => {}
        }
        Ok(writers)
    }

    fn add_acl(&mut self, group: u32, bytes: &[u8]) -> io::Result<()> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "the ACL is not readable");
        let (version, entries) = bytes.split_first_chunk().ok_or_else(bad)?;
        let (entries, rest) = entries.as_chunks::<8>();
        if u32::from_le_bytes(*version) != acl::VERSION || !rest.is_empty() {
            return Err(bad());
        }
        let entries = entries.iter().map(|[t0, t1, p0, p1, i0, i1, i2, i3]| {
            let tag = u16::from_le_bytes([*t0, *t1]);
            let rights = u16::from_le_bytes([*p0, *p1]);
            (
                tag,
                rights & acl::WRITE != 0,
                u32::from_le_bytes([*i0, *i1, *i2, *i3]),
            )
        });
        let mut masks = entries.clone().filter(|(tag, ..)| *tag == acl::MASK);
        if masks.next().is_some_and(|(_, may_write, _)| !may_write) {
            return Ok(());
        }
        for (tag, may_write, id) in entries {
            match tag {
                acl::USER if may_write => self.users.push(id),
                acl::GROUP_OBJ if may_write => self.groups.push(group),
                acl::GROUP if may_write => self.groups.push(id),
                _ => {}
            }
        }
        Ok(())
    }

    /// Others than root, the user and the group of this process.
    fn include_others(&self) -> bool {
        let (user, group) = sys::user_and_group();
        self.everybody
            || self.users.iter().any(|id| ![0, user].contains(id))
            || self.groups.iter().any(|id| ![0, group].contains(id))
    }

    fn name(&self, user: u32, groups: &[u32]) -> bool {
        self.users.contains(&user) || self.groups.iter().any(|id| groups.contains(id))
    }
}

/// A reason to see a namespace as foreign, if a file or directory of its input is one. What cannot be
/// read is one.
pub(super) fn foreign(path: &Path, file: &File) -> Option<ForeignPath> {
    let is_own = Writers::of(file).is_ok_and(|writers| !writers.include_others());
    (!is_own).then(|| ForeignPath(path.to_owned()))
}

impl NamespaceDir {
    /// Whether a user with these groups may change the namespace: its owner, and users who can write
    /// to its directory by group mode or ACL. World-writable grants nothing.
    pub fn may_be_changed_by(&self, user: u32, groups: &[u32]) -> bool {
        let writers = DirHandle::open(&self.home()).and_then(|dir| Writers::of(dir.file()));
        writers.is_ok_and(|writers| writers.name(user, groups))
    }

    /// A reason to see the namespace as foreign in the directories above its manifests.
    pub(super) fn foreign_directory(&self) -> Option<ForeignPath> {
        let dirs = [self.home(), self.input()];
        dirs.iter().find_map(|path| match DirHandle::open(path) {
            Ok(dir) => foreign(path, dir.file()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(_) => Some(ForeignPath(path.clone())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ACL of these entries: tag, rights and id.
    fn bytes(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut acl = acl::VERSION.to_le_bytes().to_vec();
        for (tag, rights, id) in entries {
            acl.extend(tag.to_le_bytes());
            acl.extend(rights.to_le_bytes());
            acl.extend(id.to_le_bytes());
        }
        acl
    }

    fn writers(entries: &[(u16, u16, u32)]) -> Writers {
        let mut writers = Writers {
            users: vec![0],
            groups: Vec::new(),
            everybody: false,
        };
        writers.add_acl(50, &bytes(entries)).unwrap();
        writers
    }

    #[test]
    fn users_and_groups_of_an_acl_are_writers() {
        let mask = (acl::MASK, 7, u32::MAX);
        let alice = writers(&[(acl::USER, 7, 1000), (acl::GROUP_OBJ, 5, u32::MAX), mask]);
        assert!(alice.name(1000, &[]) && alice.include_others());
        // The mode of this directory has write for the group, which is the mask.
        assert!(!alice.name(1001, &[50]));
        let group = writers(&[(acl::GROUP, 6, 60), (acl::GROUP_OBJ, 7, u32::MAX), mask]);
        assert!(group.name(1, &[60]) && group.name(1, &[50]) && !group.name(1, &[61]));
        let masked = writers(&[(acl::USER, 7, 1000), (acl::MASK, 5, u32::MAX)]);
        assert!(!masked.name(1000, &[]));
        let reader = writers(&[(acl::USER, 5, 1000), mask]);
        assert!(!reader.name(1000, &[]));
    }

    #[test]
    fn an_acl_that_is_not_readable_is_an_error() {
        let whole = bytes(&[(acl::USER, 7, 1000)]);
        let mut writers = writers(&[]);
        for bad in [&whole[..3], &whole[..9], &[1; 12][..]] {
            assert!(writers.add_acl(50, bad).is_err());
        }
    }
}
