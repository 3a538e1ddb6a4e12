//! `skupper site`

use super::{
    Failure, Outcome, invalid, names,
    output::{self, Encoding, Format},
    place::Place,
    show,
    view::View,
    wait::Wait,
};
use crate::{
    model::{API_VERSION, Kind, check_host, check_name},
    operate,
    reconcile::HOSTS,
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
        #[command(flatten)]
        wait: Wait,
    },
    /// Change a site: what is not named stays as it is
    Update {
        /// Name of the site
        #[arg(add = names::of(Kind::Site))]
        name: String,
        #[command(flatten)]
        wish: Wish,
        #[command(flatten)]
        wait: Wait,
    },
    /// Delete a site; links and listeners close
    Delete {
        /// Name of the site
        #[arg(add = names::of(Kind::Site))]
        name: String,
        /// Delete all other resources of the namespace too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Show sites
    Status {
        /// Name of the site [default: all]
        #[arg(add = names::of(Kind::Site))]
        name: Option<String>,
        #[command(flatten)]
        view: View,
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
    operate::edge_without_access(&site)?;
    Ok(site)
}

/// Deletes all resources of a namespace.
fn empty(place: &Place) -> Outcome {
    for kind in Kind::ALL {
        for document in place.documents(kind)? {
            // What nobody wrote, such as the access of a site, is not there to be deleted.
            place.delete(kind, &show::text(&document, "/metadata/name"))?;
        }
    }
    Ok(())
}

pub(super) fn run(place: &Place, verb: Verb) -> Outcome {
    match verb {
        Verb::Create { name, wish, wait } => {
            let site = resource(&name, &wish)?;
            let sites = place.documents(Kind::Site)?;
            // One that is refused has nothing but its name.
            let sites = sites.iter().filter(|v| v.get("spec").is_some());
            let mut others = sites.map(|v| show::text(v, "/metadata/name"));
            if let Some(other) = others.find(|other| *other != name) {
                let text = format!("there is already a site created for this namespace: {other}");
                return Err(invalid(text));
            }
            let path = place.create(&site)?;
            output::print(&format!("File written to {path}"))?;
            wait.written(place, Kind::Site, &name, &site, true)
        }
        Verb::Update { name, wish, wait } => {
            let mut change = json!({ "spec": {} });
            wish.apply(&mut change)?;
            let path = place.update(Kind::Site, &name, &change)?;
            let missing = || invalid(format!("site {name} must exist to be updated"));
            let path = path.ok_or_else(missing)?;
            output::print(&format!("File written to {path}"))?;
            wait.written(place, Kind::Site, &name, &change, false)
        }
        Verb::Delete { name, all, wait } => {
            if place.delete(Kind::Site, &name)?.is_empty() {
                return Err(invalid(format!("site {name} does not exist")));
            }
            if all {
                empty(place)?;
            }
            wait.deleted(place, Kind::Site, &name)?;
            output::print(&format!("Site {name:?} is deleted"))
        }
        Verb::Status { name, view } => show::show(
            place,
            name.as_deref(),
            &view,
            &show::Show {
                kind: Kind::Site,
                none: "There is no existing Skupper site resource",
                missing: format!(
                    "site {} does not exist",
                    name.as_deref().unwrap_or_default()
                ),
                header: &["NAME", "STATUS", "MESSAGE", "SITES-IN-NETWORK"],
                row: |v| {
                    let (name, status, message) = show::status(v);
                    vec![
                        name,
                        status,
                        message,
                        show::text(v, "/status/sitesInNetwork"),
                    ]
                },
                details: |v| {
                    let (name, status, message) = show::status(v);
                    vec![
                        ("Name", name),
                        ("Status", status),
                        ("Message", message),
                        ("Sites In Network", show::text(v, "/status/sitesInNetwork")),
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
