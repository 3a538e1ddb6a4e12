//! `skupper system`

use super::{
    Failure, Outcome, bundle, invalid, output, place::Place, show, status, unit, view::View,
};
use crate::{
    control::Goal,
    manifest::{MAX_FILE_SIZE, to_yaml},
    model::{Key, Kind, Name, Namespace},
    operate,
    store::read_text,
};
use anyhow::anyhow;
use clap::Subcommand;
use std::{
    collections::BTreeSet,
    io::{BufRead, Read},
    path::{Path, PathBuf},
    time::Duration,
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Have skupperd run now, and whenever the host (or, with --user, your session) starts
    Install {
        /// For scripts that name it: resources always take effect as they change, which is auto
        #[arg(long, env = "SKUPPER_SYSTEM_RELOAD_TYPE", value_parser = ["auto", "manual"])]
        reload_type: Option<String>,
    },
    /// Stop skupperd and have it started no more; resources and keys stay
    Uninstall {
        /// Even if there are sites, which stop
        #[arg(short, long)]
        force: bool,
    },
    /// Start skupperd
    Start,
    /// Stop skupperd; resources and keys stay
    Stop,
    /// Have skupperd read all resources again, or start it where it is not running
    Reload,
    /// Show skupperd and the sites of this host
    Status {
        #[command(flatten)]
        view: View,
    },
    /// Remove a namespace: its site, all other resources, its state and its keys
    Teardown {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
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
    /// Take over a site that upstream's tools have set up on this host, with its identity, CAs and links
    Adopt {
        /// Directory of its namespace, such as /var/lib/skupper/namespaces/default
        dir: PathBuf,
    },
    /// Put a site into one file, keys included, that sets it up on another host
    GenerateBundle(bundle::Wish),
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

pub(super) fn run(place: &Place, verb: Verb) -> Outcome {
    match verb {
        Verb::Install { reload_type } => unit::install(place, reload_type.as_deref()),
        Verb::Uninstall { force } => unit::uninstall(place, force),
        Verb::Start => unit::start(place),
        Verb::Stop => unit::stop(place),
        Verb::Reload => unit::reload(place),
        Verb::Status { view } => status::run(place, &view),
        Verb::Teardown { yes } => teardown(place, yes),
        Verb::Apply { filename } => {
            let (path, text) = read(filename)?;
            for (key, file) in place.apply(&path, &text)? {
                output::print(&format!("File written to {file}"))?;
                output::print(&format!("{key} added"))?;
            }
            output::print("Custom resources are applied.")
        }
        Verb::Delete { filename } => {
            let (path, text) = read(filename)?;
            delete(place, &place.named(&path, &text)?)
        }
        Verb::Adopt { dir } => adopt(place, &dir),
        Verb::GenerateBundle(wish) => bundle::run(place, &wish),
    }
}

fn adopt(place: &Place, dir: &Path) -> Outcome {
    // What is in it says that it is of the namespace that the directory is named after.
    let name = dir.file_name().and_then(|name| name.to_str());
    let name = name.and_then(|name| Namespace::new(name).ok());
    let namespace = name.as_ref().unwrap_or_else(|| place.name());
    let namespace = place.layout.namespace(namespace);
    let mut text = String::new();
    for document in operate::adopted(&namespace, dir)? {
        text.push_str("---\n");
        text.push_str(&to_yaml(&document).map_err(anyhow::Error::from)?);
    }
    for (key, _) in place.apply(dir, &text)? {
        output::print(&format!("{key} adopted"))?;
    }
    output::print(&format!(
        "Namespace {:?} has what was in {}, where nothing was changed. Stop the router that ran the \
         site: its ports are taken over as soon as they are free.",
        place.name(),
        dir.display()
    ))
}

fn delete(place: &Place, keys: &[Key]) -> Outcome {
    let mut missing = Vec::new();
    let mut deleted = BTreeSet::new();
    for key in keys {
        let gone = place.delete(key.kind, &key.name)?;
        // With a link its credentials may have gone already.
        if gone.is_empty() && !deleted.contains(key) {
            missing.push(format!("{key} does not exist"));
        }
        for gone in gone {
            output::print(&format!("{gone} deleted"))?;
            deleted.insert(gone);
        }
    }
    if missing.is_empty() {
        output::print("Custom resources are deleted.")
    } else {
        Err(Failure::Failed(anyhow!(missing.join("\n"))))
    }
}

/// Longest time for a site to end.
const ENDED: Duration = Duration::from_secs(60);

fn teardown(place: &Place, yes: bool) -> Outcome {
    let name = place.name();
    if !yes {
        output::error(&format!(
            "This removes namespace {name:?}: its site, all other resources, its state and its keys.\n\
             Type its name to go on (or use --yes):"
        ));
        let mut line = String::new();
        std::io::stdin().lock().take(1024).read_line(&mut line)?;
        if line.trim() != name.as_str() {
            return Err(Failure::Failed(anyhow!("nothing was removed")));
        }
    }
    let sites = place.documents(Kind::Site)?;
    if !place.remove()? {
        return Err(invalid(format!("there is no namespace {name:?}")));
    }
    for site in sites {
        if let Ok(site) = Name::new(show::text(&site, "/metadata/name")) {
            place.wait(&Key::new(Kind::Site, site), Goal::Gone, ENDED)?;
        }
    }
    output::print(&format!("Namespace {name:?} has been removed"))
}
