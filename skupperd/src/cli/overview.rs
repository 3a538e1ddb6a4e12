//! `skupper status`, a site on one screen, and `skupper network status`, the sites of the network.

mod network_status;

use super::{
    CommandResult, Failure, examples::examples, input_errors, output, show, target::CommandTarget,
    view::ViewArgs,
};
use crate::{
    model::{Kind, Phase},
    operate::{NO_SITE, NOT_RUNNING},
};
use anyhow::anyhow;
use clap::Subcommand;
use serde_json::{Value, json};
use std::cell::Cell;

#[derive(Debug, Subcommand)]
pub(super) enum NetworkVerb {
    /// Show the sites of the network, with their links and services
    #[command(after_help = examples(&[
        "skupper network status",
        "# In the form that tools written for Skupper read",
        "skupper network status --upstream",
    ]))]
    Status {
        /// Print Skupper's NetworkStatus document, as JSON or with -o yaml as YAML
        #[arg(long = "upstream")]
        skupper_format: bool,
        #[command(flatten)]
        view: ViewArgs,
    },
}

/// `skupper status`
pub(super) fn status(target: &CommandTarget, view: &ViewArgs) -> CommandResult {
    let any = Cell::new(false);
    let load = || {
        let all = site_overview(target)?;
        any.set(!all["site"].is_null());
        Ok(all)
    };
    view.show(load, screen)?;
    match any.get() {
        true => target.ensure_running(),
        false => Ok(()),
    }
}

/// `skupper network`
pub(super) fn network(target: &CommandTarget, verb: NetworkVerb) -> CommandResult {
    let NetworkVerb::Status {
        skupper_format,
        view,
    } = verb;
    if skupper_format {
        let load = || Ok(network_status::of_sites(list(&sites(target)?, "")));
        view.show(load, |network| format!("{network:#}"))?;
    } else {
        view.show(|| sites(target), sites_screen)?;
    }
    target.ensure_running()
}

/// The site of the namespace and its resources, as one document.
fn site_overview(target: &CommandTarget) -> Result<Value, Failure> {
    let all = |kind| target.documents(kind);
    let site = chosen_site(all(Kind::Site)?);
    let (links, listeners) = (all(Kind::Link)?, all(Kind::Listener)?);
    let (multi_key, connectors) = (all(Kind::MultiKeyListener)?, all(Kind::Connector)?);
    let shown = [&links, &listeners, &multi_key, &connectors];
    let shown: Vec<&Value> = shown.into_iter().flatten().chain(&site).collect();
    Ok(json!({
        "namespace": target.name(),
        "daemon": target.daemon_state()?.as_str(),
        "inputErrors": input_errors::hidden(target, target.name(), &shown)?,
        "site": site,
        "links": links,
        "listeners": listeners,
        "multiKeyListeners": multi_key,
        "connectors": connectors,
    }))
}

/// The Site that skupperd serves, or else one that is invalid, which has no spec.
pub(super) fn chosen_site(mut sites: Vec<Value>) -> Option<Value> {
    let valid = sites.iter().position(|v| v.get("spec").is_some());
    match valid {
        Some(valid) => Some(sites.swap_remove(valid)),
        None => sites.pop(),
    }
}

fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    let list = value.pointer(path).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

fn screen(all: &Value) -> String {
    let namespace = show::text(all, "/namespace");
    let Some(site) = all.get("site").filter(|v| !v.is_null()) else {
        let errors = input_errors::section(list(all, "/inputErrors"));
        return format!(
            "There is no site in namespace {namespace}; create one with: skupper site create NAME\n{errors}"
        );
    };
    let (name, status, message) = show::status(site);
    let mut text = format!("Site {name} in namespace {namespace}: {status}");
    if status != Phase::Ready.as_str() {
        text.push_str(&format!(", {message}"));
    }
    if message == NOT_RUNNING {
        text.push_str("; start it with: skupper system start");
    }
    let sites = show::text(site, "/status/sitesInNetwork");
    if !sites.is_empty() {
        let s = if sites == "1" { "" } else { "s" };
        text.push_str(&format!("\n{sites} site{s} in the network"));
    }
    text.push('\n');
    section(&mut text, links(all, site));
    section(&mut text, listeners(all));
    section(&mut text, connectors(all));
    text + &input_errors::section(list(all, "/inputErrors"))
}

fn section(text: &mut String, (header, rows): (&[&str], Vec<Vec<String>>)) {
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&output::columns(header, &rows));
    }
}

type LinkTable = (&'static [&'static str], Vec<Vec<String>>);

/// The message of a status that is not Ready; else empty.
fn failure_message(status: &str, message: String) -> String {
    if status == Phase::Ready.as_str() {
        String::new()
    } else {
        message
    }
}

