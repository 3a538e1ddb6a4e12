//! `skupper system`

use super::{
    CommandResult, Failure, bundle, examples::examples, invalid, output, show, system_status,
    target::CommandTarget, unit, view::ViewArgs,
};
use crate::{
    control::WaitGoal,
    manifest::{MAX_FILE_SIZE, to_yaml},
    model::{Key, Kind, Name, Namespace},
    operate::{self, ApplyEffect},
    store::read_named,
};
use anyhow::{Context, anyhow};
use clap::Subcommand;
use std::{
    collections::BTreeSet,
    io::{BufRead, Read},
    path::{Path, PathBuf},
    time::Duration,
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Enable and start skupperd: it also starts with the host or, with --user, with your session
    #[command(after_help = examples(&[
        "skupper system install",
        "# For your own sites",
        "skupper system install --user",
    ]))]
    Install {
        /// Accepted for scripts written for Skupper; changed files always take effect at once (auto)
        #[arg(
            long,
            value_name = "TYPE",
            env = "SKUPPER_SYSTEM_RELOAD_TYPE",
            value_parser = ["auto", "manual"]
        )]
        reload_type: Option<String>,
    },
    /// Stop and disable skupperd; resources and keys stay on disk
    #[command(after_help = examples(&["skupper system uninstall", "skupper system uninstall --force"]))]
    Uninstall {
        /// Stop skupperd even if it runs sites
        #[arg(short, long)]
        force: bool,
    },
    /// Start skupperd
    #[command(after_help = examples(&["skupper system start", "skupper system start --user"]))]
    Start,
    /// Stop skupperd; resources and keys stay on disk
    #[command(after_help = examples(&[
        "skupper system stop",
        "# With the sites of other namespaces",
        "skupper system stop --all",
    ]))]
    Stop {
        /// Also stop the sites of other namespaces, which the same skupperd runs
        #[arg(long)]
        all: bool,
    },
    /// Make skupperd read all resource files again, or start it if it is not running
    #[command(after_help = examples(&["skupper system reload"]))]
    Reload,
    /// Show skupperd, its unit, and the sites of this host
    #[command(after_help = examples(&["skupper system status", "skupper system status -o json"]))]
    Status {
        #[command(flatten)]
        view: ViewArgs,
    },
    /// Remove the namespace: its site, all other resources, its state and its keys
    #[command(after_help = examples(&[
        "skupper system teardown --namespace west",
        "# Without the question",
        "skupper system teardown --namespace west --yes",
    ]))]
    Teardown {
        /// Do not ask for confirmation
        #[arg(short, long)]
        yes: bool,
    },
    /// Apply the resources of a file: all of them, or none if one is invalid
    #[command(after_help = examples(&[
        "skupper system apply -f site.yaml",
        "skupper site generate west | skupper system apply -f -",
    ]))]
    Apply {
        /// File to read (.yaml, .yml or .json), or - for standard input
        #[arg(short, long)]
        filename: Option<PathBuf>,
    },
    /// Delete the resources that a file names
    #[command(after_help = examples(&["skupper system delete -f site.yaml"]))]
    Delete {
        /// File to read (.yaml, .yml or .json), or - for standard input
        #[arg(short, long)]
        filename: Option<PathBuf>,
    },
    /// Copy a site that Skupper's own tools set up on this host, with its ID, CAs and links
    #[command(after_help = examples(&[
        "# The namespace east of a user who ran Skupper with Podman",
        "skupper system adopt /home/user/.local/share/skupper/namespaces/east -n east",
    ]))]
    Adopt {
        /// Directory of its namespace, such as /var/lib/skupper/namespaces/default
        dir: PathBuf,
    },
    /// Write the site into one file, keys included, that installs it on another host
    #[command(after_help = examples(&[
        "skupper system generate-bundle west",
        "# A script that installs it by itself",
        "skupper system generate-bundle west --type shell-script",
    ]))]
    GenerateBundle(bundle::BundleOptions),
}

