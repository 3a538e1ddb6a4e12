//! Finds what a source file mentions. Works on tokens, so that what stands in macros counts and
//! what stands in comments and strings does not.

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use std::iter::Peekable;

/// Something that rules are about, and where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mention {
    pub(super) line: usize,
    pub(super) what: What,
    /// In code for tests only.
    pub(super) test: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A top module of the library.
    Module(String),
    /// The first name of any other path: perhaps a crate.
    Crate(String),
    /// A call that reads the clock.
    Clock(String),
    Unsafe,
}

/// The module path of a file: `link/core.rs` is `link`, `core`.
pub(super) fn module(file: &str) -> Vec<String> {
    let path = file.strip_suffix(".rs").unwrap_or(file);
    path.split('/').map(str::to_owned).collect()
}

pub(super) fn scan(file: &str, text: &str) -> Result<Vec<Mention>> {
    let tokens: TokenStream = text
        .parse()
        .map_err(|e: proc_macro2::LexError| anyhow!("not Rust: {e}"))?;
    let module = module(file);
    let test = module.iter().any(|name| name == "tests");
    let mut scanner = Scanner {
        found: Vec::new(),
        module,
        test,
    };
    scanner.stream(tokens);
    Ok(scanner.found)
}

struct Scanner {
    found: Vec<Mention>,
    /// Of the code that is being read, inline modules included.
    module: Vec<String>,
    test: bool,
}

type Tokens = Peekable<proc_macro2::token_stream::IntoIter>;

impl Scanner {
    fn stream(&mut self, stream: TokenStream) {
        let mut tokens = stream.into_iter().peekable();
        // Of the item that is coming.
        let mut for_test = false;
        let mut after_dot = false;
        while let Some(token) = tokens.next() {
            let dot = after_dot;
            after_dot = false;
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
                    // An item's body, or a statement between two attributes: the mark is used up.
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
            self.mention(name, What::Clock(format!(".{name}()")));
        }
    }

    /// Reads on after the first name of a path, or of what follows `prefix` in a `use`.
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
                // A glob, or generic arguments: what comes first is known.
                _ => break,
            }
        }
        self.whole(&path, first);
    }

    /// The names in braces after a path, each with what may follow it.
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
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        match *names {
            ["unsafe"] => self.mention(at, What::Unsafe),
            ["crate" | "skupperd", module, ..] => {
                self.mention(at, What::Module(module.to_owned()));
            }
            ["super", ..] => {
                let up = names.iter().take_while(|name| **name == "super").count();
                // Up to the root of the library, and down into another module.
                if up == self.module.len()
                    && let Some(module) = names.get(up)
                {
                    self.mention(at, What::Module((*module).to_owned()));
                }
            }
            [first, _, ..] => self.mention(at, What::Crate(first.to_owned())),
            _ => {}
        }
        if let [
            ..,
            "Instant" | "SystemTime" | "Utc" | "Zoned" | "Timestamp",
            "now",
        ] = *names
        {
            self.mention(at, What::Clock(names.join("::")));
        }
    }

    fn mention(&mut self, at: &Ident, what: What) {
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
