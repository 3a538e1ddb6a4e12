//! `tests/contract/cases.txt`: what a Skupper user expects of a Linux host, and the tests that
//! guard it.
//!
//! A line `ID: expectation` begins an item; the indented lines below it are names of tests.

use super::tests_of_the_workspace;
use skupper_tests::workspace;
use std::{collections::BTreeSet, fs};

const FILE: &str = "cases.txt";

struct Case {
    id: String,
    tests: Vec<String>,
}

fn read() -> Vec<Case> {
    let path = workspace().join("tests/contract").join(FILE);
    let text = fs::read_to_string(&path).expect("a file");
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = || format!("{FILE}:{}", number + 1);
        if let Some(test) = line.strip_prefix("    ") {
            let case = cases.last_mut();
            let case = case.unwrap_or_else(|| panic!("{}: a test of no item", at()));
            case.tests.push(test.to_owned());
        } else {
            let Some((id, _)) = line.split_once(": ") else {
                panic!("{}: an item is `ID: what has to hold`", at());
            };
            cases.push(Case {
                id: id.to_owned(),
                tests: Vec::new(),
            });
        }
    }
    cases
}

/// Returns one line for each error in the file.
pub(super) fn faults() -> Vec<String> {
    let tests = tests_of_the_workspace();
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    let mut last = (String::new(), 0);
    for case in &read() {
        let mut fault = |what: &str| faults.push(format!("{FILE}: {}: {what}", case.id));
        if !seen.insert(&case.id) {
            fault("listed twice");
        }
        if case.tests.is_empty() {
            fault("it names no test");
        }
        for test in case.tests.iter().filter(|test| !tests.contains(*test)) {
            fault(&format!("there is no test {test:?}"));
        }
        // Deleted items leave gaps in the numbers.
        let (group, number) = case.id.split_at(1);
        let number: u32 = number.parse().unwrap_or_default();
        let expected = if group == last.0 { last.1 + 1 } else { 1 };
        if number != expected {
            fault(&format!("{group}{expected} is missing before it"));
        }
        last = (group.to_owned(), number);
    }
    faults
}
