//! `skupper site`

use super::{
    Failure, Outcome, edit, invalid,
    output::{self, Encoding, Format},
};
use crate::{
    model::{API_VERSION, Kind, check_host, check_name},
    reconcile::HOSTS,
    store::NamespaceDir,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::net::IpAddr;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Create a site
    Create {
        /// Name of the site
        name: String,
        #[command(flatten)]
        wish: Wish,
    },
    /// Change a site: what is not named stays as it is
    Update {
        /// Name of the site
        name: String,
        #[command(flatten)]
        wish: Wish,
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
        #[command(flatten)]
        wish: Wish,
        #[command(flatten)]
        format: Format,
    },
}

/// What a site is to be like.
#[derive(Debug, Args)]
pub(super) struct Wish {
    /// Let other sites link to this one; --enable-link-access=false to stop it
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    enable_link_access: Option<bool>,
    /// Host name or address by which other sites reach this one; several by repeating it [default:
    /// what this host is known by]
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Make it an edge site, which links to others and is linked to by none; --edge=false for an
    /// interior one
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    edge: Option<bool>,
}

impl Wish {
    fn apply(&self, site: &mut Value) -> Result<(), Failure> {
        for host in &self.host {
            check_host(host).map_err(|e| invalid(format!("host is not valid: {e}")))?;
            if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
                let text = format!("host is not valid: nobody can dial {host}");
                return Err(invalid(text));
            }
        }
        let spec = &mut site["spec"];
        if let Some(enable) = self.enable_link_access {
            spec["linkAccess"] = json!(if enable { "default" } else { "none" });
        }
        if !self.host.is_empty() {
            spec["settings"][HOSTS] = json!(self.host.join(","));
        }
        if let Some(edge) = self.edge {
            spec["edge"] = json!(edge);
        }
        if spec["edge"] == true && !matches!(spec["linkAccess"].as_str(), None | Some("none" | ""))
        {
            let text = "an edge site has no link access: name --edge or --enable-link-access";
            return Err(invalid(text));
        }
        Ok(())
    }
}

fn resource(name: &str, wish: &Wish) -> Result<Value, Failure> {
    check_name(name).map_err(|e| invalid(format!("site name is not valid: {e}")))?;
    let mut site = json!({
        "apiVersion": API_VERSION,
        "kind": "Site",
        "metadata": { "name": name },
        "spec": {},
    });
    wish.apply(&mut site)?;
    Ok(site)
}

pub(super) fn run(namespace: &NamespaceDir, verb: Verb) -> Outcome {
    match verb {
        Verb::Create { name, wish } => {
            let site = resource(&name, &wish)?;
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
        Verb::Update { name, wish } => {
            let mut editor = namespace.edit()?;
            let site = edit::find(namespace, Kind::Site, &name)?;
            let site =
                site.ok_or_else(|| invalid(format!("site {name} must exist to be updated")))?;
            let mut value = (*site.document).clone();
            wish.apply(&mut value)?;
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
        Verb::Generate { name, wish, format } => {
            let site = resource(&name, &wish)?;
            output::document(&site, format.encoding()?.unwrap_or(Encoding::Yaml))
        }
    }
}
