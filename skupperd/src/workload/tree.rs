//! The tree of control groups (version 2), as far as a path tells of a number.

use super::{Unit, own_group};
use crate::model::{Selector, matches};
use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Time between walks for what is not there.
const PAUSE: Duration = Duration::from_secs(2);
/// Deepest group that is looked at; a guard, trees are far less deep.
const DEPTH: usize = 64;

/// A control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// From the root of the tree as this process sees it; `/` alone for the root.
    pub(super) path: String,
    /// The same, below the groups that the service manager was started in.
    below: String,
}

#[derive(Debug, Default)]
pub(super) struct Tree {
    groups: HashMap<u64, Group>,
    /// Groups of sockets that are in no tree any more, or in none that we see.
    lost: HashSet<u64>,
    walked: Option<Instant>,
    trouble: Option<String>,
}

impl Group {
    fn new(path: String, manager: &str) -> Self {
        let below = path
            .strip_prefix(manager)
            .filter(|rest| rest.starts_with('/'));
        let below = below.unwrap_or(&path).to_owned();
        Self { path, below }
    }

    /// Names from the top down: slices, then a unit of the system, then what is in there.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.below.split('/').filter(|name| !name.is_empty())
    }

    /// The unit it is of: the innermost one that a manager we know of has.
    pub(super) fn unit(&self) -> Option<Unit> {
        let mut names = self.names().skip_while(|name| is_slice(name));
        let outer = names.next()?;
        let unit = |user, name: &str| Unit {
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

    /// It is what a selector is about, or in there.
    pub(super) fn is(&self, selector: &Selector) -> bool {
        let names: Vec<&str> = self.names().collect();
        // Slices down to the first unit, and that.
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

/// The user whose manager a unit is.
fn manager_of(unit: &str) -> Option<u32> {
    let user = unit.strip_prefix("user@")?.strip_suffix(".service")?;
    user.parse().ok()
}

impl Tree {
    /// Looks through the tree if there are numbers that are not known yet.
    pub(super) fn know(&mut self, numbers: impl Iterator<Item = u64>) {
        let numbers: HashSet<u64> = numbers.filter(|n| *n != 0).collect();
        self.lost.retain(|n| numbers.contains(n));
        let known = |n: &u64| self.groups.contains_key(n) || self.lost.contains(n);
        if numbers.iter().all(known) {
            return;
        }
        self.walk();
        let lost = numbers.iter().filter(|n| !self.groups.contains_key(n));
        self.lost.extend(lost.copied());
    }

    /// A group by its number.
    pub(super) fn group(&self, number: u64) -> Option<&Group> {
        self.groups.get(&number)
    }

    /// There are groups that a selector is about.
    pub(super) fn has(&mut self, selector: &Selector) -> bool {
        if self.walked.is_none_or(|at| at.elapsed() >= PAUSE) {
            self.walk();
        }
        self.groups.values().any(|group| group.is(selector))
    }

    /// Why nothing is known, where it is so.
    pub(super) fn trouble(&mut self) -> Option<String> {
        if self.walked.is_none() {
            self.walk();
        }
        self.trouble.clone()
    }

    fn walk(&mut self) {
        self.walked = Some(Instant::now());
        self.groups.clear();
        self.trouble = match root() {
            Ok(Some(root)) => {
                let manager = own_group().map(|own| above_slices(&own).to_owned());
                let manager = manager.unwrap_or_default();
                self.enter(&root, String::new(), &manager, DEPTH);
                None
            }
            Ok(None) => Some("there are no control groups of version 2 here".to_owned()),
            Err(e) => Some(format!("/proc/self/mountinfo: {e}")),
        };
    }

    /// Groups come and go meanwhile: what can not be read is not there.
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
        self.groups.insert(meta.ino(), Group::new(path, manager));
    }
}

/// Where the service manager was started, from a group that it has made: it begins with slices.
fn above_slices(path: &str) -> &str {
    let slice = path.match_indices('/').find(|(at, _)| {
        let name = path[at + 1..].split('/').next().unwrap_or_default();
        is_slice(name)
    });
    slice.map_or("", |(at, _)| &path[..at])
}

/// Where the tree is mounted.
fn root() -> io::Result<Option<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mounted(&text))
}

/// proc_pid_mountinfo(5): what is before a single hyphen, then the type.
fn mounted(mounts: &str) -> Option<PathBuf> {
    let place = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let kind = after.split(' ').next()?;
        let place = before.split(' ').nth(4)?;
        (kind == "cgroup2").then(|| PathBuf::from(place))
    };
    mounts.lines().find_map(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(path: &str, selector: &str) -> bool {
        Group::new(path.to_owned(), "").is(&selector.parse().unwrap())
    }

    #[test]
    fn v36_units_are_found_in_the_tree() {
        let nginx = "/system.slice/nginx.service";
        assert!(is(nginx, "unit=nginx.service") && is(nginx, "unit=ngin*.service"));
        assert!(is(nginx, "slice=system") && !is(nginx, "unit=nginx.socket"));
        let web = "/system.slice/system-web.slice/web@1.service/inner/x";
        assert!(is(web, "unit=web@1.service") && is(web, "unit=web@*.service"));
        assert!(!is(web, "unit=inner") && !is("/", "unit=web@1.service"));
        // What runs in a container is of another manager.
        let nested = "/machine.slice/systemd-nspawn@c.service/payload/system.slice/nginx.service";
        assert!(!is(nested, "unit=nginx.service") && !is(nested, "slice=system"));
        assert!(is(nested, "slice=machine"));
    }

    #[test]
    fn v36_units_of_users_are_those_of_their_managers() {
        let path = "/user.slice/user-7.slice/user@7.service/app.slice/app-web.slice/web@1.service";
        assert!(is(path, "user-unit=7:web@1.service") && is(path, "user-unit=7:app.slice"));
        assert!(!is(path, "user-unit=8:web@1.service") && !is(path, "unit=web@1.service"));
        assert!(is(path, "unit=user@7.service"));
        let group = Group::new(path.to_owned(), "");
        let name = "web@1.service".to_owned();
        let user = Some(7);
        assert_eq!(group.unit(), Some(Unit { user, name }));
    }

    #[test]
    fn v36_groups_are_taken_with_what_is_below() {
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
    fn the_manager_of_a_container_has_its_tree_further_down() {
        let above = above_slices("/machine/c/payload/system.slice/skupperd.service");
        assert_eq!(above, "/machine/c/payload");
        let group = Group::new(format!("{above}/system.slice/web.service"), above);
        assert!(group.is(&"unit=web.service".parse().unwrap()));
        assert_eq!(
            (
                above_slices("/system.slice/a.service"),
                above_slices("/a/b")
            ),
            ("", "")
        );
    }

    #[test]
    fn the_tree_is_where_it_is_mounted() {
        let mounts = "31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted(mounts), Some("/sys/fs/cgroup".into()));
        assert_eq!(mounted("1 0 0:1 / / rw - tmpfs cgroup2 rw\n"), None);
    }
}
