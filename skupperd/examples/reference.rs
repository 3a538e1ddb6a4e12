//! Generates a manual page for each command, the pages of `packaging/man` with their lists of
//! settings, and shell completions. `cargo xtask man` and the packages use it.
//!
//! An example, so that clap_mangen is a dependency of neither the programs nor xtask, which is
//! built first.

use anyhow::{Context, Error, Result};
use clap::{Arg, CommandFactory};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use clap_mangen::{
    Man,
    roff::{Inline, Roff, bold, italic, roman},
};
use skupperd::manifest::settings::manual;
use std::{env, fs, path::Path};

/// zsh loads the file at the first completion, so the file must also complete.
const FIRST: &str = "\n[[ $funcstack[1] == _skupper ]] && _clap_dynamic_completer_skupper \"$@\"\n";

const EXIT_STATUS: [(&str, &str); 3] = [
    ("0", "The command succeeded."),
    ("1", "The command failed; the reason is on standard error."),
    (
        "2",
        "The usage is invalid, or a named resource does not exist.",
    ),
];

fn main() -> Result<()> {
    let dir = env::args_os()
        .nth(1)
        .context("usage: reference DIRECTORY")?;
    let dir = Path::new(&dir);
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    // The files only call the command, which completes verbs, options and names of resources.
    let shells: [(&str, &dyn EnvCompleter, &str); 3] = [
        ("skupper.bash", &Bash, ""),
        ("skupper.fish", &Fish, ""),
        ("_skupper", &Zsh, FIRST),
    ];
    for (file, shell, end) in shells {
        let mut text = Vec::new();
        shell.write_registration("COMPLETE", "skupper", "skupper", "skupper", &mut text)?;
        text.extend(end.as_bytes());
        let path = dir.join(file);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    let command = skupperd::cli::CommandLine::command();
    let mut command = command.disable_help_subcommand(true);
    command.build();
    write_page(&command, &date()?, dir)?;
    write_pages_by_hand(dir)
}

/// Writes the pages that are written by hand, with the lists of settings that they leave room for.
fn write_pages_by_hand(dir: &Path) -> Result<()> {
    let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/man");
    for entry in fs::read_dir(pages).context(pages)? {
        let from = entry.context(pages)?.path();
        let at = || from.display().to_string();
        let text = fs::read_to_string(&from).with_context(at)?;
        let text = manual::expand(&text).map_err(Error::msg).with_context(at)?;
        let to = dir.join(from.file_name().with_context(at)?);
        fs::write(&to, text).with_context(|| to.display().to_string())?;
    }
    Ok(())
}

/// Writes the page of a command, and those of the commands below it.
fn write_page(command: &clap::Command, date: &str, dir: &Path) -> Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .date(date)
        .source(concat!("skupperd ", env!("CARGO_PKG_VERSION")))
        .manual("Skupper");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    let mut page = Roff::new();
    options(&mut page, command);
    commands(&mut page, command);
    examples(&mut page, command);
    exit_status(&mut page);
    see_also(&mut page, command);
    text.extend(page.render().as_bytes());
    let path = dir.join(format!("{name}.1"));
    fs::write(&path, text).with_context(|| path.display().to_string())?;
    let below = command.get_subcommands().filter(|c| !c.is_hide_set());
    below.into_iter().try_for_each(|c| write_page(c, date, dir))
}

