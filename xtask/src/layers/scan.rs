//! Finds the names in a source file. Works on tokens, so that macros count, and comments and
//! strings do not.

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use std::{
    collections::{BTreeMap, BTreeSet},
    iter::Peekable,
};

/// A use of something that the rules restrict.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mention {
    pub(super) line: usize,
    pub(super) what: Subject,
    pub(super) test: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// A top module of the library.
    Module(String),
    /// The first name of any other path: perhaps a crate.
    Crate(String),
    /// A call that reads the clock.
    Clock(String),
    Unsafe,
}

/// Names in a file that refer to other files, without those in tests.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Paths from the root of the library.
    pub(super) paths: BTreeSet<Vec<String>>,
    /// Items of other modules that this one re-exports, with the path of their module.
    pub(super) handed_on: BTreeMap<String, Vec<String>>,
}

/// The module path of a file: `link/core.rs` is `link`, `core`.
pub(super) fn module(file: &str) -> Vec<String> {
    let path = file.strip_suffix(".rs").unwrap_or(file);
    path.split('/').map(str::to_owned).collect()
}

pub(super) fn scan(file: &str, text: &str) -> Result<(Vec<Mention>, Names)> {
    let tokens: TokenStream = text
        .parse()
        .map_err(|e: proc_macro2::LexError| anyhow!("not Rust: {e}"))?;
    let module = module(file);
    let test = module.iter().any(|name| name == "tests");
    let mut scanner = Scanner {
        found: Vec::new(),
        module,
        test,
        children: BTreeSet::new(),
        handing_on: false,
        paths: Vec::new(),
        handed_on: Vec::new(),
        used: BTreeMap::new(),
    };
    scanner.stream(tokens);
    let names = scanner.names();
    Ok((scanner.found, names))
}

struct Scanner {
    found: Vec<Mention>,
    /// Module of the current code, including inline modules.
    module: Vec<String>,
    test: bool,
    /// Child modules that are files.
    children: BTreeSet<String>,
    /// The current path is in a `pub use`.
    handing_on: bool,
    /// Paths as written, with the module that they are in.
    paths: Vec<(Vec<String>, Vec<String>)>,
    /// The same for `pub use`.
    handed_on: Vec<(Vec<String>, Vec<String>)>,
    /// Number of occurrences of each name.
    used: BTreeMap<String, usize>,
}

type Tokens = Peekable<proc_macro2::token_stream::IntoIter>;

impl Scanner {
    fn stream(&mut self, stream: TokenStream) {
        let mut tokens = stream.into_iter().peekable();
        // Whether the next item is for tests.
        let mut for_test = false;
        let mut after_dot = false;
        let mut public = false;
        while let Some(token) = tokens.next() {
            let dot = after_dot;
            after_dot = false;
            if let TokenTree::Ident(ident) = &token {
                if ident == "use" {
                    self.handing_on = public;
                }
                public = ident == "pub";
            }
            match token {
                TokenTree::Ident(ident) if ident == "mod" => {
                    self.inline_module(&mut tokens, for_test);
                    for_test = false;
                }
                TokenTree::Ident(ident) if dot => self.method(&ident),
                TokenTree::Ident(ident) => self.path(Vec::new(), &ident, &mut tokens),
                TokenTree::Group(group) => {
                    let inner = group.stream();
                    if group.delimiter() == Delimiter::Bracket && is_cfg_test(&inner) {
                        for_test = true;
                    }
                    // The body of the item, or a statement between two attributes, ends the effect
                    // of the attribute.
                    let before = self.test;
                    if group.delimiter() == Delimiter::Brace {
                        self.test |= std::mem::take(&mut for_test);
                    }
                    self.stream(inner);
                    self.test = before;
                }
                TokenTree::Punct(punct) => {
                    after_dot = punct.as_char() == '.';
                    if punct.as_char() == ';' {
                        for_test = false;
                        self.handing_on = false;
                    }
                }
                TokenTree::Literal(_) => {}
            }
        }
    }

    fn inline_module(&mut self, tokens: &mut Tokens, for_test: bool) {
        let Some(TokenTree::Ident(name)) = tokens.next() else {
            return;
        };
        if !matches!(tokens.peek(), Some(TokenTree::Group(_))) && !for_test {
            self.children.insert(name.to_string());
        }
        if let Some(TokenTree::Group(body)) = tokens.peek() {
            let body = body.stream();
            tokens.next();
            let before = self.test;
            self.test |= for_test;
            self.module.push(name.to_string());
            self.stream(body);
            self.module.pop();
            self.test = before;
        }
    }

    fn method(&mut self, name: &Ident) {
        if name == "elapsed" {
            self.mention(name, Subject::Clock(format!(".{name}()")));
        }
    }

