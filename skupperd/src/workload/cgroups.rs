//! The tree of control groups (version 2): from the number of a group to its path, its unit and the
//! selectors that match it.

use super::{SystemdUnit, own_group};
use crate::model::{Selector, matches};
use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Time between scans for groups that are not there.
const RESCAN: Duration = Duration::from_secs(2);
/// Deepest level that is read. Real trees are far less deep.
const MAX_DEPTH: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cgroup {
    /// From the root as this process sees it; `/` for the root.
    pub(super) path: String,
    /// The part of `path` below the group that the service manager was started in.
    below: String,
}

#[derive(Debug, Default)]
pub(super) struct CgroupTree {
    groups: HashMap<u64, Cgroup>,
    /// Numbers of groups that were removed, or that this process cannot see.
    missing: HashSet<u64>,
    scanned: Option<Instant>,
    error: Option<String>,
}

impl Cgroup {
    fn new(path: String, manager: &str) -> Self {
        let below = path
            .strip_prefix(manager)
            .filter(|rest| rest.starts_with('/'));
        let below = below.unwrap_or(&path).to_owned();
        Self { path, below }
    }

    /// Names from the top down: slices, a unit of the system manager, and groups within it.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.below.split('/').filter(|name| !name.is_empty())
    }

    /// The innermost unit that is of the system manager or of a user's.
    pub(super) fn unit(&self) -> Option<SystemdUnit> {
        let mut names = self.names().skip_while(|name| is_slice(name));
        let outer = names.next()?;
        let unit = |user, name: &str| SystemdUnit {
            user,
            name: name.to_owned(),
        };
        let Some(user) = manager_of(outer) else {
            return is_unit(outer).then(|| unit(None, outer));
        };
        let inner = names.find(|name| !is_slice(name));
        match inner.filter(|name| is_unit(name)) {
            Some(inner) => Some(unit(Some(user), inner)),
            None => Some(unit(None, outer)),
        }
    }

    /// Whether a selector matches this group or one around it.
    pub(super) fn matches(&self, selector: &Selector) -> bool {
        let names: Vec<&str> = self.names().collect();
        // The number of names down to the first unit.
        let own = |names: &[&str]| {
            let slices = names.iter().take_while(|name| is_slice(name)).count();
            names.len().min(slices + 1)
        };
        let outer = own(&names);
        match selector {
            Selector::Unit(pattern) => names[..outer].iter().any(|name| matches(pattern, name)),
            Selector::UserUnit(user, pattern) => {
                let user = user.unwrap_or_else(crate::sys::user);
                let manager = outer
                    .checked_sub(1)
                    .and_then(|last| manager_of(names[last]));
                let inner = &names[outer..];
                manager == Some(user)
                    && inner[..own(inner)]
                        .iter()
                        .any(|name| matches(pattern, name))
            }
            Selector::Cgroup(pattern) => {
                let parents = self.path.match_indices('/').map(|(at, _)| &self.path[..at]);
                parents
                    .chain([&*self.path])
                    .any(|path| matches(pattern, path))
            }
            Selector::Executable(_) | Selector::User(_) => false,
        }
    }
}

fn is_slice(name: &str) -> bool {
    name.strip_suffix(".slice").is_some()
}

fn is_unit(name: &str) -> bool {
    let suffixes = [".service", ".socket", ".scope"];
    suffixes.iter().any(|suffix| name.ends_with(suffix))
}

/// The user whose manager runs in a unit.
fn manager_of(unit: &str) -> Option<u32> {
    let user = unit.strip_prefix("user@")?.strip_suffix(".service")?;
    user.parse().ok()
}

impl CgroupTree {
    /// Scans the tree if a number is unknown.
    pub(super) fn load(&mut self, numbers: impl Iterator<Item = u64>) {
        let numbers: HashSet<u64> = numbers.filter(|n| *n != 0).collect();
        self.missing.retain(|n| numbers.contains(n));
        let known = |n: &u64| self.groups.contains_key(n) || self.missing.contains(n);
        if numbers.iter().all(known) {
            return;
        }
        self.scan();
        let missing = numbers.iter().filter(|n| !self.groups.contains_key(n));
        self.missing.extend(missing.copied());
    }

    pub(super) fn group(&self, number: u64) -> Option<&Cgroup> {
        self.groups.get(&number)
    }

    /// Whether a selector matches any group.
    pub(super) fn has_match(&mut self, selector: &Selector) -> bool {
        if self.scanned.is_none_or(|at| at.elapsed() >= RESCAN) {
            self.scan();
        }
        self.groups.values().any(|group| group.matches(selector))
    }

    /// Why the tree cannot be read, if so.
    pub(super) fn error(&mut self) -> Option<String> {
        if self.scanned.is_none() {
            self.scan();
        }
        self.error.clone()
    }

