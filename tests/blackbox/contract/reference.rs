//! Generates the pages of `docs/reference` from the code and from the words in `tests/contract`.

use super::{
    FIELDS, code, compare_or_write,
    items::{self, Item},
    settings,
};
use skupper_tests::workspace;
use skupperd::{manifest::schema::Field, model::Kind};
use std::fs;

fn words(items: &[Item], name: &str) -> String {
    let item = items.iter().find(|item| item.name == name);
    item.map(|item| item.words.replace('|', "\\|"))
        .unwrap_or_default()
}

#[test]
fn the_reference_of_resources_is_generated_from_the_code() {
    let items = items::read(FIELDS);
    let mut text = "# Resources\n\n\
        Generated from the code with `SKUPPER_UPDATE=1 cargo nextest run -p skupper-tests contract`.\n\n\
        An unknown field is refused with the names of the known ones. A field without effect is stored and \
        listed under `status.notes`. `[]` is each element of a list.\n\n## All kinds\n\n| field | takes | |\n|---|---|---|\n"
        .to_owned();
    let row = |text: &mut String, of: &str, field: &Field| {
        let words = words(&items, &format!("{of} {}", field.path));
        text.push_str(&format!(
            "| `{}` | {} | {words} |\n",
            field.path, field.takes
        ));
    };
    for field in code::common() {
        row(&mut text, "*", &field);
    }
    for kind in Kind::ALL {
        let about = words(&items, kind.as_str());
        text.push_str(&format!(
            "\n## {kind}\n\n`apiVersion: {}`. {about}\n\n| field | takes | |\n|---|---|---|\n",
            kind.api_version()
        ));
        for field in code::fields(kind) {
            row(&mut text, kind.as_str(), &field);
            if field.path == code::SETTINGS {
                text.push_str(&settings::reference_rows(kind));
            }
        }
    }
    compare_or_write("docs/reference/resources.md", &text);
}

#[test]
fn the_reference_of_commands_is_generated_from_the_code() {
    let tree = code::tree();
    let mut text = "# Commands\n\n\
        Generated from the code with `SKUPPER_UPDATE=1 cargo nextest run -p skupper-tests contract`.\n\n\
        Exit codes: 0 success, 1 failure, 2 invalid usage. Errors go to standard error.\n\n## Global options\n\n"
        .to_owned();
    let table = |text: &mut String, arguments: &[&clap::Arg]| {
        if arguments.is_empty() {
            return;
        }
        text.push_str("| | | default |\n|---|---|---|\n");
        for arg in arguments {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let takes = arg.get_action().takes_values();
            let value = if arg.get_long().is_some() && takes {
                let possible = arg.get_possible_values();
                let possible: Vec<&str> = possible.iter().map(|v| v.get_name()).collect();
                let names = arg.get_value_names().unwrap_or_default();
                let names: Vec<&str> = names.iter().map(|n| n.as_str()).collect();
                let word = match possible.is_empty() {
                    true => names.join(" "),
                    false => possible.join("|"),
                };
                // The value of the flag is optional.
                match arg.get_num_args().is_some_and(|n| n.min_values() == 0) {
                    true => format!("[={word}]"),
                    false => format!(" {word}"),
                }
            } else {
                String::new()
            };
            let defaults = arg.get_default_values().iter().filter(|_| takes);
            let defaults: Vec<String> =
                defaults.map(|d| d.to_string_lossy().into_owned()).collect();
            let env = arg
                .get_env()
                .map(|env| format!(" (`{}`)", env.to_string_lossy()));
            text.push_str(&format!(
                "| `{}{}` | {}{} | {} |\n",
                code::flag(arg),
                value.replace('|', "\\|"),
                help.replace('|', "\\|").replace('\n', " "),
                env.unwrap_or_default(),
                defaults.join(" ")
            ));
        }
        text.push('\n');
    };
    table(&mut text, &code::arguments(&tree, true));
    for (path, command) in code::commands(&tree) {
        let about = command
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default();
        let below = command.get_subcommands().count() > 0;
        let level = if path.contains(' ') { "###" } else { "##" };
        text.push_str(&format!("{level} skupper {path}\n\n{about}.\n\n"));
        if !below {
            table(&mut text, &code::arguments(command, false));
        }
        if let Some(examples) = command.get_after_help() {
            let examples = examples.to_string();
            let lines = examples.lines().skip(1).map(str::trim_start);
            let lines: Vec<&str> = lines.collect();
            text.push_str(&format!("```sh\n{}\n```\n\n", lines.join("\n")));
        }
    }
    compare_or_write(
        "docs/reference/commands.md",
        text.trim_end_matches('\n').to_owned().as_str(),
    );
}

