//! The whole surface: each kind, field, command and flag, held against the contract, and the pages that
//! are made of both.

use skupper_tests::contract::{self, Item, Whose};
use skupperd::model::Kind;
use std::fs;

const FIELDS: &str = "fields.txt";
const COMMANDS: &str = "commands.txt";

#[test]
fn every_item_of_the_contract_is_there_and_names_its_test() {
    let code = [
        (FIELDS, contract::kinds_and_fields(), true),
        // What these are for is in their help.
        (COMMANDS, contract::commands_and_flags(), false),
    ];
    let mut wrong = Vec::new();
    for (file, code, words) in &code {
        if contract::updating() {
            contract::write(file, code);
        }
        wrong.extend(contract::wrong(file, code, *words));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    contract::kept("docs/contract.md", &table());
}

/// The table of all items.
fn table() -> String {
    let mut text = "# The contract, item by item\n\n\
        Each kind, field, command and flag of Skupper v2 for platforms other than Kubernetes, whether it is here, and \
        the test that shows it; and what is here beside it (*ours*). This page is made from the code and \
        from `tests/contract` by the test `every_item_of_the_contract_is_there_and_names_its_test`, which fails when an item \
        is missing on either side, or its test.\n"
        .to_owned();
    for (title, file) in [
        ("Kinds and fields", FIELDS),
        ("Commands and flags", COMMANDS),
    ] {
        let items = contract::items(file);
        let count = |whose| items.iter().filter(|i| i.whose == whose).count();
        text.push_str(&format!(
            "\n## {title}\n\n{} of the contract, {} of them without a place on a host; {} ours.\n\n\
             | item | here | test |\n|---|---|---|\n",
            count(Whose::Contract) + count(Whose::Absent),
            count(Whose::Absent),
            count(Whose::Ours),
        ));
        for item in &items {
            text.push_str(&row(item));
        }
    }
    text
}

fn row(item: &Item) -> String {
    let name = item.name.replacen("* ", "any ", 1);
    let here = match item.whose {
        Whose::Contract => "yes".to_owned(),
        Whose::Absent => format!("no: {}", item.words),
        Whose::Ours => "ours".to_owned(),
    };
    format!("| `{name}` | {here} | `{}` |\n", item.test)
}

fn words(items: &[Item], name: &str) -> String {
    let item = items.iter().find(|item| item.name == name);
    item.map(|item| item.words.replace('|', "\\|"))
        .unwrap_or_default()
}

#[test]
fn the_reference_of_resources_is_made_from_the_code() {
    let items = contract::items(FIELDS);
    let mut text = "# Resources\n\n\
        Made from the code (`SKUPPER_UPDATE=1 cargo nextest run -p skupper-tests surface`). A field that is not here is \
        refused with the names of those that are; one that has no effect is kept, and said under `status.notes`. \
        `[]` is each element of a list.\n\n## All kinds\n\n| field | takes | |\n|---|---|---|\n"
        .to_owned();
    let row = |text: &mut String, of: &str, field: &skupperd::manifest::schema::Field| {
        let words = words(&items, &format!("{of} {}", field.path));
        text.push_str(&format!(
            "| `{}` | {} | {words} |\n",
            field.path, field.takes
        ));
    };
    for field in contract::common() {
        row(&mut text, "*", &field);
    }
    for kind in Kind::ALL {
        let about = words(&items, kind.as_str());
        text.push_str(&format!(
            "\n## {kind}\n\n`apiVersion: {}`. {about}\n\n| field | takes | |\n|---|---|---|\n",
            kind.api_version()
        ));
        for field in contract::fields(kind) {
            row(&mut text, kind.as_str(), &field);
        }
    }
    contract::kept("docs/reference/resources.md", &text);
}

#[test]
fn the_reference_of_commands_is_made_from_the_code() {
    let tree = contract::tree();
    let mut text = "# Commands\n\n\
        Made from the code (`SKUPPER_UPDATE=1 cargo nextest run -p skupper-tests surface`). Exit codes: 0 done, 1 not done, \
        2 the words make no sense. Errors go to standard error.\n\n## Everywhere\n\n"
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
                // Without a value it is that it is so.
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
                contract::flag(arg),
                value.replace('|', "\\|"),
                help.replace('|', "\\|").replace('\n', " "),
                env.unwrap_or_default(),
                defaults.join(" ")
            ));
        }
        text.push('\n');
    };
    table(&mut text, &contract::arguments(&tree, true));
    for (path, command) in contract::commands(&tree) {
        let about = command
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default();
        let below = command.get_subcommands().count() > 0;
        let level = if path.contains(' ') { "###" } else { "##" };
        text.push_str(&format!("{level} skupper {path}\n\n{about}.\n\n"));
        if !below {
            table(&mut text, &contract::arguments(command, false));
        }
    }
    contract::kept(
        "docs/reference/commands.md",
        text.trim_end_matches('\n').to_owned().as_str(),
    );
}

