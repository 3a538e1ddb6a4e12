//! The contract, held against the code. `tests/contract/*.txt` has a line for each kind, field, command
//! and flag, `item | whose | test | words`: whose it is, the test that shows it, what it says. What the
//! code has is asked of the code: the types that are read and written, the tree of commands.

use clap::{Arg, Command, CommandFactory};
use serde_json::Value;
use skupperd::{
    manifest::schema::{self, Field},
    model::{ConditionType, Draft, Kind, State},
    reconcile,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Whether an item is the contract's or our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The contract has it, and so have we.
    Contract,
    /// The contract has it, and a host has no use for it: the words say why.
    Absent,
    /// We have added it.
    Ours,
}

impl Whose {
    const ALL: [Self; 3] = [Self::Contract, Self::Absent, Self::Ours];

    fn as_str(self) -> &'static str {
        match self {
            Self::Contract => "contract",
            Self::Absent => "absent",
            Self::Ours => "ours",
        }
    }
}

/// A line.
#[derive(Clone, Debug)]
pub struct Item {
    /// What it is about, as in `Link spec.cost` or `link update --cost`.
    pub name: String,
    /// Whose it is.
    pub whose: Whose,
    /// Name of the test that shows it.
    pub test: String,
    /// What it says.
    pub words: String,
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Whether what is made from the code is to be written anew.
pub fn updating() -> bool {
    std::env::var_os("SKUPPER_UPDATE").is_some()
}

/// Compares a file with what it has to be; writes it where that is asked for.
pub fn kept(path: &str, text: &str) {
    let file = root().join(path);
    if updating() {
        fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
        fs::write(&file, text).expect("a file");
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    let differs = found.lines().zip(text.lines()).find(|(a, b)| a != b);
    assert!(
        found == text,
        "{path} is not what the code says; SKUPPER_UPDATE=1 writes it anew. First difference: {differs:?}"
    );
}

/// Lines of a file of the contract.
pub fn items(file: &str) -> Vec<Item> {
    let path = root().join("tests/contract").join(file);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let item = |(number, line): (usize, &str)| {
        let cells: Vec<&str> = line.splitn(4, '|').map(str::trim).collect();
        let (Some(name), Some(whose), Some(test)) = (cells.first(), cells.get(1), cells.get(2))
        else {
            panic!("{file}:{}: three or four cells make a line", number + 1);
        };
        let words = cells.get(3).copied().unwrap_or_default();
        let whose = Whose::ALL.into_iter().find(|w| w.as_str() == *whose);
        Item {
            name: (*name).to_owned(),
            whose: whose.unwrap_or_else(|| panic!("{file}:{}: whose is it?", number + 1)),
            test: (*test).to_owned(),
            words: words.to_owned(),
        }
    };
    lines.map(item).collect()
}

/// Writes a file of the contract: what the code has, in its order, and what it has not; what nobody has
/// said anything of yet has `?`.
pub fn write(file: &str, code: &[String]) {
    let old = items(file);
    let head = fs::read_to_string(root().join("tests/contract").join(file)).unwrap_or_default();
    let head = head.lines().take_while(|line| line.starts_with('#'));
    let mut text: String = head.map(|line| format!("{line}\n")).collect();
    let mut line = |name: &str, item: Option<&Item>| {
        let unknown = ("ours", "?", "?");
        let (whose, test, words) = item.map_or(unknown, |item| {
            (item.whose.as_str(), item.test.as_str(), item.words.as_str())
        });
        let line = format!("{name} | {whose} | {test} | {words}");
        text.push_str(&format!("{}\n", line.trim_end_matches([' ', '|'])));
    };
    for name in code {
        line(name, old.iter().find(|item| item.name == *name));
    }
    for item in old.iter().filter(|item| !code.contains(&item.name)) {
        line(&item.name, Some(item));
    }
    fs::write(root().join("tests/contract").join(file), text).expect("a file");
}

/// Fields of a kind, read and written, with what they take. Settings are fields by their names.
pub fn fields(kind: Kind) -> Vec<Field> {
    let mut all = Vec::new();
    for field in schema::fields(kind) {
        let other = ["metadata.", "apiVersion", "kind", "status"];
        if other.iter().any(|o| field.path.starts_with(o)) {
            continue;
        }
        if field.path != "spec.settings.*" {
            all.push(field);
            continue;
        }
        let known = reconcile::settings(kind).iter();
        all.extend(known.map(|key| Field {
            path: format!("spec.settings.{key}"),
            ..field.clone()
        }));
    }
    all.extend(schema::status_fields(kind));
    all
}

/// Fields that all kinds have.
pub fn common() -> Vec<Field> {
    let of = |kind| {
        let all = schema::fields(kind).into_iter();
        let all = all.filter(|f| !f.path.starts_with("spec.") && !f.path.starts_with("data."));
        all.filter(|f| {
            f.path.starts_with("metadata.") || ["apiVersion", "kind"].contains(&&*f.path)
        })
        .collect::<Vec<_>>()
    };
    let mut all = of(Kind::Site);
    for kind in Kind::ALL {
        assert_eq!(of(kind), all, "{kind} has other fields");
    }
    let state = State::Noted("x".to_owned());
    let draft = Draft::new(Kind::Secret, false).with(ConditionType::Configured, state);
    let status = draft.notes(vec!["x".to_owned()]);
    let status = status.finish(None, 1, jiff::Timestamp::UNIX_EPOCH);
    let status = serde_json::to_value(status).expect("JSON");
    told("status", &status, &mut all);
    all
}

/// Fields of a document, as they are in it.
fn told(path: &str, value: &Value, all: &mut Vec<Field>) {
    let takes = match value {
        Value::Object(fields) => {
            let below = |(name, value)| told(&format!("{path}.{name}"), value, all);
            return fields.iter().for_each(below);
        }
        Value::Array(list) => {
            // One tells of all.
            return list
                .iter()
                .take(1)
                .for_each(|v| told(&format!("{path}[]"), v, all));
        }
        Value::Number(_) => "integer",
        _ => "string",
    };
    let path = path.to_owned();
    all.push(Field { path, takes });
}

/// Names of all kinds and fields that the code has.
pub fn kinds_and_fields() -> Vec<String> {
    let mut all: Vec<String> = common().iter().map(|f| format!("* {}", f.path)).collect();
    for kind in Kind::ALL {
        all.push(kind.to_string());
        let fields = fields(kind);
        all.extend(fields.iter().map(|f| format!("{kind} {}", f.path)));
    }
    all
}

/// The tree of commands, with what clap adds to it.
pub fn tree() -> Command {
    let mut command = skupperd::cli::Command::command();
    command.build();
    command
}

/// Arguments of a command that are shown, its own ones: global flags are the root's.
pub fn arguments(command: &Command, root: bool) -> Vec<&Arg> {
    let all = command.get_arguments();
    let all = all.filter(|a| !a.is_hide_set() && (root || !a.is_global_set()));
    all.filter(|a| root || !["help", "version"].contains(&a.get_id().as_str()))
        .collect()
}

/// A flag as it is written, or a word in capitals.
pub fn flag(arg: &Arg) -> String {
    match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, Some(long)) => format!("--{long}"),
        (None, None) => arg.get_id().as_str().to_uppercase(),
    }
}

