//! `cargo xtask layers`: a module of `skupperd` uses only modules of lower layers, and what is
//! heavy or dangerous is named only where it belongs.

mod rules;
mod scan;

use crate::sh;
use anyhow::{Context, Result, bail};
use rules::Rules;
use scan::{Mention, What};
use std::{fs, path::Path};

/// The sources that have layers, from the top of the project.
const SOURCES: &str = "skupperd/src";

pub(crate) fn run() -> Result<()> {
    let violations = check(&sh::root().join(SOURCES), &rules::RULES)?;
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

/// What is wrong with the sources below `dir`, a line each.
fn check(dir: &Path, rules: &Rules) -> Result<Vec<String>> {
    let mut files = Vec::new();
    find(dir, &mut files)?;
    files.sort();
    let mut violations = Vec::new();
    let mut used = vec![false; rules.exceptions.len()];
    for file in &files {
        // The root of the library only says which modules there are.
        if file == "lib.rs" {
            continue;
        }
        let text = fs::read_to_string(dir.join(file)).with_context(|| file.clone())?;
        let mentions = scan::scan(file, &text).with_context(|| file.clone())?;
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
    violations.dedup();
    Ok(violations)
}

/// Why a file may not mention this; `None` when it may.
fn verdict(file: &str, what: &What, test: bool, rules: &Rules) -> Option<String> {
    let own = scan::module(file);
    let own = own.first().map_or("", String::as_str);
    // Binaries are above all layers, but not above the rest.
    let own_layer = if own == "bin" {
        rules.layers.len()
    } else {
        rules.layer(own)?
    };
    match what {
        What::Module(other) if other == own => None,
        What::Module(other) => {
            let Some(layer) = rules.layer(other) else {
                return Some(format!("{other} is not in the table of layers"));
            };
            (layer >= own_layer && !rules.sideways.contains(&(own, other)))
                .then(|| format!("{own} (layer {own_layer}) may not use {other} (layer {layer})"))
        }
        What::Crate(name) => {
            let rule = rules
                .crates
                .iter()
                .find(|rule| rule.names.contains(&name.as_str()))?;
            (!rule.allows(own)).then(|| format!("{own} may not use {name}: {}", rule.reason))
        }
        What::Clock(call) => (rules.no_clock.contains(&own) && !test)
            .then(|| format!("{own} is given the time and never reads it: {call}")),
        What::Unsafe => {
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
