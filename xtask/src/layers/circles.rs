//! Circles of files inside a room: files that use each other's items in a loop, so that none of
//! them can be read, moved or tested without the others.
//!
//! An arrow runs from the file that names an item to the file that defines it. Re-exports (`pub
//! use`) in a module's root are resolved. Not counted are items of the modules that contain the
//! file (files of `core/` may use `core.rs`), code for tests, and method calls, whose types a scan
//! of names does not know.

use super::scan::{self, Names};
use std::collections::{BTreeMap, BTreeSet};

/// The files of a circle, in order.
pub(super) type Circle = BTreeSet<String>;

/// Which files each file uses, by position.
type Edges = Vec<BTreeSet<usize>>;

/// The circles among the files of each room. Files are given by their path from the top.
pub(super) fn find(files: &[(String, Names)]) -> Vec<Circle> {
    let modules: BTreeMap<Vec<String>, usize> = files
        .iter()
        .enumerate()
        .map(|(n, (file, _))| (scan::module(file), n))
        .collect();
    let arrows: Edges = files
        .iter()
        .map(|(file, names)| {
            let own = scan::module(file);
            let targets = names.paths.iter();
            let targets = targets.filter_map(|path| definition(path, &modules, files));
            let counts = |to: &usize| {
                let other = scan::module(&files[*to].0);
                own.first() == other.first() && !own.starts_with(&other)
            };
            targets.filter(counts).collect()
        })
        .collect();
    let reach: Vec<BTreeSet<usize>> = (0..files.len()).map(|n| reachable(n, &arrows)).collect();
    let mut circles = BTreeSet::new();
    for (n, there) in reach.iter().enumerate() {
        let together = there.iter().filter(|other| reach[**other].contains(&n));
        let circle: Circle = together.map(|other| files[*other].0.clone()).collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

/// The file that defines what a path from the root of the library names.
fn definition(
    path: &[String],
    modules: &BTreeMap<Vec<String>, usize>,
    files: &[(String, Names)],
) -> Option<usize> {
    let mut known = (1..=path.len()).rev();
    let (length, file) = known.find_map(|n| Some((n, *modules.get(path.get(..n)?)?)))?;
    let Some(item) = path.get(length) else {
        return Some(file);
    };
    match files.get(file)?.1.handed_on.get(item) {
        // One step is enough: the root of the defining module re-exports the item.
        Some(origin) => modules.get(origin).copied().or(Some(file)),
        None => Some(file),
    }
}

/// All files that arrows lead to from this one.
fn reachable(from: usize, arrows: &Edges) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut waiting: Vec<usize> = arrows[from].iter().copied().collect();
    while let Some(file) = waiting.pop() {
        if found.insert(file) {
            waiting.extend(&arrows[file]);
        }
    }
    found
}
