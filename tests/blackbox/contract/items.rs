//! Files of `tests/contract` that list kinds, fields, commands and flags: one item a line, `item |
//! origin | test | words`. The origin is `contract`, `absent` or `ours`; `*` in a name matches any
//! kind or command. `?` marks a missing test or missing words of a new item.

use super::tests_of_the_workspace;
use skupper_tests::workspace;
use std::{collections::BTreeMap, fs};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Skupper v2 and this project have the item.
    Contract,
    /// Only Skupper v2 has the item; the words say why a host does not need it.
    Absent,
    /// Only this project has the item.
    Ours,
}

impl Origin {
    const ALL: [Self; 3] = [Self::Contract, Self::Absent, Self::Ours];

    fn as_str(self) -> &'static str {
        match self {
            Self::Contract => "contract",
            Self::Absent => "absent",
            Self::Ours => "ours",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Item {
    /// For example `Link spec.cost` or `link update --cost`.
    pub name: String,
    pub origin: Origin,
    /// The test that guards it.
    pub test: String,
    /// Description; for an absent item the reason of its absence.
    pub words: String,
}

pub(super) fn read(file: &str) -> Vec<Item> {
    let path = workspace().join("tests/contract").join(file);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let item = |(number, line): (usize, &str)| {
        let cells: Vec<&str> = line.splitn(4, '|').map(str::trim).collect();
        let (Some(name), Some(origin), Some(test)) = (cells.first(), cells.get(1), cells.get(2))
        else {
            panic!("{file}:{}: a line has three or four cells", number + 1);
        };
        let words = cells.get(3).copied().unwrap_or_default();
        let origin = Origin::ALL.into_iter().find(|w| w.as_str() == *origin);
        Item {
            name: (*name).to_owned(),
            origin: origin.unwrap_or_else(|| panic!("{file}:{}: whose is it?", number + 1)),
            test: (*test).to_owned(),
            words: words.to_owned(),
        }
    };
    lines.map(item).collect()
}

/// Rewrites a file: first the items of the code in the code's order, then the others. A new item
/// gets `?` for its test and its words.
pub(super) fn write(file: &str, code: &[String]) {
    let old = read(file);
    let path = workspace().join("tests/contract").join(file);
    let head = fs::read_to_string(&path).unwrap_or_default();
    let head = head.lines().take_while(|line| line.starts_with('#'));
    let mut text: String = head.map(|line| format!("{line}\n")).collect();
    let mut add_line = |name: &str, item: Option<&Item>| {
        let unknown = ("ours", "?", "?");
        let (origin, test, words) = item.map_or(unknown, |item| {
            (
                item.origin.as_str(),
                item.test.as_str(),
                item.words.as_str(),
            )
        });
        let line = format!("{name} | {origin} | {test} | {words}");
        text.push_str(&format!("{}\n", line.trim_end_matches([' ', '|'])));
    };
    for name in code {
        add_line(name, old.iter().find(|item| item.name == *name));
    }
    for item in old.iter().filter(|item| !code.contains(&item.name)) {
        add_line(&item.name, Some(item));
    }
    fs::write(path, text).expect("a file");
}

/// Compares a file with the items of the code, and returns one line for each error.
/// `all_need_words`: not only absent items need words.
pub(super) fn faults(file: &str, code: &[String], all_need_words: bool) -> Vec<String> {
    let (items, tests) = (read(file), tests_of_the_workspace());
    let mut faults = Vec::new();
    let mut seen: BTreeMap<&str, Origin> = BTreeMap::new();
    for item in &items {
        let name = &item.name;
        let mut fault = |what: &str| faults.push(format!("{file}: {name}: {what}"));
        if seen.insert(name, item.origin).is_some() {
            fault("listed twice");
        }
        let in_code = code.contains(name);
        match item.origin {
            Origin::Contract if !in_code => fault("the code lacks it"),
            Origin::Ours if !in_code => fault("the code no longer has it"),
            Origin::Absent if in_code => fault("the code has it"),
            _ => {}
        }
        if !tests.contains(&item.test) {
            fault(&format!("there is no test {:?}", item.test));
        }
        let needs_words = all_need_words || item.origin == Origin::Absent;
        if needs_words && item.words.is_empty() || item.words == "?" {
            fault("it has no words");
        }
    }
    for name in code.iter().filter(|name| !seen.contains_key(name.as_str())) {
        faults.push(format!(
            "{file}: {name}: the code has it and the file does not"
        ));
    }
    faults
}