#[test]
fn the_reference_of_dbus_is_generated_from_the_interfaces() {
    let dir = workspace().join("packaging/root/usr/share/dbus-1/interfaces");
    let mut files: Vec<_> = fs::read_dir(&dir)
        .expect("interfaces")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let mut text = "# D-Bus\n\n\
        Generated from the interface files in `packaging` with \
        `SKUPPER_UPDATE=1 cargo nextest run -p skupper-tests contract`. The test \
        `introspection_matches_the_shipped_interfaces` compares the files with the running service.\n\n\
        The service is `io.skupper.Skupper1`. The manager is `/io/skupper/Skupper1`; below it is an object \
        for each resource.\n"
        .to_owned();
    for file in files {
        let xml = fs::read_to_string(&file).expect("text");
        text.push_str(&interface(&xml));
    }
    compare_or_write("docs/reference/dbus.md", &text);
}

/// Renders a D-Bus interface: its members with their comments.
fn interface(xml: &str) -> String {
    let attribute = |line: &str, name: &str| {
        let rest = line.split_once(&format!(" {name}=\""))?.1;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let (mut text, mut comment, mut in_comment) = (String::new(), String::new(), false);
    let mut member: Option<(String, Vec<String>, Vec<String>)> = None;
    for line in xml.lines().map(str::trim) {
        if line.starts_with("<interface") {
            let name = attribute(line, "name").expect("a name");
            text.push_str(&format!("\n## {name}\n"));
        } else if line.starts_with("<!--") {
            (comment, in_comment) = (String::new(), true);
        } else if line.starts_with("-->") {
            in_comment = false;
        } else if in_comment {
            comment.push_str(line);
            comment.push(' ');
        } else if line.starts_with("<method") || line.starts_with("<signal") {
            let kind = if line.starts_with("<method") {
                "method"
            } else {
                "signal"
            };
            let name = attribute(line, "name").expect("a name");
            member = Some((format!("{kind} {name}"), Vec::new(), Vec::new()));
            if line.ends_with("/>") {
                text.push_str(&finish(member.take(), &mut comment));
            }
        } else if line.starts_with("<arg") {
            if let Some((_, into, out)) = &mut member {
                let kind = attribute(line, "type").expect("a type");
                let arg = match attribute(line, "name") {
                    Some(name) => format!("{name} `{kind}`"),
                    None => format!("`{kind}`"),
                };
                match attribute(line, "direction").as_deref() {
                    Some("out") => out.push(arg),
                    _ => into.push(arg),
                }
            }
        } else if line.starts_with("</method") || line.starts_with("</signal") {
            text.push_str(&finish(member.take(), &mut comment));
        } else if line.starts_with("<property") {
            let (name, kind) = (attribute(line, "name"), attribute(line, "type"));
            let (name, kind) = (name.expect("a name"), kind.expect("a type"));
            let member = (format!("property {name} `{kind}`"), Vec::new(), Vec::new());
            text.push_str(&finish(Some(member), &mut comment));
        }
    }
    text
}

/// Renders a member with its arguments. Consumes the comment before it.
fn finish(member: Option<(String, Vec<String>, Vec<String>)>, comment: &mut String) -> String {
    let (name, into, out) = member.expect("a member");
    let into = match into.is_empty() {
        true => String::new(),
        false => format!(" ({})", into.join(", ")),
    };
    let out = match out.is_empty() {
        true => String::new(),
        false => format!(" -> {}", out.join(", ")),
    };
    let comment = std::mem::take(comment);
    format!("\n**{name}**{into}{out}\n\n{}\n", comment.trim())
}
