//! Names that the project does not use for types, functions and files: words that had several
//! meanings in the tree, or that a search finds everywhere. Part of `cargo xtask lint`.

use crate::sh;
use anyhow::{Context, Result, bail};
use proc_macro2::{Ident, TokenStream, TokenTree};
use std::{fs, path::Path};

/// Source trees, from the root of the workspace.
const SOURCES: [&str; 6] = [
    "skupperd/src",
    "skupperd/tests",
    "skupper-ebpf/src",
    "tests",
    "xtask/src",
    "fuzz/fuzz_targets",
];

/// Types and traits; in snake case also files and modules.
const TYPES: [&str; 32] = [
    "Back", "Bound", "Desk", "Door", "Doors", "Ends", "Front", "Gate", "Given", "Held", "Inside",
    "Insides", "Kept", "Ledger", "Look", "Picture", "Place", "Places", "Secured", "Seen", "Served",
    "Shelf", "Standing", "Telling", "Told", "Turn", "Turns", "Watched", "Watching", "Way", "Which",
    "Wish",
];

/// Functions; `tell_` also as a prefix.
const FUNCTIONS: [&str; 14] = [
    "alone", "furnish", "inside", "look", "of_site", "place", "placed", "places", "said", "shelf",
    "standing", "tell", "told", "turn",
];

pub(crate) fn lint() -> Result<()> {
    let found = check(sh::root())?;
    for line in &found {
        eprintln!("names: {line}");
    }
    if !found.is_empty() {
        bail!("{} names of the list in xtask/src/names.rs", found.len());
    }
    Ok(())
}

/// Returns `file:line: name` for each banned definition below `root`.
fn check(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for dir in SOURCES {
        find(root, dir, &mut files)?;
    }
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let stem = file.rsplit('/').next().and_then(|f| f.strip_suffix(".rs"));
        if stem.is_some_and(|stem| TYPES.iter().any(|t| t.to_lowercase() == stem)) {
            found.push(format!("{file}: the name of the file"));
        }
        let text = fs::read_to_string(root.join(&file)).with_context(|| file.clone())?;
        let tokens: TokenStream = text
            .parse()
            .map_err(|e| anyhow::anyhow!("{file}: cannot read tokens: {e}"))?;
        let mut names = Vec::new();
        definitions(tokens, &mut names);
        let names = names.iter().map(|name| (name, name.to_string()));
        found.extend(
            names.map(|(name, text)| format!("{file}:{}: {text}", name.span().start().line)),
        );
    }
    Ok(found)
}

/// Collects the banned names that are defined in these tokens.
fn definitions(tokens: TokenStream, found: &mut Vec<Ident>) {
    let mut keyword = String::new();
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => {
                let name = ident.to_string();
                let banned = match keyword.as_str() {
                    "struct" | "enum" | "union" | "trait" | "type" => is_banned_type(&name),
                    "fn" => FUNCTIONS.contains(&name.as_str()) || name.starts_with("tell_"),
                    _ => false,
                };
                if banned {
                    found.push(ident);
                }
                keyword = name;
            }
            TokenTree::Group(group) => {
                keyword.clear();
                definitions(group.stream(), found);
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => keyword.clear(),
        }
    }
}

fn is_banned_type(name: &str) -> bool {
    TYPES.contains(&name)
}

/// Finds the Rust files below `root/dir`, by their path from the root. A tree without the directory
/// has none.
fn find(root: &Path, dir: &str, files: &mut Vec<String>) -> Result<()> {
    let path = root.join(dir);
    if !path.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| dir.to_owned())? {
        let entry = entry.with_context(|| dir.to_owned())?;
        let file = format!("{dir}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().with_context(|| file.clone())?.is_dir() {
            find(root, &file, files)?;
        } else if Path::new(&file).extension().is_some_and(|e| e == "rs") {
            files.push(file);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, text: &str) -> Vec<String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, text).expect("written");
        check(dir.path()).expect("readable")
    }

    #[test]
    fn a_banned_type_function_or_file_is_found_with_its_line() {
        let file = "skupperd/src/a.rs";
        for (text, expected) in [
            ("\npub(crate) struct Kept<T>(T);", "a.rs:2: Kept"),
            ("type Told = u8;", "a.rs:1: Told"),
            ("mod x { pub enum Wish { A } }", "a.rs:1: Wish"),
            ("impl A { fn look(&self) {} }", "a.rs:1: look"),
            ("fn tell_links() {}", "a.rs:1: tell_links"),
        ] {
            assert_eq!(found(file, text), [format!("skupperd/src/{expected}")]);
        }
        let expected = ["tests/netns/doors.rs: the name of the file"];
        assert_eq!(found("tests/netns/doors.rs", ""), expected);
    }

    #[test]
    fn uses_variants_strings_and_longer_names_are_no_findings() {
        let text = r#"
            // struct Kept
            enum Event { Kept, Window }
            fn kept_sockets(place: &str) { look(place); "fn told()"; }
            struct KeptAlive;
        "#;
        assert_eq!(found("tests/src/a.rs", text), [""; 0]);
    }

    /// The workspace itself: the check of `cargo xtask lint`.
    #[test]
    fn the_project_uses_no_banned_name() {
        assert_eq!(check(sh::root()).expect("readable"), [""; 0]);
    }
}