/// Every command, with the words that lead to it.
pub fn commands(command: &Command) -> Vec<(String, &Command)> {
    fn below<'a>(path: &str, command: &'a Command, all: &mut Vec<(String, &'a Command)>) {
        for command in command.get_subcommands().filter(|c| !c.is_hide_set()) {
            let path = format!("{path} {}", command.get_name()).trim().to_owned();
            all.push((path.clone(), command));
            below(&path, command, all);
        }
    }
    let mut all = Vec::new();
    below("", command, &mut all);
    all
}

/// Names of all commands and flags that the code has.
pub fn commands_and_flags() -> Vec<String> {
    let tree = tree();
    let root = arguments(&tree, true);
    let mut all: Vec<String> = root.iter().map(|arg| format!("* {}", flag(arg))).collect();
    for (path, command) in commands(&tree) {
        all.push(path.clone());
        let arguments = arguments(command, false);
        all.extend(arguments.iter().map(|arg| format!("{path} {}", flag(arg))));
    }
    all
}

/// Names of all tests of the workspace.
pub fn tests() -> BTreeSet<String> {
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
                let mut test = false;
                for line in text.lines().map(str::trim) {
                    test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                    if let Some((_, rest)) = line.split_once("fn ") {
                        let name = rest.split(['(', '<']).next().unwrap_or_default();
                        if std::mem::take(&mut test) {
                            found.insert(name.to_owned());
                        }
                    }
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    for dir in ["skupperd", "tests", "xtask"] {
        walk(&root().join(dir), &mut found);
    }
    found
}

/// What is wrong with a file of the contract, held against what the code has.
/// `words`: each item needs some, not only those that are absent.
pub fn wrong(file: &str, code: &[String], words: bool) -> Vec<String> {
    let (items, tests) = (items(file), tests());
    let mut wrong = Vec::new();
    let mut seen: BTreeMap<&str, Whose> = BTreeMap::new();
    for item in &items {
        let name = &item.name;
        if seen.insert(name, item.whose).is_some() {
            wrong.push(format!("{name}: is there twice"));
        }
        let there = code.contains(name);
        match item.whose {
            Whose::Contract if !there => wrong.push(format!("{name}: the code lacks it")),
            Whose::Ours if !there => wrong.push(format!("{name}: the code has it no more")),
            Whose::Absent if there => wrong.push(format!("{name}: the code has it")),
            _ => {}
        }
        if !tests.contains(&item.test) {
            wrong.push(format!("{name}: there is no test {:?}", item.test));
        }
        let needed = words || item.whose == Whose::Absent;
        if needed && item.words.is_empty() || item.words == "?" {
            wrong.push(format!("{name}: no words"));
        }
    }
    for name in code.iter().filter(|name| !seen.contains_key(name.as_str())) {
        wrong.push(format!("{name}: is in the code and not in {file}"));
    }
    wrong
}
