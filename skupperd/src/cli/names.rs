//! Completion of what shells can not know: names of resources and of namespaces.

use super::{Command, Global, place, place::Place};
use crate::{cli::show, model::Kind};
use clap::{CommandFactory, FromArgMatches};
use clap_complete::{
    CompleteEnv,
    engine::{ArgValueCompleter, CompletionCandidate},
};
use std::{env, ffi::OsStr};

/// Answers a shell that asks for completions (variable `COMPLETE`), and ends the process; else does
/// nothing.
pub fn complete() {
    CompleteEnv::with_factory(Command::command).complete();
}

/// Completes names of resources of a kind.
pub(super) fn of(kind: Kind) -> ArgValueCompleter {
    ArgValueCompleter::new(move |begin: &OsStr| {
        candidates(begin, |place| {
            let all = place.documents_of(place.name(), kind).ok()?;
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
        candidates(begin, |place| {
            let all = place.namespaces().ok()?;
            Some(all.iter().map(ToString::to_string).collect())
        })
    })
}

/// What there is that begins like this; nothing where nobody can tell.
fn candidates(
    begin: &OsStr,
    names: impl Fn(&Place) -> Option<Vec<String>>,
) -> Vec<CompletionCandidate> {
    let begin = begin.to_string_lossy();
    let names = asked().and_then(|place| names(&place)).unwrap_or_default();
    let names = names.into_iter().filter(|name| name.starts_with(&*begin));
    names.map(CompletionCandidate::new).collect()
}

/// The place that the words so far are about. A shell gives them after `--`.
fn asked() -> Option<Place> {
    let words = env::args_os().skip_while(|word| word != "--").skip(1);
    // The line is not finished: what is wrong with it does not matter yet.
    let command = Command::command().ignore_errors(true);
    let found = command.try_get_matches_from(words).ok()?;
    let global = Global::from_arg_matches(&found).ok()?;
    place(&global).ok()
}
