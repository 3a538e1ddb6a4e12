//! `skupper site`

use super::{
    Outcome, edit, invalid,
    output::{self, Encoding, Format},
};
use crate::{
    model::{API_VERSION, Kind, check_name},
    store::NamespaceDir,
};
use clap::Subcommand;
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Create a site
    Create {
        /// Name of the site
        name: String,
        /// Let other sites link to this one
        #[arg(long)]
        enable_link_access: bool,
    },
    /// Change a site
    Update {
        /// Name of the site
        name: String,
        /// Let other sites link to this one; --enable-link-access=false to stop it
        #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
        enable_link_access: Option<bool>,
    },
    /// Delete a site; links and listeners close
    Delete {
        /// Name of the site
        name: String,
        /// Delete all other resources of the namespace too
        #[arg(long)]
        all: bool,
    },
    /// Show sites
    Status {
        /// Name of the site [default: all]
        name: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// Print a Site resource and change nothing
    Generate {
        /// Name of the site
        name: String,
        /// Let other sites link to this one
        #[arg(long)]
        enable_link_access: bool,
        #[command(flatten)]
        format: Format,
    },
}

fn resource(name: &str, link_access: bool) -> Result<Value, super::Failure> {
    check_name(name).map_err(|e| invalid(format!("site name is not valid: {e}")))?;
    let spec = if link_access {
        json!({ "linkAccess": "default" })
    } else {
        json!({})
    };
    Ok(json!({
        "apiVersion": API_VERSION,
        "kind": "Site",
        "metadata": { "name": name },
        "spec": spec,
    }))
}

pub(super) fn run(namespace: &NamespaceDir, verb: Verb) -> Outcome {
    match verb {
        Verb::Create {
            name,
            enable_link_access,
        } => {
            let site = resource(&name, enable_link_access)?;
            let mut editor = namespace.edit()?;
            let other = edit::wanted(namespace, Kind::Site)?;
            if let Some(other) = other.iter().find(|l| *l.resource.name() != *name) {
                let text = format!(
                    "there is already a site created for this namespace: {}",
                    other.resource.name()
                );
                return Err(invalid(text));
            }
            let path = edit::write(&mut editor, &site)?;
            output::print(&format!("File written to {}", path.display()))
        }
        Verb::Update {
            name,
            enable_link_access,
        } => {
            let mut editor = namespace.edit()?;
            let site = edit::find(namespace, Kind::Site, &name)?;
            let site =
                site.ok_or_else(|| invalid(format!("site {name} must exist to be updated")))?;
            let mut value = (*site.document).clone();
            if let Some(enable) = enable_link_access {
                value["spec"]["linkAccess"] = json!(if enable { "default" } else { "none" });
            }
            let path = edit::write(&mut editor, &value)?;
            output::print(&format!("File written to {}", path.display()))
        }
        Verb::Delete { name, all } => {
            let mut editor = namespace.edit()?;
            if !edit::remove(&mut editor, Kind::Site, &name)? {
                return Err(invalid(format!("site {name} does not exist")));
            }
            if all {
                for located in namespace.load()?.resources {
                    editor.remove_resource(&located.key())?;
                }
            }
            output::print(&format!("Site {name:?} is deleted"))
        }
        Verb::Status { name, format } => edit::show(
            namespace,
            name.as_deref(),
            &format,
            &edit::Show {
                kind: Kind::Site,
                none: "There is no existing Skupper site resource",
                missing: format!(
                    "site {} does not exist",
                    name.as_deref().unwrap_or_default()
                ),
                header: &["NAME", "STATUS", "MESSAGE", "SITES-IN-NETWORK"],
                row: |v| {
                    let (name, status, message) = edit::status(v);
                    vec![
                        name,
                        status,
                        message,
                        edit::text(v, "/status/sitesInNetwork"),
                    ]
                },
                details: |v| {
                    let (name, status, message) = edit::status(v);
                    vec![
                        ("Name", name),
                        ("Status", status),
                        ("Message", message),
                        ("Sites In Network", edit::text(v, "/status/sitesInNetwork")),
                    ]
                },
            },
        ),
        Verb::Generate {
            name,
            enable_link_access,
            format,
        } => {
            let site = resource(&name, enable_link_access)?;
            output::document(&site, format.encoding()?.unwrap_or(Encoding::Yaml))
        }
    }
}
