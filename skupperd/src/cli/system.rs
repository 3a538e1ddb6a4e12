//! `skupper system`

use super::{Failure, Outcome, invalid, output};
use crate::{
    manifest::MAX_FILE_SIZE,
    operate,
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

fn read(filename: Option<PathBuf>) -> Result<(PathBuf, String), Failure> {
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
    Ok((path, text))
}

pub(super) fn run(namespace: &NamespaceDir, verb: Verb) -> Outcome {
    match verb {
        Verb::Apply { filename } => {
            let (path, text) = read(filename)?;
            for (key, file) in operate::apply(namespace, &path, &text)? {
                output::print(&format!("File written to {}", file.display()))?;
                output::print(&format!("{key} added"))?;
            }
            output::print("Custom resources are applied.")
        }
        Verb::Delete { filename } => {
            let (path, text) = read(filename)?;
            let resources = operate::applied(namespace, &path, &text)?;
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