fn read(filename: Option<PathBuf>, verb: &str) -> Result<(PathBuf, String), Failure> {
    let path = filename.ok_or_else(|| {
        invalid(format!(
            "You need to provide a file to {verb} or use standard input: -f FILE or -f -"
        ))
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
        if path.is_dir() {
            let text = format!("The file {name:?} is a directory: name the files in it one by one");
            return Err(invalid(text));
        }
        if !known.iter().any(|end| name.ends_with(end)) {
            let text = "The file has an unsupported extension, it should have one of the \
                        following: .yaml, .yml, .json";
            return Err(invalid(text));
        }
        match read_named(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(invalid(format!("The file {name:?} does not exist")));
            }
            other => other.with_context(|| name.clone().into_owned())?,
        }
    };
    Ok((path, text))
}

pub(super) fn run(target: &CommandTarget, verb: Verb) -> CommandResult {
    match verb {
        Verb::Install { reload_type } => unit::install(target, reload_type.as_deref()),
        Verb::Uninstall { force } => unit::uninstall(target, force),
        Verb::Start => unit::start(target),
        Verb::Stop { all } => unit::stop(target, all),
        Verb::Reload => unit::reload(target),
        Verb::Status { view } => system_status::run(target, &view),
        Verb::Teardown { yes } => teardown(target, yes),
        Verb::Apply { filename } => {
            let (path, text) = read(filename, "apply")?;
            for applied in target.apply(&path, &text)? {
                if applied.effect != ApplyEffect::Unchanged {
                    output::print(&format!("File written to {}", applied.file.display()))?;
                }
                output::print(&format!("{} {}", applied.key, applied.effect.as_str()))?;
            }
            output::print("Custom resources are applied.")
        }
        Verb::Delete { filename } => {
            let (path, text) = read(filename, "delete")?;
            delete(target, &target.keys_in(&path, &text)?)
        }
        Verb::Adopt { dir } => adopt(target, &dir),
        Verb::GenerateBundle(options) => bundle::run(target, &options),
    }
}

fn adopt(target: &CommandTarget, dir: &Path) -> CommandResult {
    // Its resources name the namespace that the directory is named after.
    let name = dir.file_name().and_then(|name| name.to_str());
    let name = name.and_then(|name| Namespace::new(name).ok());
    let namespace = name.as_ref().unwrap_or_else(|| target.name());
    let namespace = target.layout.namespace(namespace);
    let mut text = String::new();
    for document in operate::adopt(&namespace, dir)? {
        text.push_str("---\n");
        text.push_str(&to_yaml(&document).map_err(anyhow::Error::from)?);
    }
    for applied in target.apply(dir, &text)? {
        output::print(&format!("{} adopted", applied.key))?;
    }
    output::print(&format!(
        "Namespace {:?} has a copy of {}. Stop the router that ran the site: skupperd opens its ports \
         as soon as they are free.",
        target.name(),
        dir.display()
    ))
}

fn delete(target: &CommandTarget, keys: &[Key]) -> CommandResult {
    let mut missing = Vec::new();
    let mut deleted = BTreeSet::new();
    let mut deletion = target.deletion()?;
    for key in keys {
        let gone = deletion.delete(key.kind, &key.name)?;
        // The credentials may have been deleted together with their link.
        if gone.is_empty() && !deleted.contains(key) {
            missing.push(format!(
                "{key} does not exist in namespace {}",
                target.name()
            ));
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
const SITE_END_TIMEOUT: Duration = Duration::from_secs(60);

fn teardown(target: &CommandTarget, yes: bool) -> CommandResult {
    let name = target.name();
    if !yes {
        output::error(&format!(
            "This removes namespace {name:?}: its site, all other resources, its state and its keys.\n\
             Type the name of the namespace to confirm, or use --yes:"
        ));
        let mut line = String::new();
        std::io::stdin().lock().take(1024).read_line(&mut line)?;
        if line.trim() != name.as_str() {
            return Err(Failure::Failed(anyhow!(
                "the name does not match: nothing was removed"
            )));
        }
    }
    let sites = target.documents(Kind::Site)?;
    if !target.remove_namespace()? {
        return Err(invalid(format!("namespace {name:?} does not exist")));
    }
    for site in sites {
        if let Ok(site) = Name::new(show::text(&site, "/metadata/name")) {
            target.wait(
                &Key::new(Kind::Site, site),
                WaitGoal::Gone,
                SITE_END_TIMEOUT,
            )?;
        }
    }
    output::print(&format!("Namespace {name:?} has been removed"))
}
