//! Shell completion of names of resources and namespaces, and of settings.

use super::{CommandLine, Global, command_target, target::CommandTarget};
use crate::{cli::show, manifest::settings::settings_of, model::Kind};
use clap::{CommandFactory, FromArgMatches};
use clap_complete::{
    CompleteEnv,
    engine::{ArgValueCompleter, CompletionCandidate},
};
use std::{env, ffi::OsStr};

/// Prints completions and ends the process if a shell asks for them (variable `COMPLETE`); else returns.
pub fn complete() {
    CompleteEnv::with_factory(CommandLine::command).complete();
}

/// Completes names of resources of a kind.
pub(super) fn resource_names(kind: Kind) -> ArgValueCompleter {
    ArgValueCompleter::new(move |begin: &OsStr| {
        candidates(begin, |target| {
            let all = target.documents_of(target.name(), kind).ok()?;
            Some(
                all.iter()
                    .map(|v| show::text(v, "/metadata/name"))
                    .collect(),
            )
        })
    })
}

/// Completes names of namespaces.
pub(super) fn namespaces() -> ArgValueCompleter {
    ArgValueCompleter::new(|begin: &OsStr| {
        candidates(begin, |target| {
            let all = target.namespaces().ok()?;
            Some(all.iter().map(ToString::to_string).collect())
        })
    })
}

/// Completes `KEY=VALUE`: the keys of the settings of a kind, then the words that one takes.
pub(super) fn settings(kind: Kind) -> ArgValueCompleter {
    ArgValueCompleter::new(move |begin: &OsStr| {
        let begin = begin.to_string_lossy();
        let candidate = |text: String, help: &'static str| {
            let is_wanted = text.starts_with(&*begin);
            is_wanted.then(|| CompletionCandidate::new(text).help(Some(help.into())))
        };
        let Some((key, _)) = begin.split_once('=') else {
            let all = settings_of(kind);
            return all
                .filter_map(|setting| candidate(format!("{}=", setting.key), setting.help))
                .collect();
        };
        let settings = settings_of(kind).filter(|setting| setting.keys().any(|k| k == key));
        let values = settings.flat_map(|setting| {
            let default = setting.default.filter(|text| !setting.words.contains(text));
            let values = setting.words.iter().copied().chain(default);
            values.map(|value| (value, setting.help))
        });
        values
            .filter_map(|(value, help)| candidate(format!("{key}={value}"), help))
            .collect()
    })
}

/// Names that begin like this; empty where they cannot be read.
fn candidates(
    begin: &OsStr,
    names: impl Fn(&CommandTarget) -> Option<Vec<String>>,
) -> Vec<CompletionCandidate> {
    let begin = begin.to_string_lossy();
    let names = target_of_command_line()
        .and_then(|target| names(&target))
        .unwrap_or_default();
    let names = names.into_iter().filter(|name| name.starts_with(&*begin));
    names.map(CompletionCandidate::new).collect()
}

/// The target of the words so far, which a shell passes after `--`.
fn target_of_command_line() -> Option<CommandTarget> {
    let words = env::args_os().skip_while(|word| word != "--").skip(1);
    // The line is not finished, so it may not parse.
    let command = CommandLine::command().ignore_errors(true);
    let found = command.try_get_matches_from(words).ok()?;
    let global = Global::from_arg_matches(&found).ok()?;
    command_target(&global).ok()
}
