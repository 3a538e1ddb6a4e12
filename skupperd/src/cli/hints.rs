//! Hints for words that other tools and earlier versions of Skupper have and this command has not.

use super::output;
use clap::error::{ContextKind, ContextValue};

/// Prints an error of the command line, and what the user may have meant.
pub fn print_error(error: &clap::Error) {
    // The output may be closed; the exit code still says how it went.
    let _ = error.print();
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidSubcommand)
        && let Some(hint) = hint(unknown, &words)
    {
        output::error(&format!("\nTry: {hint}"));
    }
}

fn hint(unknown: &str, words: &[String]) -> Option<&'static str> {
    let has = |word: &str| words.iter().any(|w| w == word);
    Some(match unknown {
        // Skupper 1
        "init" => "skupper site create NAME",
        "expose" => {
            "skupper connector create NAME PORT where the server is, and skupper listener create NAME \
             PORT where clients are"
        }
        "unexpose" => "skupper connector delete NAME, and skupper listener delete NAME",
        "service" => "skupper listener and skupper connector",
        "gateway" => "skupper site create NAME: each host has its own site",
        "create" if has("link") || has("token") => {
            "skupper token issue FILE at one site, and skupper token redeem FILE at the other"
        }
        "revoke-access" => "skupper link revoke NAME",
        // Skupper 2.0
        "setup" => "skupper system start",
        // kubectl
        "apply" => "skupper system apply -f FILE",
        "create" => "skupper NOUN create NAME, such as: skupper listener create web 8080",
        "get" | "describe" | "list" => "skupper NOUN status, such as: skupper listener status",
        "edit" | "patch" => {
            "skupper NOUN update NAME, such as: skupper listener update web --port 8080"
        }
        "delete" | "remove" => "skupper NOUN delete NAME, such as: skupper listener delete web",
        "logs" | "log" => "journalctl -u skupperd",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    fn hint_for(line: &str) -> Option<&'static str> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let error = crate::cli::CommandLine::try_parse_from(
            std::iter::once("skupper".to_owned()).chain(words.clone()),
        );
        let error = error.unwrap_err();
        match error.get(ContextKind::InvalidSubcommand) {
            Some(ContextValue::String(unknown)) => hint(unknown, &words),
            _ => None,
        }
    }

    #[test]
    fn words_of_other_tools_have_hints() {
        for (line, expected) in [
            ("init", "skupper site create"),
            ("link create file", "skupper token issue"),
            ("token create file", "skupper token issue"),
            ("create listener", "skupper NOUN create"),
            ("system setup", "skupper system start"),
            ("get listeners", "skupper NOUN status"),
            ("apply -f x", "skupper system apply"),
            ("logs", "journalctl"),
        ] {
            let found = hint_for(line).unwrap_or_default();
            assert!(found.starts_with(expected), "{line}: {found}");
        }
        assert_eq!(hint_for("nonsense"), None);
        // No hint is about a word that the command has by now.
        let top = crate::cli::CommandLine::command();
        assert!(!top.get_subcommands().any(|c| c.get_name() == "init"));
    }
}
