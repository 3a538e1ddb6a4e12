//! Names of types, functions, fields and files. Part of `cargo xtask lint`.
//!
//! Refused are words that had several meanings in the tree or that a search finds everywhere, and a
//! type of `skupperd` with the name of another one.

use crate::sh;
use anyhow::{Context, Result, bail};
use proc_macro2::{Delimiter, Ident, Spacing, TokenStream, TokenTree};
use std::{collections::BTreeMap, fs, path::Path};

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
const TYPES: [&str; 36] = [
    "Answer", "Back", "Bound", "Desk", "Door", "Doors", "Ends", "Front", "Gate", "Given", "Held",
    "Holding", "Inside", "Insides", "Kept", "Ledger", "Look", "News", "Picture", "Place", "Places",
    "Secured", "Seen", "Served", "Shelf", "Standing", "Telling", "Told", "Turn", "Turns",
    "Watched", "Watching", "Way", "Which", "Window", "Wish",
];

/// Words of [`TYPES`] that a file may have as its name.
const FILES: [&str; 1] = ["answer"];

/// Functions; `tell_` also as a prefix.
const FUNCTIONS: [&str; 18] = [
    "alone", "furnish", "held", "inside", "look", "of_site", "place", "placed", "places", "said",
    "seen", "served", "shelf", "standing", "tell", "told", "turn", "watched",
];

/// Fields.
const FIELDS: [&str; 10] = [
    "about", "again", "cur", "held", "next", "out", "said", "st", "told", "up",
];

/// Types of `skupperd` that may have the same name, and why.
const SHARED: [(&str, &str); 14] = [
    ("Certificates", "the kind, in the command and in reconcile"),
    ("Connectors", "the kind, in the command and in the core"),
    ("Edge", "an edge, as its site and as the router know it"),
    (
        "Edges",
        "the edges, as their site and as the router know them",
    ),
    ("Error", "a performative of AMQP; an error of D-Bus"),
    (
        "InputError",
        "an entry of a list, at the two ends of a D-Bus call",
    ),
    ("Listeners", "the kind, in the command and in the core"),
    ("LoadedPrograms", "with and without eBPF"),
    ("Options", "the options of a D-Bus call, at its two ends"),
    (
        "Role",
        "of an AMQP link, as the specification has it; of a Skupper link",
    ),
    ("Secret", "as it is written, and validated"),
    ("Site", "the resource, and the site that the core runs"),
    (
        "Uplink",
        "of an edge, as its site and as the router know it",
    ),
    ("Verb", "the verbs of each noun of the command"),
];

pub(crate) fn lint() -> Result<()> {
    let found = check(sh::root())?;
    for line in &found {
        eprintln!("names: {line}");
    }
    if !found.is_empty() {
        bail!("{} names that xtask/src/names.rs refuses", found.len());
    }
    Ok(())
}

/// Returns `file:line: name` for each refused definition below `root`.
fn check(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for dir in SOURCES {
        find(root, dir, &mut files)?;
    }
    files.sort();
    let mut found = Vec::new();
    let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files {
        let stem = file.rsplit('/').next().and_then(|f| f.strip_suffix(".rs"));
        let is_type = |stem: &&str| TYPES.iter().any(|t| t.to_lowercase() == **stem);
        if stem.is_some_and(|stem| is_type(&stem) && !FILES.contains(&stem)) {
            found.push(format!("{file}: the name of the file"));
        }
        let text = fs::read_to_string(root.join(&file)).with_context(|| file.clone())?;
        let tokens: TokenStream = text
            .parse()
            .map_err(|e| anyhow::anyhow!("{file}: cannot read tokens: {e}"))?;
        let mut definitions = Vec::new();
        collect(tokens, Body::Items, &mut definitions);
        for definition in definitions {
            let name = definition.name.to_string();
            let line = definition.name.span().start().line;
            let at = format!("{file}:{line}: {name}");
            if definition.is_refused(&name) {
                found.push(at);
            } else if definition.kind == Kind::Type && must_be_unique(&file) {
                types.entry(name).or_default().push(at);
            }
        }
    }
    let is_shared = |name: &str| SHARED.iter().any(|(shared, _)| *shared == name);
    for (_, at) in types.into_iter().filter(|(name, _)| !is_shared(name)) {
        let (first, others) = at.split_first().context("a type")?;
        found.extend(others.iter().map(|at| format!("{at}: as in {first}")));
    }
    Ok(found)
}

