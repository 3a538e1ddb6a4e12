//! The examples that help and manual pages show.

use std::fmt::Write;

/// The heading, which `examples/reference.rs` makes a section of a manual page.
const HEADING: &str = "Examples:";

/// Text below the options of a help: commands as they are typed, with explanations in `#` lines.
pub(super) fn examples(lines: &[&str]) -> String {
    let mut text = HEADING.to_owned();
    for line in lines {
        // Writing to a String does not fail.
        let _ = write!(text, "\n  {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::cli::CommandLine;
    use clap::{CommandFactory, Parser};

    /// Verbs with their paths. A noun has verbs below it and needs no example.
    fn verbs<'a>(
        command: &'a clap::Command,
        path: &str,
        found: &mut Vec<(String, &'a clap::Command)>,
    ) {
        for below in command.get_subcommands().filter(|c| c.get_name() != "help") {
            let path = format!("{path} {}", below.get_name());
            if below.has_subcommands() {
                verbs(below, &path, found);
            } else {
                found.push((path, below));
            }
        }
    }

    #[test]
    fn every_verb_has_an_example_and_each_example_parses() {
        let mut tree = CommandLine::command();
        tree.build();
        let mut all = Vec::new();
        verbs(&tree, "skupper", &mut all);
        assert!(all.len() > 70, "{}", all.len());
        all.push(("skupper".to_owned(), &tree));
        for (path, command) in all {
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            let lines = help.lines().map(str::trim);
            let lines: Vec<&str> = lines.filter(|line| line.starts_with("skupper")).collect();
            assert!(!lines.is_empty(), "{path} has no example");
            assert!(
                lines.iter().any(|line| line.starts_with(&path)),
                "{path}: an example shows the command itself: {lines:?}"
            );
            for line in lines {
                assert!(
                    !line.contains(['\'', '"']),
                    "{line}: quotes are not parsed here"
                );
                // What a shell takes for itself.
                let words = line
                    .split_whitespace()
                    .take_while(|w| !["|", ">"].contains(w));
                if let Err(error) = CommandLine::try_parse_from(words) {
                    panic!("{line}: {error}");
                }
            }
        }
    }

    #[test]
    fn every_option_and_argument_has_a_help_text() {
        let mut tree = CommandLine::command();
        tree.build();
        let mut all = Vec::new();
        verbs(&tree, "skupper", &mut all);
        for (path, command) in all {
            for arg in command.get_arguments() {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                let own = !["help", "version"].contains(&arg.get_id().as_str());
                assert!(
                    !own || help.split_whitespace().count() > 2,
                    "{path} {}: {help:?}",
                    arg.get_id()
                );
            }
        }
    }
}
