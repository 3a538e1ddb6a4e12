//! `skupper site`

use super::{
    CommandResult, Failure, completion,
    examples::examples,
    invalid,
    output::{self, Encoding, OutputArgs},
    overview::chosen_site,
    resource, show,
    target::CommandTarget,
    view::ViewArgs,
    wait::{self, WaitArgs},
};
use crate::{
    manifest::settings::LINK_ACCESS_HOSTS,
    model::{API_VERSION, Kind, check_host, check_name},
    operate,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::net::IpAddr;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Create the site of the namespace
    #[command(
        after_help = examples(&[
            "skupper site create west",
            "# A site that other sites can link to, under this name",
            "skupper site create east --enable-link-access --host east.example.com",
        ]),
        mut_arg("wait", |arg| arg.help(wait::help(Kind::Site))),
        mut_arg("timeout", |arg| arg.help("Longest time to wait, such as 30s or 5m [default: 3m]"))
    )]
    Create {
        /// Name of the site
        name: String,
        #[command(flatten)]
        options: SiteOptions,
        /// Replace the site of this name, if there is one
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Change a site; options that are not given keep their value
    #[command(
        after_help = examples(&[
            "skupper site update east --enable-link-access",
            "# Stop accepting links",
            "skupper site update east --enable-link-access=false",
        ]),
        mut_arg("wait", |arg| arg.help(wait::help(Kind::Site)))
    )]
    Update {
        /// Name of the site
        #[arg(add = completion::resource_names(Kind::Site))]
        name: String,
        #[command(flatten)]
        options: SiteOptions,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Delete a site; its links end and its listeners close
    #[command(
        after_help = examples(&[
            "skupper site delete west",
            "# With its listeners, connectors, links and all other resources",
            "skupper site delete west --all",
        ]),
        mut_arg("wait", |arg| arg.help(wait::delete_help(Kind::Site)))
    )]
    Delete {
        /// Name of the site [default: the site of the namespace]
        #[arg(add = completion::resource_names(Kind::Site))]
        name: Option<String>,
        /// Delete all other resources of the namespace too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Show the site of the namespace
    #[command(after_help = examples(&["skupper site status", "skupper site status west -o yaml"]))]
    Status {
        /// Name of the site to show in detail [default: a table of all]
        #[arg(add = completion::resource_names(Kind::Site))]
        name: Option<String>,
        #[command(flatten)]
        view: ViewArgs,
    },
    /// Print a Site resource as YAML or JSON without creating it
    #[command(after_help = examples(&[
        "skupper site generate east --enable-link-access > site.yaml",
        "skupper site generate west -o json",
    ]))]
    Generate {
        /// Name of the site
        name: String,
        #[command(flatten)]
        options: SiteOptions,
        #[command(flatten)]
        format: OutputArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct SiteOptions {
    /// Accept links from other sites, on ports 55671 and 45671; =false stops accepting them
    #[arg(long, num_args = 0..=1, value_name = "BOOL", hide_possible_values = true, default_missing_value = "true", require_equals = true)]
    enable_link_access: Option<bool>,
    /// Host name or address at which other sites reach this one; repeat for several
    /// [default: names and addresses of this host]
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Make it an edge site, which links to interior sites and accepts no links; =false makes it interior
    #[arg(long, num_args = 0..=1, value_name = "BOOL", hide_possible_values = true, default_missing_value = "true", require_equals = true)]
    edge: Option<bool>,
}

impl SiteOptions {
    fn apply(&self, site: &mut Value) -> Result<(), Failure> {
        for host in &self.host {
            check_host(host).map_err(|e| invalid(format!("host is not valid: {e}")))?;
            if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
                let text = format!(
                    "host is not valid: other sites cannot dial the unspecified address {host}"
                );
                return Err(invalid(text));
            }
        }
        let spec = &mut site["spec"];
        if let Some(enable) = self.enable_link_access {
            spec["linkAccess"] = json!(if enable { "default" } else { "none" });
        }
        if !self.host.is_empty() {
            spec["settings"][LINK_ACCESS_HOSTS] = json!(self.host.join(","));
        }
        if let Some(edge) = self.edge {
            spec["edge"] = json!(edge);
        }
        Ok(())
    }
}

fn new_site(name: &str, options: &SiteOptions) -> Result<Value, Failure> {
    check_name(name).map_err(|e| invalid(format!("site name is not valid: {e}")))?;
    let mut site = json!({
        "apiVersion": API_VERSION,
        "kind": "Site",
        "metadata": { "name": name },
        "spec": {},
    });
    options.apply(&mut site)?;
    operate::edge_without_access(&site)?;
    Ok(site)
}

/// The name of the site of the namespace.
fn only_site(target: &CommandTarget) -> Result<String, Failure> {
    let site = chosen_site(target.documents(Kind::Site)?);
    let site = site.ok_or_else(|| invalid("There is no existing Skupper site resource"))?;
    Ok(show::text(&site, "/metadata/name"))
}

/// Deletes all resources of a namespace.
fn delete_all(target: &CommandTarget) -> CommandResult {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let documents = target.documents(kind)?;
        let name = |document| (kind, show::text(document, "/metadata/name"));
        all.extend(documents.iter().map(name));
    }
    let mut deletion = target.deletion()?;
    for (kind, name) in all {
        // Documents without a file, such as a site's own RouterAccess, are not found: ignore that.
        deletion.delete(kind, &name)?;
    }
    Ok(())
}

pub(super) fn run(target: &CommandTarget, verb: Verb) -> CommandResult {
    match verb {
        Verb::Create {
            name,
            options,
            force,
            wait,
        } => {
            let site = new_site(&name, &options)?;
            let sites = target.documents(Kind::Site)?;
            // A refused Site has a status and no spec.
            let sites = sites.iter().filter(|v| v.get("spec").is_some());
            let mut others = sites.map(|v| show::text(v, "/metadata/name"));
            if let Some(other) = others.find(|other| *other != name) {
                let text = format!("there is already a site created for this namespace: {other}");
                return Err(invalid(text));
            }
            resource::write_new(target, Kind::Site, "site", &name, &site, force)?;
            wait.written(target, Kind::Site, &name, &site, true)
        }
        Verb::Update {
            name,
            options,
            wait,
        } => {
            let mut change = json!({ "spec": {} });
            options.apply(&mut change)?;
            let path = target.update(Kind::Site, &name, &change)?;
            let missing = || invalid(format!("site {name} must exist to be updated"));
            let path = path.ok_or_else(missing)?;
            output::print(&format!("File written to {path}"))?;
            wait.written(target, Kind::Site, &name, &change, false)
        }
        Verb::Delete { name, all, wait } => {
            let name = name.map_or_else(|| only_site(target), Ok)?;
            if target.delete(Kind::Site, &name)?.is_empty() {
                return Err(show::not_found(target, "site", &name));
            }
            if all {
                delete_all(target)?;
            }
            wait.deleted(target, Kind::Site, &name)?;
            output::print(&format!("Site {name:?} is deleted"))
        }
        Verb::Status { name, view } => show::print(
            target,
            name.as_deref(),
            &view,
            &show::StatusView {
                kind: Kind::Site,
                noun: "site",
                empty: "There is no existing Skupper site resource",
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
        Verb::Generate {
            name,
            options,
            format,
        } => {
            let site = new_site(&name, &options)?;
            output::document(&site, format.encoding()?.unwrap_or(Encoding::Yaml))
        }
    }
}