#[test]
fn the_reference_of_dbus_is_made_from_what_is_shipped() {
    let dir = contract::root().join("packaging/root/usr/share/dbus-1/interfaces");
    let mut files: Vec<_> = fs::read_dir(&dir)
        .expect("interfaces")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let mut text = "# D-Bus\n\n\
        Made from the interfaces that are shipped, which the test `o1_introspection_is_documented_and_as_shipped` \
        holds against the running service `io.skupper.Skupper1`. The manager is `/io/skupper/Skupper1`; below it is an object \
        for each resource.\n"
        .to_owned();
    for file in files {
        let xml = fs::read_to_string(&file).expect("text");
        text.push_str(&interface(&xml));
    }
    contract::kept("docs/reference/dbus.md", &text);
}

/// An interface as text: its members with what is said of them.
fn interface(xml: &str) -> String {
    let attribute = |line: &str, name: &str| {
        let rest = line.split_once(&format!(" {name}=\""))?.1;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let (mut text, mut said, mut inside) = (String::new(), String::new(), false);
    let mut member: Option<(String, Vec<String>, Vec<String>)> = None;
    for line in xml.lines().map(str::trim) {
        if line.starts_with("<interface") {
            let name = attribute(line, "name").expect("a name");
            text.push_str(&format!("\n## {name}\n"));
        } else if line.starts_with("<!--") {
            (said, inside) = (String::new(), true);
        } else if line.starts_with("-->") {
            inside = false;
        } else if inside {
            said.push_str(line);
            said.push(' ');
        } else if line.starts_with("<method") || line.starts_with("<signal") {
            let kind = if line.starts_with("<method") {
                "method"
            } else {
                "signal"
            };
            let name = attribute(line, "name").expect("a name");
            member = Some((format!("{kind} {name}"), Vec::new(), Vec::new()));
            if line.ends_with("/>") {
                text.push_str(&finish(member.take(), &mut said));
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
            text.push_str(&finish(member.take(), &mut said));
        } else if line.starts_with("<property") {
            let (name, kind) = (attribute(line, "name"), attribute(line, "type"));
            let (name, kind) = (name.expect("a name"), kind.expect("a type"));
            let member = (format!("property {name} `{kind}`"), Vec::new(), Vec::new());
            text.push_str(&finish(Some(member), &mut said));
        }
    }
    text
}

fn finish(member: Option<(String, Vec<String>, Vec<String>)>, said: &mut String) -> String {
    let (name, into, out) = member.expect("a member");
    let into = match into.is_empty() {
        true => String::new(),
        false => format!(" ({})", into.join(", ")),
    };
    let out = match out.is_empty() {
        true => String::new(),
        false => format!(" -> {}", out.join(", ")),
    };
    let said = std::mem::take(said);
    format!("\n**{name}**{into}{out}\n\n{}\n", said.trim())
}
