//! What documents say of settings, which is what the table of `skupperd::manifest::settings` says.

use super::compare_or_write;
use skupper_tests::{pages::Page, workspace};
use skupperd::{
    manifest::settings::{OTHER_PLATFORMS, Setting, TABLE, settings_of},
    model::Kind,
};
use std::{fs, path::Path};

/// Tables of the guide are between these comments. The first one names a kind and keys.
const BEGIN: &str = "<!-- settings: ";
const END: &str = "<!-- end of settings -->";

/// Rows of the reference, below that of `spec.settings`.
pub(super) fn reference_rows(kind: Kind) -> String {
    let mut rows = String::new();
    for setting in settings_of(kind) {
        let keys: Vec<String> = setting
            .keys()
            .map(|k| format!("`spec.settings.{k}`"))
            .collect();
        let default = match setting.default {
            Some(text) => format!("; default `{text}`"),
            None => String::new(),
        };
        let details = match setting.details {
            "" => String::new(),
            details => format!(". {}", details.trim_end_matches('.')),
        };
        let (keys, takes, help) = (keys.join(", "), setting.value_syntax(), setting.help);
        rows.push_str(&format!(
            "| {keys} | {takes} | {help}{default}{details} |\n"
        ));
    }
    for (_, key, why) in OTHER_PLATFORMS.iter().filter(|(of, _, _)| *of == kind) {
        rows.push_str(&format!(
            "| `spec.settings.{key}` | string | no effect {why} |\n"
        ));
    }
    rows
}

/// The settings that Skupper has, as a section of the contract.
pub(super) fn contract_section() -> String {
    let mut text = "\n## Settings\n\nThose that Skupper has. The \
        [reference](../../docs/reference/resources.md) has all; the test \
        `every_setting_is_in_a_test` looks for each in the tests.\n\n\
        | item | here |\n|---|---|\n"
        .to_owned();
    for setting in TABLE.iter().filter(|setting| setting.is_skupper_setting) {
        for kind in setting.kinds {
            for key in setting.keys() {
                text.push_str(&format!("| `{kind} spec.settings.{key}` | yes |\n"));
            }
        }
    }
    for (kind, key, why) in OTHER_PLATFORMS {
        text.push_str(&format!(
            "| `{kind} spec.settings.{key}` | no effect {why} |\n"
        ));
    }
    text
}

/// A table of the guide: the settings of a kind with these keys; one that ends in `*` stands for all
/// that begin like this.
fn guide_table(kind: Kind, keys: &[&str]) -> String {
    let mut text = "\n| setting | value | default | |\n|---|---|---|---|\n".to_owned();
    for wanted in keys {
        let is_wanted = |key: &str| match wanted.strip_suffix('*') {
            Some(begin) => key.starts_with(begin),
            None => key == *wanted,
        };
        let found: Vec<_> = settings_of(kind).filter(|s| is_wanted(s.key)).collect();
        assert!(!found.is_empty(), "{kind} has no setting {wanted}");
        for setting in found {
            let (key, takes, help) = (setting.key, setting.value_syntax(), setting.help);
            let default = setting.default.map(|text| format!("`{text}`"));
            let default = default.unwrap_or_default();
            text.push_str(&format!("| `{key}` | {takes} | {default} | {help} |\n"));
        }
    }
    text + "\n"
}

/// A page with its tables as they have to be.
fn with_tables(page: &Page) -> String {
    let (mut text, mut inside) = (String::new(), false);
    for line in page.text.lines() {
        inside &= line != END;
        if !inside {
            text.push_str(line);
            text.push('\n');
        }
        if let Some(of) = line.strip_prefix(BEGIN) {
            let words = of.trim_end_matches(" -->").split(' ').collect::<Vec<_>>();
            let kind = Kind::parse(words[0]).unwrap_or_else(|| panic!("{}: {line}", page.path));
            text.push_str(&guide_table(kind, &words[1..]));
            inside = true;
        }
    }
    assert!(!inside, "{}: a table of settings has no end", page.path);
    text
}

#[test]
fn tables_of_settings_in_the_guide_are_made_from_the_code() {
    let mut tables = 0;
    for page in Page::all("docs/guide") {
        let text = with_tables(&page);
        tables += text.matches(BEGIN).count();
        compare_or_write(&page.path, &text);
        // A row that begins with a setting is in such a table.
        let mut inside = false;
        for (number, line) in page.prose() {
            inside = (inside || line.starts_with(BEGIN)) && line != END;
            let key = line
                .strip_prefix("| `")
                .and_then(|rest| rest.split_once('`'));
            let is_setting = key.is_some_and(|(key, _)| TABLE.iter().any(|s| s.key == key));
            let path = &page.path;
            assert!(
                inside || !is_setting,
                "{path}:{number}: a row for a setting by hand"
            );
        }
    }
    assert!(tables > 3, "{tables} tables of settings were found");
}

/// Tests of programs and of kinds write settings as users do, so each key is in the text of one.
#[test]
fn every_setting_is_in_a_test() {
    let mut tests = Vec::new();
    read_tests(&workspace().join("tests"), &mut tests);
    let of_kinds = workspace().join("skupperd/src/reconcile/kind/tests.rs");
    tests.push(fs::read_to_string(of_kinds).expect("text"));
    assert!(tests.len() > 50, "only {} files of tests", tests.len());
    let keys = TABLE.iter().flat_map(Setting::keys);
    let is_tested = |key: &str| tests.iter().any(|text| has_word(text, key));
    let missing: Vec<&str> = keys.filter(|key| !is_tested(key)).collect();
    assert!(
        missing.is_empty(),
        "no test has these settings: {missing:?}"
    );
}

/// Reads the sources below a directory, but for those of the contract.
fn read_tests(dir: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("contract") {
            read_tests(&path, texts);
        } else if path.extension().is_some_and(|end| end == "rs") {
            texts.push(fs::read_to_string(&path).expect("text"));
        }
    }
}

/// Whether a key is in a text, and not as a part of a longer one.
fn has_word(text: &str, key: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.match_indices(key).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + key.len()..]);
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}
