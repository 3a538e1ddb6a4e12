//! The lists of settings in manual pages.
//!
//! The pages of kinds in `packaging/man` are written by hand, but for a comment `settings: KIND` where
//! the list of a kind's settings goes.

use super::{Setting, settings_of};
use crate::model::Kind;

/// Begins the line of a page that the list of a kind replaces.
pub const MARK: &str = ".\\\" settings: ";

/// A page with its lists. The error is a name that is not that of a kind.
pub fn expand(page: &str) -> Result<String, String> {
    let mut expanded = String::new();
    for line in page.lines() {
        match line.strip_prefix(MARK) {
            Some(kind) => {
                let known = Kind::parse(kind).ok_or_else(|| format!("no kind {kind:?}"))?;
                expanded.push_str(&list(known));
            }
            None => {
                expanded.push_str(line);
                expanded.push('\n');
            }
        }
    }
    Ok(expanded)
}

/// The settings of a kind in mdoc(7).
fn list(kind: Kind) -> String {
    let mut text = ".Bl -tag -width Ds\n".to_owned();
    for setting in settings_of(kind) {
        let keys: Vec<&str> = setting.keys().collect();
        text.push_str(&format!(".It Li {}\n", keys.join(" , ")));
        for sentence in sentences(setting) {
            push_sentence(&mut text, &sentence);
        }
    }
    text + ".El\n"
}

/// The entry of a setting.
fn sentences(setting: &Setting) -> Vec<String> {
    let (first, rest) = setting.help.split_at(1);
    let help = format!("{}{rest}.", first.to_uppercase());
    let default = setting
        .default
        .map(|text| format!("; the default is `{text}`"));
    let value = format!(
        "Value: {}{}.",
        setting.value_syntax(),
        default.unwrap_or_default()
    );
    let mut all = vec![help, value];
    let details = setting.details.split_inclusive(". ");
    all.extend(details.map(|sentence| sentence.trim_end().to_owned()));
    all
}

/// Writes a sentence on lines of its own: code between backticks is a macro, and so is `name(8)`.
fn push_sentence(page: &mut String, sentence: &str) {
    for (n, part) in sentence.split('`').enumerate() {
        if n % 2 == 1 {
            page.push_str(&format!(".Ql {}", argument(part)));
            continue;
        }
        // Punctuation after a macro is its argument, or a blank would be before it.
        let is_punctuation = |c: char| [',', '.', ';', ':', ')'].contains(&c);
        let end = match n {
            0 => 0,
            _ => part.find(|c| !is_punctuation(c)).unwrap_or(part.len()),
        };
        let (punctuation, words) = part.split_at(end);
        for c in punctuation.chars() {
            page.push_str(&format!(" {c}"));
        }
        if n > 0 {
            page.push('\n');
        }
        push_words(page, words.trim());
    }
}

fn push_words(page: &mut String, words: &str) {
    let mut line = String::new();
    for word in words.split_whitespace() {
        let Some((name, section, rest)) = reference(word) else {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(&word.replace('\\', "\\e"));
            continue;
        };
        push_line(page, &std::mem::take(&mut line));
        let rest = match rest {
            "" => String::new(),
            rest => format!(" {rest}"),
        };
        page.push_str(&format!(".Xr {name} {section}{rest}\n"));
    }
    push_line(page, &line);
}

fn push_line(page: &mut String, line: &str) {
    if line.is_empty() {
        return;
    }
    if line.starts_with(['.', '\'']) {
        // Not a macro.
        page.push_str("\\&");
    }
    page.push_str(line);
    page.push('\n');
}

/// A word such as `skupperd(8),`: name, section, and the punctuation after it.
fn reference(word: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = word.split_once('(')?;
    let (section, rest) = rest.split_once(')')?;
    let is_section = section.len() == 1 && section.chars().all(|c| c.is_ascii_digit());
    (is_section && !name.is_empty()).then_some((name, section, rest))
}

/// Quotes a text as an argument of an mdoc macro.
fn argument(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('"', "\"\"");
    match text.contains(' ') {
        true => format!("\"{text}\""),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_become_lines_and_macros() {
        let mut page = String::new();
        push_sentence(&mut page, "See skupperd(8): `a b`, `c` or .x, as it is.");
        assert_eq!(
            page,
            "See\n.Xr skupperd 8 :\n.Ql \"a b\" ,\n.Ql c\nor .x, as it is.\n"
        );
        page.clear();
        push_sentence(&mut page, ".x is `y`.");
        assert_eq!(page, "\\&.x is\n.Ql y .\n");
    }

    #[test]
    fn marks_become_the_lists_of_kinds() {
        let page = format!(".Sh SETTINGS\n{MARK}Site\n.Sh END\n");
        let page = expand(&page).unwrap();
        for setting in settings_of(Kind::Site) {
            let keys: Vec<&str> = setting.keys().collect();
            assert!(page.contains(&format!("\n.It Li {}\n", keys.join(" , "))));
        }
        assert!(page.starts_with(".Sh SETTINGS\n.Bl ") && page.ends_with(".El\n.Sh END\n"));
        assert!(expand(&format!("{MARK}Nothing\n")).is_err());
    }
}
