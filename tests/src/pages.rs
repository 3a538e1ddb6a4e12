//! Reads pages of documentation for tests.
//!
//! A fenced block's first word is its language. The words after it, which a rendered page does not
//! show, tell tests what to do with the block:
//!
//! | block | what a test does |
//! |---|---|
//! | `sh HOST` | runs it on that host; it must succeed |
//! | `sh HOST until` | the same, again and again until the `text` block that follows is printed |
//! | `sh HOST fails` | runs it; it must fail |
//! | `sh machine` | runs it on a machine with systemd and the packages, at level 3 |
//! | `sh` | parses each line that calls `skupper` or `skupperd` |
//! | `yaml HOST FILE` | writes it into that host's working directory |
//! | `yaml` | reads it as a manifest |
//! | `text` | lines that the block before it printed, each in any place; blanks count as one |
//!
//! With the comment `<!-- run: linked -->` at the head of a page, the hosts `east` and `west` are
//! linked first; with `<!-- run: empty -->` they only run a daemon.

use crate::workspace;
use std::{fs, path::PathBuf};

/// A fenced block of code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Line of the opening fence, from 1.
    pub line: usize,
    pub language: String,
    /// The words after the language.
    pub words: Vec<String>,
    pub text: String,
}

#[derive(Clone, Debug)]
pub struct Page {
    /// Its path from the root of the workspace.
    pub path: String,
    pub text: String,
    /// The word in `<!-- run: .. -->`.
    pub run: Option<String>,
    pub blocks: Vec<Block>,
}

impl Page {
    /// Reads a page by its path from the root of the workspace.
    pub fn read(path: &str) -> Self {
        let file = workspace().join(path);
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{path}: {e}"));
        let run = text.lines().find_map(|line| {
            let rest = line.strip_prefix("<!-- run: ")?;
            rest.strip_suffix(" -->").map(str::to_owned)
        });
        Self {
            path: path.to_owned(),
            run,
            blocks: blocks(&text),
            text,
        }
    }

    /// All Markdown files below a directory of the workspace, by path.
    pub fn all(dir: &str) -> Vec<Self> {
        let mut paths = Vec::new();
        find(workspace().join(dir), dir, &mut paths);
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// Lines outside of blocks, with their numbers from 1.
    pub fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut inside = false;
        let lines = self.text.lines().enumerate();
        lines.filter_map(move |(n, line)| {
            if line.starts_with("```") {
                inside = !inside;
                return None;
            }
            (!inside).then_some((n + 1, line))
        })
    }

    /// Anchors of its headings.
    pub fn anchors(&self) -> Vec<String> {
        let mut anchors: Vec<String> = Vec::new();
        for (_, line) in self.prose() {
            let heading = line.trim_start_matches('#');
            if heading.len() == line.len() || !heading.starts_with(' ') {
                continue;
            }
            let anchor = anchor(heading.trim());
            let same = anchors.iter().filter(|a| **a == anchor).count();
            anchors.push(match same {
                0 => anchor,
                n => format!("{anchor}-{n}"),
            });
        }
        anchors
    }

    /// Targets of links, with their lines.
    pub fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (n, line) in self.prose() {
            let mut rest = line;
            while let Some((_, after)) = rest.split_once("](") {
                let Some((target, after)) = after.split_once(')') else {
                    break;
                };
                links.push((n, target.to_owned()));
                rest = after;
            }
        }
        links
    }
}

/// The anchor of a heading, as GitHub renders it.
fn anchor(heading: &str) -> String {
    let kept = |c: char| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        _ => c.is_alphanumeric().then(|| c.to_ascii_lowercase()),
    };
    heading.chars().filter_map(kept).collect()
}

fn find(dir: PathBuf, path: &str, paths: &mut Vec<String>) {
    for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("{path}: {e}")) {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{path}/{name}");
        if entry.path().is_dir() {
            find(entry.path(), &path, paths);
        } else if name.ends_with(".md") {
            paths.push(path);
        }
    }
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (n, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(info), None) => {
                let mut words = info.split_whitespace().map(str::to_owned);
                open = Some(Block {
                    line: n + 1,
                    language: words.next().unwrap_or_default(),
                    words: words.collect(),
                    text: String::new(),
                });
            }
            (None, Some(block)) => block.text.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
    }
    blocks
}

/// Words of the first command of a line, as a shell splits them.
pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    // A command substitution counts as one word.
    let mut depth = 0;
    for c in line.chars() {
        match c {
            '(' if depth > 0 || word.as_deref().is_some_and(|w| w.ends_with('$')) => depth += 1,
            ')' if depth > 0 => {
                depth -= 1;
                continue;
            }
            _ => {}
        }
        if depth > 0 {
            word.get_or_insert_default().push(c);
            continue;
        }
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '|' | '>' | '<' | ';' | '&') => break,
            (None, '#') if word.is_none() => break,
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does_and_end_with_the_command() {
        let line = "skupper listener create web 8080 --setting 'a=b c' # a comment";
        let expected = "skupper,listener,create,web,8080,--setting,a=b c";
        assert_eq!(words(line).join(","), expected);
        assert_eq!(words("a \"b\" > c").join(","), "a,b");
    }

    #[test]
    fn headings_have_the_anchors_that_they_are_rendered_with() {
        assert_eq!(
            anchor("A `health-check`, and why"),
            "a-health-check-and-why"
        );
        assert_eq!(anchor("skupperd(8)"), "skupperd8");
    }
}