/// Files of `skupperd` without its tests and its programs.
fn must_be_unique(file: &str) -> bool {
    let path = file.strip_prefix("skupperd/src/");
    path.is_some_and(|path| !path.starts_with("bin/") && !path.contains("tests"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Type,
    /// A type of an `impl` or a trait.
    AssociatedType,
    Function,
    Field,
}

struct Definition {
    kind: Kind,
    name: Ident,
}

impl Definition {
    fn is_refused(&self, name: &str) -> bool {
        match self.kind {
            Kind::Type | Kind::AssociatedType => TYPES.contains(&name),
            Kind::Function => FUNCTIONS.contains(&name) || name.starts_with("tell_"),
            Kind::Field => FIELDS.contains(&name),
        }
    }
}

/// What is between braces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    /// Items or statements.
    Items,
    /// Items of an `impl` or a trait.
    Members,
    Variants,
    Fields,
}

/// Collects what is defined in these tokens, without modules named `tests`.
fn collect(tokens: TokenStream, body: Body, found: &mut Vec<Definition>) {
    let mut keyword = String::new();
    let mut next_body = Body::Items;
    let mut is_tests = false;
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(ident) => {
                let name = ident.to_string();
                match name.as_str() {
                    "struct" | "union" => next_body = Body::Fields,
                    "enum" => next_body = Body::Variants,
                    "impl" | "trait" => next_body = Body::Members,
                    "fn" | "mod" => next_body = Body::Items,
                    _ => {}
                }
                let is_field = body == Body::Fields
                    && matches!(tokens.peek(), Some(TokenTree::Punct(p))
                        if p.as_char() == ':' && p.spacing() == Spacing::Alone);
                let kind = match keyword.as_str() {
                    "struct" | "enum" | "union" | "trait" => Some(Kind::Type),
                    "type" if body == Body::Members => Some(Kind::AssociatedType),
                    "type" => Some(Kind::Type),
                    "fn" => Some(Kind::Function),
                    _ => is_field.then_some(Kind::Field),
                };
                is_tests = keyword == "mod" && name == "tests";
                keyword = name;
                found.extend(kind.map(|kind| Definition { kind, name: ident }));
            }
            TokenTree::Group(group) => {
                keyword.clear();
                let is_braced = group.delimiter() == Delimiter::Brace;
                let inner = match body {
                    _ if !is_braced => Body::Items,
                    Body::Variants => Body::Fields,
                    _ => std::mem::replace(&mut next_body, Body::Items),
                };
                if !(is_braced && std::mem::take(&mut is_tests)) {
                    collect(group.stream(), inner, found);
                }
            }
            TokenTree::Punct(punct) => {
                keyword.clear();
                if punct.as_char() == ';' {
                    next_body = Body::Items;
                }
            }
            TokenTree::Literal(_) => keyword.clear(),
        }
    }
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
            ("struct A { pub(crate) next: u64 }", "a.rs:1: next"),
            ("enum A { B { x: u8, held: u8 } }", "a.rs:1: held"),
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
            fn kept_sockets(place: &str, next: u8) { look(place); "fn told()"; }
            struct KeptAlive { next_slot: next::Slot, count: u8 }
        "#;
        assert_eq!(found("tests/src/a.rs", text), [""; 0]);
    }

    #[test]
    fn a_second_type_of_a_name_is_found_unless_shared_or_of_tests() {
        let file = "skupperd/src/a.rs";
        let text = "struct A; impl B for A { type C = u8; } trait C {} mod x { enum A {} }\n\
            mod y { struct Site; } struct Site; mod tests { struct C; }";
        let expected = ["skupperd/src/a.rs:1: A: as in skupperd/src/a.rs:1: A"];
        assert_eq!(found(file, text), expected);
        assert_eq!(found("skupperd/src/a/tests.rs", text), [""; 0]);
        assert_eq!(found("xtask/src/a.rs", text), [""; 0]);
    }

    /// The workspace itself: the check of `cargo xtask lint`.
    #[test]
    fn the_project_uses_no_banned_name() {
        assert_eq!(check(sh::root()).expect("readable"), [""; 0]);
    }
}
