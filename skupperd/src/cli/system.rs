//! `skupper system`

use super::{Failure, Outcome, invalid, output};
use crate::{
    manifest::{Located, MAX_FILE_SIZE, parse},
    model::Kind,
    store::{NamespaceDir, read_text},
};
use anyhow::anyhow;
use clap::Subcommand;
use std::{
    io::Read,
    path::{Path, PathBuf},
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Apply the resources of a file: all of them, or none
    Apply {
        /// File (.yaml, .yml or .json), or - for standard input
        #[arg(short, long)]
        filename: Option<PathBuf>,
    },
    /// Delete the resources that a file names
    Delete {
        /// File (.yaml, .yml or .json), or - for standard input
        #[arg(short, long)]
        filename: Option<PathBuf>,
    },
}

/// Kinds in the order they are applied.
fn order(kind: Kind) -> usize {
    Kind::ALL
        .iter()
        .position(|k| *k == kind)
        .unwrap_or(Kind::ALL.len())
}

fn read(
    namespace: &NamespaceDir,
    filename: Option<PathBuf>,
) -> Result<(Vec<Located>, String), Failure> {
    let path = filename.ok_or_else(|| {
        invalid("You need to provide a file to apply or use standard input.... (-f FILE or -f -)")
    })?;
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .take(MAX_FILE_SIZE + 1)
            .read_to_string(&mut text)?;
        text
    } else {
        let known = [".yaml", ".yml", ".json"];
        let name = path.to_string_lossy();
        if !known.iter().any(|end| name.ends_with(end)) {
            let text = "The file has an unsupported extension, it should have one of the \
                        following: .yaml, .yml, .json";
            return Err(invalid(text));
        }
        if path.is_dir() {
            return Err(invalid(format!("The file {name:?} is a directory")));
        }
        match read_text(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(invalid(format!("The file {name:?} does not exist")));
            }
            other => other?,
        }
    };
    let (good, bad): (Vec<_>, Vec<_>) = parse(&path, text.as_bytes(), Some(namespace.name()))
        .into_iter()
        .partition(Result::is_ok);
    if !bad.is_empty() {
        let lines: Vec<String> = bad
            .into_iter()
            .filter_map(Result::err)
            .map(|e| e.to_string())
            .collect();
        return Err(Failure::Failed(anyhow!(
            "{}\nnothing was changed",
            lines.join("\n")
        )));
    }
    let mut resources: Vec<Located> = good.into_iter().filter_map(Result::ok).collect();
    resources.sort_by_key(|l| order(l.resource.kind()));
    Ok((resources, text))
}

pub(super) fn run(namespace: &NamespaceDir, verb: Verb) -> Outcome {
    match verb {
        Verb::Apply { filename } => {
            let (resources, text) = read(namespace, filename)?;
            let mut editor = namespace.edit()?;
            let conflicts = editor.conflicts(&resources)?;
            if !conflicts.is_empty() {
                let lines: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
                return Err(Failure::Failed(anyhow!(
                    "{}\nnothing was changed",
                    lines.join("\n")
                )));
            }
            for located in &resources {
                let document = text.get(located.body.clone()).unwrap_or_default();
                let path = editor.write_resource(document)?;
                output::print(&format!("File written to {}", path.display()))?;
                output::print(&format!("{} added", located.key()))?;
            }
            output::print("Custom resources are applied.")
        }
        Verb::Delete { filename } => {
            let (resources, _) = read(namespace, filename)?;
            let mut editor = namespace.edit()?;
            let mut missing = Vec::new();
            for located in &resources {
                if editor.remove_resource(&located.key())?.is_empty() {
                    missing.push(format!("{} does not exist", located.key()));
                } else {
                    output::print(&format!("{} deleted", located.key()))?;
                }
            }
            if missing.is_empty() {
                output::print("Custom resources are deleted.")
            } else {
                Err(Failure::Failed(anyhow!(missing.join("\n"))))
            }
        }
    }
}