/// A section for each heading of the help: the command's own options, then the global ones.
fn options(page: &mut Roff, command: &clap::Command) {
    let shown = |arg: &&Arg| !arg.is_hide_set();
    let all: Vec<&Arg> = command.get_arguments().filter(shown).collect();
    let mut headings: Vec<Option<&str>> = vec![None];
    for arg in &all {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    for heading in headings {
        let below = all.iter().filter(|arg| arg.get_help_heading() == heading);
        let title = heading.unwrap_or("Options").to_uppercase();
        page.control("SH", [title.as_str()]);
        for arg in below {
            page.control("TP", []);
            page.text(head(arg));
            page.text([roman(body(arg))]);
        }
    }
}

/// An option as it is typed, or the name of an argument.
fn head(arg: &Arg) -> Vec<Inline> {
    let mut head = Vec::new();
    if let Some(short) = arg.get_short() {
        head.push(bold(format!("-{short}")));
    }
    if let Some(long) = arg.get_long() {
        if !head.is_empty() {
            head.push(roman(", "));
        }
        head.push(bold(format!("--{long}")));
    }
    if arg.is_positional() || arg.get_action().takes_values() {
        let names = arg.get_value_names().unwrap_or_default();
        let names: Vec<&str> = names.iter().map(clap::builder::Str::as_str).collect();
        let optional = arg.get_num_args().is_some_and(|n| n.min_values() == 0);
        let (before, after) = match (arg.is_positional(), optional) {
            (true, _) if arg.is_required_set() => ("", ""),
            (true, _) => ("[", "]"),
            (false, true) => ("[=", "]"),
            (false, false) => (" ", ""),
        };
        head.push(roman(before));
        head.push(italic(names.join(" ")));
        head.push(roman(after));
    }
    head
}

/// The help of an option, with its default and its variable, as `--help` shows them.
fn body(arg: &Arg) -> String {
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let takes_values = arg.get_action().takes_values();
    let values: Vec<String> = match takes_values && !arg.is_hide_possible_values_set() {
        true => {
            let values = arg.get_possible_values().into_iter();
            values.map(|value| value.get_name().to_owned()).collect()
        }
        false => Vec::new(),
    };
    let defaults: Vec<_> = match takes_values && !arg.is_hide_default_value_set() {
        true => arg.get_default_values().iter().collect(),
        false => Vec::new(),
    };
    let defaults: Vec<_> = defaults.iter().map(|d| d.to_string_lossy()).collect();
    let mut note = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!(" [{name}: {value}]"));
        }
    };
    let variable = arg
        .get_env()
        .map(|name| name.to_string_lossy().into_owned());
    note("environment", variable.unwrap_or_default());
    note("default", defaults.join(" "));
    note("values", values.join(", "));
    text
}

fn commands(page: &mut Roff, command: &clap::Command) {
    if !command.has_subcommands() {
        return;
    }
    page.control("SH", ["COMMANDS"]);
    for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        page.control("TP", []);
        let name = below.get_display_name().unwrap_or(below.get_name());
        page.text([bold(name), roman("(1)")]);
        page.text([roman(
            below
                .get_about()
                .map(ToString::to_string)
                .unwrap_or_default(),
        )]);
    }
}

/// The examples of the help, as they are typed.
fn examples(page: &mut Roff, command: &clap::Command) {
    let Some(help) = command.get_after_help() else {
        return;
    };
    page.control("SH", ["EXAMPLES"]);
    page.control("nf", []);
    for line in help.to_string().lines().skip(1) {
        page.text([roman(line.trim_start())]);
    }
    page.control("fi", []);
}

fn exit_status(page: &mut Roff) {
    page.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in EXIT_STATUS {
        page.control("TP", []);
        page.text([bold(code)]);
        page.text([roman(meaning)]);
    }
}

/// The page of the command above, that of the kind in section 5, and the overview.
fn see_also(page: &mut Roff, command: &clap::Command) {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let words: Vec<&str> = command.get_bin_name().unwrap_or(name).split(' ').collect();
    let mut pages = Vec::new();
    if let [above @ .., _] = &words[..]
        && !above.is_empty()
    {
        pages.push(format!("{}(1)", above.join("-")));
    }
    let kind = match words.get(1).copied() {
        Some("token") => Some("accesstoken".to_owned()),
        Some("attached-connector-binding") => Some("attachedconnector".to_owned()),
        Some(
            noun @ ("site" | "listener" | "multikeylistener" | "connector" | "attached-connector"
            | "link" | "router-access" | "access-grant" | "certificate"),
        ) => Some(noun.replace('-', "")),
        _ => None,
    };
    pages.extend(kind.map(|kind| format!("skupper-{kind}(5)")));
    pages.extend(["skupper(7)", "skupperd(8)"].map(ToOwned::to_owned));
    page.control("SH", ["SEE ALSO"]);
    page.text([roman(pages.join(", "))]);
}

/// The date of the pages: that of the sources, so that the same sources make the same pages.
fn date() -> Result<String> {
    let seconds = env::var("SOURCE_DATE_EPOCH").context("SOURCE_DATE_EPOCH")?;
    let seconds = seconds.parse().context("SOURCE_DATE_EPOCH")?;
    let time = jiff::Timestamp::from_second(seconds).context("SOURCE_DATE_EPOCH")?;
    Ok(time.strftime("%Y-%m-%d").to_string())
}
