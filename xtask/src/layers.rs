//! `cargo xtask layers`: checks that modules of `skupperd` use only modules of lower layers, and
//! that restricted crates are used only where they belong.

mod circles;
mod rules;
mod scan;

use crate::sh;
use anyhow::{Context, Result, bail};
use rules::Rules;
use scan::{Mention, Subject};
use std::{collections::BTreeMap, fs, path::Path};

/// The sources with layers, from the root of the workspace.
const SOURCES: &str = "skupperd/src";

/// Share of all lines that one module may have, as 1 in so many: a larger one has more than one subject.
const LARGEST_SHARE: usize = 10;

pub(crate) fn run() -> Result<()> {
    let sources = sh::root().join(SOURCES);
    let mut violations = check(&sources, &rules::RULES)?;
    violations.extend(oversized(&lines_by_module(&sources)?));
    for violation in &violations {
        eprintln!("layers: {SOURCES}/{violation}");
    }
    if !violations.is_empty() {
        bail!(
            "{} violations of the layers in xtask/src/layers/rules.rs",
            violations.len()
        );
    }
    Ok(())
}

/// Returns one line for each violation below `dir`.
fn check(dir: &Path, rules: &Rules) -> Result<Vec<String>> {
    let mut files = Vec::new();
    find(dir, &mut files)?;
    files.sort();
    let mut violations = Vec::new();
    let mut used = vec![false; rules.exceptions.len()];
    let mut names = Vec::new();
    for file in &files {
        // The root of the library only declares modules.
        if file == "lib.rs" {
            continue;
        }
        let text = fs::read_to_string(dir.join(file)).with_context(|| file.clone())?;
        let (mentions, in_file) = scan::scan(file, &text).with_context(|| file.clone())?;
        names.push((file.clone(), in_file));
        for Mention { line, what, test } in mentions {
            let Some(reason) = verdict(file, &what, test, rules) else {
                continue;
            };
            let exception = rules.exceptions.iter().position(|e| e.matches(file, &what));
            match exception.and_then(|n| used.get_mut(n)) {
                Some(used) => *used = true,
                None => violations.push(format!("{file}:{line}: {reason}")),
            }
        }
    }
    let unused = rules.exceptions.iter().zip(used).filter(|(_, used)| !used);
    violations.extend(unused.map(|(e, _)| {
        format!(
            "{}: the exception for {} is not needed any more",
            e.file, e.what
        )
    }));
    violations.extend(circles(&names, rules));
    violations.dedup();
    Ok(violations)
}

/// Lines of each top-level module, with everything below it.
fn lines_by_module(dir: &Path) -> Result<BTreeMap<String, usize>> {
    let mut files = Vec::new();
    find(dir, &mut files)?;
    let mut lines = BTreeMap::new();
    for file in &files {
        let text = fs::read_to_string(dir.join(file)).with_context(|| file.clone())?;
        let module = scan::module(file).into_iter().next().unwrap_or_default();
        *lines.entry(module).or_default() += text.lines().count();
    }
    Ok(lines)
}

/// Returns one line for each module that is too large.
fn oversized(lines: &BTreeMap<String, usize>) -> Vec<String> {
    let all: usize = lines.values().sum();
    let large = lines.iter().filter(|(_, n)| **n * LARGEST_SHARE > all);
    large
        .map(|(module, n)| {
            format!("{module}: {n} of {all} lines, more than 1 in {LARGEST_SHARE}: split it")
        })
        .collect()
}

/// Returns one line for each circle of files without a reason, and for each reason without a
/// circle.
fn circles(names: &[(String, scan::Names)], rules: &Rules) -> Vec<String> {
    let found = circles::find(names);
    let explained = |circle: &circles::Circle| {
        let known = |c: &&rules::Circle| c.files.iter().all(|f| circle.contains(*f));
        rules
            .circles
            .iter()
            .any(|c| c.files.len() == circle.len() && known(&c))
    };
    let mut lines: Vec<String> = found
        .iter()
        .filter(|circle| !explained(circle))
        .map(|circle| {
            let files: Vec<&str> = circle.iter().map(String::as_str).collect();
            format!("a circle of {} files: {}", files.len(), files.join(", "))
        })
        .collect();
    let stands = |c: &&rules::Circle| {
        let same = |f: &circles::Circle| {
            f.len() == c.files.len() && c.files.iter().all(|file| f.contains(*file))
        };
        found.iter().any(same)
    };
    let gone = rules.circles.iter().filter(|c| !stands(c));
    lines.extend(gone.map(|c| format!("{}: its circle is not there any more", c.files.join(", "))));
    lines
}

/// Why a file may not mention this; `None` if it may.
fn verdict(file: &str, what: &Subject, test: bool, rules: &Rules) -> Option<String> {
    let own = scan::module(file);
    let own = own.first().map_or("", String::as_str);
    // Binaries are above all layers; the other rules apply to them too.
    let own_layer = if own == "bin" {
        rules.layers.len()
    } else {
        rules.layer(own)?
    };
    match what {
        Subject::Module(other) if other == own => None,
        Subject::Module(other) => {
            let Some(layer) = rules.layer(other) else {
                return Some(format!("{other} is not in the table of layers"));
            };
            (layer >= own_layer && !rules.sideways.contains(&(own, other)))
                .then(|| format!("{own} (layer {own_layer}) may not use {other} (layer {layer})"))
        }
        Subject::Crate(name) => {
            let rule = rules
                .crates
                .iter()
                .find(|rule| rule.names.contains(&name.as_str()))?;
            (!rule.allows(file)).then(|| format!("{own} may not use {name}: {}", rule.reason))
        }
        Subject::Clock(call) => (rules::covers(rules.no_clock, file) && !test)
            .then(|| format!("{own} is given the time and never reads it: {call}")),
        Subject::Unsafe => {
            (own != rules.unsafe_in).then(|| format!("unsafe code is in {} only", rules.unsafe_in))
        }
    }
}

/// Rust files below a directory, by their path from there.
fn find(dir: &Path, files: &mut Vec<String>) -> Result<()> {
    let at = || dir.display().to_string();
    for entry in fs::read_dir(dir).with_context(at)? {
        let entry = entry.with_context(at)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().with_context(at)?.is_dir() {
            let mut inner = Vec::new();
            find(&entry.path(), &mut inner)?;
            files.extend(inner.iter().map(|file| format!("{name}/{file}")));
        } else if Path::new(&name).extension().is_some_and(|e| e == "rs") {
            files.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
