//! The items that the code defines: fields of resources, and the tree of commands.

use clap::{Arg, Command, CommandFactory};
use serde_json::Value;
use skupperd::{
    manifest::schema::{self, Field},
    model::{ConditionState, ConditionType, Kind, StatusDraft},
};

/// The settings of a resource, whose keys are a table of their own.
pub(crate) const SETTINGS: &str = "spec.settings.*";

/// Fields of a kind with their types, `spec` and `status`. Settings are one field, [`SETTINGS`].
pub(crate) fn fields(kind: Kind) -> Vec<Field> {
    let of_all_kinds = ["metadata.", "apiVersion", "kind", "status"];
    let fields = schema::fields(kind).into_iter();
    let mut all: Vec<Field> = fields
        .filter(|field| !of_all_kinds.iter().any(|o| field.path.starts_with(o)))
        .collect();
    all.extend(schema::status_fields(kind));
    all
}

pub(crate) fn common() -> Vec<Field> {
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
    let state = ConditionState::Noted("x".to_owned());
    let draft = StatusDraft::new(Kind::Secret, false).with(ConditionType::Configured, state);
    let status = draft.notes(vec!["x".to_owned()]);
    let status = status.finish(None, 1, jiff::Timestamp::UNIX_EPOCH);
    let status = serde_json::to_value(status).expect("JSON");
    add_fields("status", &status, &mut all);
    all
}

fn add_fields(path: &str, value: &Value, all: &mut Vec<Field>) {
    let takes = match value {
        Value::Object(fields) => {
            let below = |(name, value)| add_fields(&format!("{path}.{name}"), value, all);
            return fields.iter().for_each(below);
        }
        Value::Array(list) => {
            // All elements have the fields of the first.
            return list
                .iter()
                .take(1)
                .for_each(|v| add_fields(&format!("{path}[]"), v, all));
        }
        Value::Number(_) => "integer",
        _ => "string",
    };
    let path = path.to_owned();
    all.push(Field { path, takes });
}

pub(crate) fn kinds_and_fields() -> Vec<String> {
    let mut all: Vec<String> = common().iter().map(|f| format!("* {}", f.path)).collect();
    for kind in Kind::ALL {
        all.push(kind.to_string());
        let fields = fields(kind);
        all.extend(fields.iter().map(|f| format!("{kind} {}", f.path)));
    }
    all
}

/// The tree of commands, with `help` and `--help`, which clap adds.
pub(crate) fn tree() -> Command {
    let mut command = skupperd::cli::CommandLine::command();
    command.build();
    command
}

/// Visible arguments of a command. Global flags belong to the root.
pub(crate) fn arguments(command: &Command, root: bool) -> Vec<&Arg> {
    let all = command.get_arguments();
    let all = all.filter(|a| !a.is_hide_set() && (root || !a.is_global_set()));
    all.filter(|a| root || !["help", "version"].contains(&a.get_id().as_str()))
        .collect()
}

/// A flag as typed, or the placeholder of a positional argument.
pub(crate) fn flag(arg: &Arg) -> String {
    match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, Some(long)) => format!("--{long}"),
        (None, None) => arg.get_id().as_str().to_uppercase(),
    }
}

/// Every command with its full name.
pub(crate) fn commands(command: &Command) -> Vec<(String, &Command)> {
    fn below<'a>(path: &str, command: &'a Command, all: &mut Vec<(String, &'a Command)>) {
        for command in command.get_subcommands().filter(|c| !c.is_hide_set()) {
            // clap adds `help` to every noun, with a copy of the tree below it: list only the
            // first.
            let is_help = command.get_name() == "help";
            if is_help && !path.is_empty() {
                continue;
            }
            let path = format!("{path} {}", command.get_name()).trim().to_owned();
            all.push((path.clone(), command));
            if !is_help {
                below(&path, command, all);
            }
        }
    }
    let mut all = Vec::new();
    below("", command, &mut all);
    all
}

pub(crate) fn commands_and_flags() -> Vec<String> {
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
