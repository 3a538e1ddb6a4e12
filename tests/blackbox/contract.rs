//! The contract: each kind, field, command and flag has an item with the test that guards it, each
//! expectation of a Skupper user names its tests, and the reference pages match the code.
//! `SKUPPER_UPDATE=1` writes the generated files.

mod cases;
pub(crate) mod code;
mod items;
mod reference;
mod settings;

use crate::documentation::COLUMNS;
use items::{Item, Origin};
use skupper_tests::workspace;
use std::{collections::BTreeSet, fs, path::Path};

const FIELDS: &str = "fields.txt";
const COMMANDS: &str = "commands.txt";

#[test]
fn every_item_of_the_contract_names_its_test() {
    let code = [
        (FIELDS, code::kinds_and_fields(), true),
        // Commands and flags have their words in `--help`.
        (COMMANDS, code::commands_and_flags(), false),
    ];
    let mut faults = Vec::new();
    for (file, code, all_need_words) in &code {
        if updating() {
            items::write(file, code);
        }
        faults.extend(items::faults(file, code, *all_need_words));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    compare_or_write("tests/contract/README.md", &table());
}

#[test]
fn every_case_names_its_tests() {
    let faults = cases::faults();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A filter of nextest with a word that no test's name contains has no effect.
#[test]
fn every_name_in_a_filter_of_nextest_is_that_of_a_test() {
    let tests = tests_of_the_workspace();
    let mut seen = 0;
    for file in [".config/nextest.toml", "xtask/src/test.rs"] {
        let text = fs::read_to_string(workspace().join(file)).expect("text");
        for filter in text.split("test(/").skip(1) {
            let (pattern, _) = filter.split_once("/)").expect("the end of a pattern");
            // Patterns that begin with ^ are about modules.
            if pattern.starts_with('^') {
                continue;
            }
            for part in pattern.split('|') {
                let found = tests.iter().any(|test| test.contains(part));
                assert!(found, "{file}: no test has {part:?} in its name");
                seen += 1;
            }
        }
    }
    assert!(seen > 5, "only {seen} parts of names were found");
}

/// Whether to write generated files.
fn updating() -> bool {
    std::env::var_os("SKUPPER_UPDATE").is_some()
}

/// Compares a file with its expected text, wrapped. With `SKUPPER_UPDATE` writes the file first.
fn compare_or_write(path: &str, text: &str) {
    let text = wrap(text);
    let file = workspace().join(path);
    if updating() {
        fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
        fs::write(&file, &text).expect("a file");
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    let difference = found.lines().zip(text.lines()).find(|(a, b)| a != b);
    assert!(
        found == text,
        "{path} differs from what the code says; SKUPPER_UPDATE=1 writes it. First difference: {difference:?}"
    );
}

/// Wraps prose at the width that the documentation tests allow. Tables and code keep their lines.
fn wrap(text: &str) -> String {
    let mut wrapped = String::new();
    let mut in_code = false;
    for line in text.split_inclusive('\n') {
        in_code ^= line.starts_with("```");
        if in_code || line.starts_with('|') {
            wrapped.push_str(line);
            continue;
        }
        let mut column = 0;
        for word in line.split_inclusive(' ') {
            let width = word.trim_end().chars().count();
            if column > 0 && column + width > COLUMNS {
                wrapped.truncate(wrapped.trim_end().len());
                wrapped.push('\n');
                column = 0;
            }
            wrapped.push_str(word);
            column += word.chars().count();
        }
    }
    wrapped
}

#[test]
fn prose_is_wrapped_and_tables_and_code_are_not() {
    let long = "word ".repeat(30);
    let kept = format!("| {long}|\n\n```sh\n{long}\n```\n");
    assert_eq!(wrap(&kept), kept);
    let prose = wrap(&format!("{long}end\n"));
    assert!(
        prose.lines().count() == 2 && prose.lines().all(|l| l.len() <= COLUMNS),
        "{prose}"
    );
    assert_eq!(prose.replace('\n', " "), format!("{long}end "));
}

/// The names of all tests of the workspace, without their modules.
fn tests_of_the_workspace() -> BTreeSet<String> {
    fn walk(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path
                .file_name()
                .and_then(|n| n.to_str())
                .unwrap_or_default();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                walk(&path, found);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).expect("text");
                let mut is_test = false;
                for line in text.lines().map(str::trim) {
                    is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                    if let Some((_, rest)) = line.split_once("fn ") {
                        let name = rest.split(['(', '<']).next().unwrap_or_default();
                        if std::mem::take(&mut is_test) {
                            found.insert(name.to_owned());
                        }
                    }
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    for dir in ["skupperd", "tests", "xtask"] {
        walk(&workspace().join(dir), &mut found);
    }
    found
}

/// All items as a page.
fn table() -> String {
    let mut text = "# The contract, item by item\n\n\
        Each kind, field, command and flag of Skupper v2 for platforms other than Kubernetes: whether it \
        is supported here, and the test that guards it. Items marked *ours* are additions. The test \
        `every_item_of_the_contract_names_its_test` generates this page from the code, `fields.txt` and \
        `commands.txt`, and fails if an item or its test is missing. `cases.txt` has what users expect \
        beyond single items, with the tests of each expectation.\n"
        .to_owned();
    for (title, file) in [
        ("Kinds and fields", FIELDS),
        ("Commands and flags", COMMANDS),
    ] {
        let items = items::read(file);
        let count = |origin| items.iter().filter(|i| i.origin == origin).count();
        text.push_str(&format!(
            "\n## {title}\n\n{} items of the contract, {} of them not applicable to a host; {} ours.\n\n\
             | item | here | test |\n|---|---|---|\n",
            count(Origin::Contract) + count(Origin::Absent),
            count(Origin::Absent),
            count(Origin::Ours),
        ));
        for item in &items {
            text.push_str(&row(item));
        }
    }
    text.push_str(&settings::contract_section());
    text
}

fn row(item: &Item) -> String {
    let name = item.name.replacen("* ", "any ", 1);
    let here = match item.origin {
        Origin::Contract => "yes".to_owned(),
        Origin::Absent => format!("no: {}", item.words),
        Origin::Ours => "ours".to_owned(),
    };
    format!("| `{name}` | {here} | `{}` |\n", item.test)
}