    fn scan(&mut self) {
        self.scanned = Some(Instant::now());
        self.groups.clear();
        self.error = match root() {
            Ok(Some(root)) => {
                let manager = own_group().map(|own| above_slices(&own).to_owned());
                let manager = manager.unwrap_or_default();
                self.enter(&root, String::new(), &manager, MAX_DEPTH);
                None
            }
            Ok(None) => Some("this host has no control groups of version 2".to_owned()),
            Err(e) => Some(format!("cannot read /proc/self/mountinfo: {e}")),
        };
    }

    /// A group that cannot be read was removed since.
    fn enter(&mut self, dir: &Path, path: String, manager: &str, depth: usize) {
        let Ok(meta) = fs::metadata(dir) else { return };
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if let (true, Some(name), Some(depth)) = (is_dir, name.to_str(), depth.checked_sub(1)) {
                self.enter(&entry.path(), format!("{path}/{name}"), manager, depth);
            }
        }
        let path = if path.is_empty() {
            "/".to_owned()
        } else {
            path
        };
        self.groups.insert(meta.ino(), Cgroup::new(path, manager));
    }
}

/// The group that the service manager was started in, from one that it created: the part above slices.
fn above_slices(path: &str) -> &str {
    let slice = path.match_indices('/').find(|(at, _)| {
        let name = path[at + 1..].split('/').next().unwrap_or_default();
        is_slice(name)
    });
    slice.map_or("", |(at, _)| &path[..at])
}

/// The mount point of the tree.
fn root() -> io::Result<Option<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mount_point(&text))
}

/// proc_pid_mountinfo(5): the file system type follows a single hyphen.
fn mount_point(mounts: &str) -> Option<PathBuf> {
    let of_line = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let kind = after.split(' ').next()?;
        let path = before.split(' ').nth(4)?;
        (kind == "cgroup2").then(|| PathBuf::from(path))
    };
    mounts.lines().find_map(of_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(path: &str, selector: &str) -> bool {
        Cgroup::new(path.to_owned(), "").matches(&selector.parse().unwrap())
    }

    #[test]
    fn units_and_slices_match_their_groups() {
        let nginx = "/system.slice/nginx.service";
        assert!(is(nginx, "unit=nginx.service") && is(nginx, "unit=ngin*.service"));
        assert!(is(nginx, "slice=system") && !is(nginx, "unit=nginx.socket"));
        let web = "/system.slice/system-web.slice/web@1.service/inner/x";
        assert!(is(web, "unit=web@1.service") && is(web, "unit=web@*.service"));
        assert!(!is(web, "unit=inner") && !is("/", "unit=web@1.service"));
        // A container's manager is another one.
        let nested = "/machine.slice/systemd-nspawn@c.service/payload/system.slice/nginx.service";
        assert!(!is(nested, "unit=nginx.service") && !is(nested, "slice=system"));
        assert!(is(nested, "slice=machine"));
    }

    #[test]
    fn user_units_match_below_the_users_manager() {
        let path = "/user.slice/user-7.slice/user@7.service/app.slice/app-web.slice/web@1.service";
        assert!(is(path, "user-unit=7:web@1.service") && is(path, "user-unit=7:app.slice"));
        assert!(!is(path, "user-unit=8:web@1.service") && !is(path, "unit=web@1.service"));
        assert!(is(path, "unit=user@7.service"));
        let group = Cgroup::new(path.to_owned(), "");
        let name = "web@1.service".to_owned();
        let user = Some(7);
        assert_eq!(group.unit(), Some(SystemdUnit { user, name }));
    }

    #[test]
    fn a_cgroup_selector_matches_groups_below() {
        let path = "/machine.slice/libpod-4f1c.scope/container";
        assert!(
            is(path, "cgroup=/machine.slice/libpod-4f1c.scope")
                && is(path, "cgroup=/machine.slice")
        );
        assert!(
            is(path, "cgroup=/machine.slice/libpod-4*.scope") && is(path, "unit=libpod-4f1c.scope")
        );
        assert!(!is(path, "cgroup=/machine") && !is(path, "cgroup=/machine.slice/a"));
    }

    #[test]
    fn units_of_a_containers_own_manager_are_found() {
        let above = above_slices("/machine/c/payload/system.slice/skupperd.service");
        assert_eq!(above, "/machine/c/payload");
        let group = Cgroup::new(format!("{above}/system.slice/web.service"), above);
        assert!(group.matches(&"unit=web.service".parse().unwrap()));
        assert_eq!(
            (
                above_slices("/system.slice/a.service"),
                above_slices("/a/b")
            ),
            ("", "")
        );
    }

    #[test]
    fn the_mount_point_is_found() {
        let mounts = "31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mounts), Some("/sys/fs/cgroup".into()));
        assert_eq!(mount_point("1 0 0:1 / / rw - tmpfs cgroup2 rw\n"), None);
    }
}