    /// Reads the rest of a path, or of a `use` tree, after its first name.
    fn path(&mut self, mut path: Vec<String>, first: &Ident, tokens: &mut Tokens) {
        path.push(first.to_string());
        while take_colons(tokens) {
            match tokens.peek() {
                Some(TokenTree::Ident(name)) => {
                    path.push(name.to_string());
                    tokens.next();
                }
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    let group = group.stream();
                    tokens.next();
                    self.use_tree(&path, group);
                    return;
                }
                // A glob or generic arguments end the path.
                _ => break,
            }
        }
        self.whole(&path, first);
    }

    /// Reads the `use` tree in braces after a path.
    fn use_tree(&mut self, path: &[String], group: TokenStream) {
        let mut tokens = group.into_iter().peekable();
        let mut start = true;
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(name) if start => {
                    self.path(path.to_vec(), &name, &mut tokens);
                    start = false;
                }
                TokenTree::Punct(punct) => start = punct.as_char() == ',',
                _ => start = false,
            }
        }
    }

    fn whole(&mut self, path: &[String], at: &Ident) {
        if !self.test {
            let here = (path.to_vec(), self.module.clone());
            for name in path {
                *self.used.entry(name.clone()).or_default() += 1;
            }
            if self.handing_on {
                self.handed_on.push(here);
            } else if path.len() > 1 {
                self.paths.push(here);
            }
        }
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        match *names {
            ["unsafe"] => self.mention(at, Subject::Unsafe),
            ["crate" | "skupperd", module, ..] => {
                self.mention(at, Subject::Module(module.to_owned()));
            }
            ["super", ..] => {
                let up = names.iter().take_while(|name| **name == "super").count();
                // `super` led to the root of the library.
                if up == self.module.len()
                    && let Some(module) = names.get(up)
                {
                    self.mention(at, Subject::Module((*module).to_owned()));
                }
            }
            [first, _, ..] => self.mention(at, Subject::Crate(first.to_owned())),
            _ => {}
        }
        if let [
            ..,
            "Instant" | "SystemTime" | "Utc" | "Zoned" | "Timestamp",
            "now",
        ] = *names
        {
            self.mention(at, Subject::Clock(names.join("::")));
        }
    }

    /// The paths that were found, each from the root of the library.
    fn names(&self) -> Names {
        let mut names = Names::default();
        let absolute = |(path, module): &(Vec<String>, Vec<String>)| self.absolute(path, module);
        names.paths.extend(self.paths.iter().filter_map(absolute));
        for path in self.handed_on.iter().filter_map(absolute) {
            let Some((item, module)) = path.split_last() else {
                continue;
            };
            // A second occurrence means that the module uses the re-exported item itself.
            if self.used.get(item).is_some_and(|times| *times > 1) {
                names.paths.insert(path.clone());
            }
            names.handed_on.insert(item.clone(), module.to_vec());
        }
        names
    }

    fn absolute(&self, path: &[String], module: &[String]) -> Option<Vec<String>> {
        let up = path.iter().take_while(|name| *name == "super").count();
        let (base, rest) = match path.first()?.as_str() {
            "crate" | "skupperd" => (&module[..0], path.get(1..)?),
            "self" => (module, path.get(1..)?),
            "super" => (
                module.get(..module.len().checked_sub(up)?)?,
                path.get(up..)?,
            ),
            child if self.children.contains(child) => (module, path),
            _ => return None,
        };
        Some(base.iter().chain(rest).cloned().collect())
    }

    fn mention(&mut self, at: &Ident, what: Subject) {
        self.found.push(Mention {
            line: at.span().start().line,
            what,
            test: self.test,
        });
    }
}

/// Takes `::` when it comes next.
fn take_colons(tokens: &mut Tokens) -> bool {
    let colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == ':');
    let joint = matches!(tokens.peek(), Some(TokenTree::Punct(p))
        if p.as_char() == ':' && p.spacing() == proc_macro2::Spacing::Joint);
    if joint {
        tokens.next();
    }
    joint && colon(tokens.peek()) && tokens.next().is_some()
}

fn is_cfg_test(attribute: &TokenStream) -> bool {
    let mut tokens = attribute.clone().into_iter();
    let is_cfg = matches!(tokens.next(), Some(TokenTree::Ident(name)) if name == "cfg");
    let Some(TokenTree::Group(group)) = tokens.next() else {
        return false;
    };
    let mut inner = group.stream().into_iter();
    let is_test = matches!(inner.next(), Some(TokenTree::Ident(name)) if name == "test");
    is_cfg && is_test && inner.next().is_none()
}