fn links(all: &Value, site: &Value) -> LinkTable {
    let dialled = list(all, "/links").iter().map(|link| {
        let (name, status, message) = show::status(link);
        let message = failure_message(&status, message);
        let remote = show::text(link, "/status/remoteSiteName");
        vec![name, "out".to_owned(), status, remote, message]
    });
    let accepted = list(site, "/status/incomingLinks").iter().map(|link| {
        let text = |path: &str| show::text(link, path);
        let from = format!("from {}", text("/address"));
        let status = Phase::Ready.as_str().to_owned();
        vec![
            String::new(),
            "in".to_owned(),
            status,
            text("/remoteSiteName"),
            from,
        ]
    });
    let header = &["LINK", "WAY", "STATUS", "REMOTE-SITE", "MESSAGE"];
    (header, dialled.chain(accepted).collect())
}

fn listeners(all: &Value) -> LinkTable {
    let both = [list(all, "/listeners"), list(all, "/multiKeyListeners")];
    let rows = both.into_iter().flatten().map(|listener| {
        let text = |path: &str| show::text(listener, path);
        let (name, status, message) = show::status(listener);
        let message = failure_message(&status, message);
        let address = show::address(&text("/spec/host"), &text("/spec/port"));
        vec![name, status, text("/spec/routingKey"), address, message]
    });
    let header = &["LISTENER", "STATUS", "ROUTING-KEY", "ADDRESS", "MESSAGE"];
    (header, rows.collect())
}

fn connectors(all: &Value) -> LinkTable {
    let rows = list(all, "/connectors").iter().map(|connector| {
        let text = |path: &str| show::text(connector, path);
        let (name, status, message) = show::status(connector);
        let message = failure_message(&status, message);
        let host = text("/spec/host");
        let server = match host.is_empty() {
            true => text("/spec/selector"),
            false => show::address(&host, &text("/spec/port")),
        };
        vec![name, status, text("/spec/routingKey"), server, message]
    });
    let header = &["CONNECTOR", "STATUS", "ROUTING-KEY", "SERVER", "MESSAGE"];
    (header, rows.collect())
}

/// The sites of the network that the site of this namespace knows.
fn sites(target: &CommandTarget) -> Result<Value, Failure> {
    let site = chosen_site(target.documents(Kind::Site)?);
    let site = site.ok_or_else(|| Failure::Invalid(NO_SITE.map(str::to_owned).to_vec()))?;
    if site.get("spec").is_none() {
        let (name, _, message) = show::status(&site);
        return Err(Failure::Failed(anyhow!(
            "site {name} is not valid: {message}"
        )));
    }
    Ok(json!(list(&site, "/status/network")))
}

fn sites_screen(all: &Value) -> String {
    let all = all.as_array().map_or(&[][..], Vec::as_slice);
    if all.is_empty() {
        return "No sites known: skupperd has not reported the network".to_owned();
    }
    let names = |site: &Value, path: &str, field: &str| {
        let names = list(site, path).iter();
        let names: Vec<String> = names.map(|v| show::text(v, field)).collect();
        names.join(",")
    };
    let rows = all.iter().map(|site| {
        let text = |path: &str| show::text(site, path);
        let services = |of: &str| {
            let served = list(site, "/services").iter();
            let served = served.filter(|s| !list(s, of).is_empty());
            let keys: Vec<String> = served.map(|s| show::text(s, "/routingKey")).collect();
            keys.join(",")
        };
        vec![
            text("/name"),
            text("/namespace"),
            text("/platform"),
            text("/version"),
            names(site, "/links", "/remoteSiteName"),
            services("/listeners"),
            services("/connectors"),
        ]
    });
    let header = [
        "SITE",
        "NAMESPACE",
        "PLATFORM",
        "VERSION",
        "LINKED-WITH",
        "LISTENERS",
        "CONNECTORS",
    ];
    output::columns(&header, &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_one_screen() {
        let all = json!({
            "namespace": "default",
            "site": {
                "metadata": {"name": "east"}, "spec": {},
                "status": {"status": "Ready", "message": "OK", "sitesInNetwork": 2, "incomingLinks": [
                    {"remoteSiteName": "west", "address": "192.0.2.7:4711"}]},
            },
            "links": [{"metadata": {"name": "up"}, "status": {
                "status": "Pending", "message": "192.0.2.9:55671: connection refused"}}],
            "listeners": [],
            "multiKeyListeners": [],
            "connectors": [{
                "metadata": {"name": "web"}, "spec": {"routingKey": "web", "host": "localhost", "port": 8080},
                "status": {"status": "Ready", "message": "OK"},
            }],
        });
        insta::assert_snapshot!(screen(&all));
        let none = json!({"namespace": "a", "site": null});
        assert!(screen(&none).contains("skupper site create"));
    }

    #[test]
    fn a_network_is_a_line_for_each_site() {
        let all = json!([
            {"id": "1", "name": "east", "namespace": "default", "platform": "linux", "version": "0.1.0",
             "links": [{"remoteSiteName": "west"}, {"remoteSiteName": "north"}],
             "services": [{"routingKey": "db", "connectors": ["db"]}, {"routingKey": "web", "listeners": ["web"]}]},
            {"id": "2", "name": "west"},
        ]);
        insta::assert_snapshot!(sites_screen(&all));
    }
}
