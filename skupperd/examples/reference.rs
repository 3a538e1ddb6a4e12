//! Writes what is made from the tree of commands into a directory: a manual page for each command,
//! and completions for shells. `cargo xtask man` and the packages use it.
//!
//! An example, because what it takes is then neither in the programs nor in xtask, which is built
//! before everything else.

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use clap_mangen::Man;
use std::{env, fs, path::Path};

/// zsh loads the file when it is first asked, and wants an answer of it at once.
const FIRST: &str = "\n[[ $funcstack[1] == _skupper ]] && _clap_dynamic_completer_skupper \"$@\"\n";

fn main() -> Result<()> {
    let dir = env::args_os()
        .nth(1)
        .context("usage: reference DIRECTORY")?;
    let dir = Path::new(&dir);
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    // Shells that distributions have; others take a line of their users'. The command itself knows
    // the words, and the names of resources.
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
    let command = skupperd::cli::Command::command();
    let mut command = command.disable_help_subcommand(true);
    command.build();
    page(&command, &date()?, dir)
}

/// The page of a command, and those of the commands below it.
fn page(command: &clap::Command, date: &str, dir: &Path) -> Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .date(date)
        .source(concat!("skupperd ", env!("CARGO_PKG_VERSION")))
        .manual("Skupper");
    let mut text = Vec::new();
    man.render(&mut text)?;
    let path = dir.join(format!("{name}.1"));
    fs::write(&path, text).with_context(|| path.display().to_string())?;
    let below = command.get_subcommands().filter(|c| !c.is_hide_set());
    below.into_iter().try_for_each(|c| page(c, date, dir))
}

/// The day that pages bear: that of the sources, so that the same sources give the same pages.
fn date() -> Result<String> {
    let seconds = env::var("SOURCE_DATE_EPOCH").context("SOURCE_DATE_EPOCH")?;
    let seconds = seconds.parse().context("SOURCE_DATE_EPOCH")?;
    let time = jiff::Timestamp::from_second(seconds).context("SOURCE_DATE_EPOCH")?;
    Ok(time.strftime("%Y-%m-%d").to_string())
}
