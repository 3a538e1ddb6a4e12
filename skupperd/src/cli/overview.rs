//! The whole picture: `skupper status`, a site on one screen, and `skupper network status`, all sites
//! as seen from here.

mod upstream;

use super::{Failure, Outcome, invalid, output, place::Place, show, view::View};
use crate::model::{Kind, Phase};
use clap::Subcommand;
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub(super) enum NetworkVerb {
    /// Show the sites of the network, their links and services
    Status {
        /// Print as JSON in the form of upstream's NetworkStatus; with -o yaml as YAML
        #[arg(long)]
        upstream: bool,
        #[command(flatten)]
        view: View,
    },
}

/// `skupper status`
pub(super) fn status(place: &Place, view: &View) -> Outcome {
    view.show(|| picture(place), screen)
}

/// `skupper network`
pub(super) fn network(place: &Place, verb: NetworkVerb) -> Outcome {
    let NetworkVerb::Status { upstream, view } = verb;
    if !upstream {
        return view.show(|| sites(place), sites_screen);
    }
    let look = || Ok(upstream::network(list(&sites(place)?, "")));
    view.show(look, |network| format!("{network:#}"))
}

/// The site of a namespace and all that belongs to it.
fn picture(place: &Place) -> Result<Value, Failure> {
    let all = |kind| place.documents(kind);
    Ok(json!({
        "namespace": place.name(),
        "site": served(all(Kind::Site)?),
        "links": all(Kind::Link)?,
        "listeners": all(Kind::Listener)?,
        "multiKeyListeners": all(Kind::MultiKeyListener)?,
        "connectors": all(Kind::Connector)?,
    }))
}

/// The Site that is not refused.
fn served(sites: Vec<Value>) -> Option<Value> {
    sites.into_iter().find(|v| v.get("spec").is_some())
}

fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    let list = value.pointer(path).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

fn screen(all: &Value) -> String {
    let namespace = show::text(all, "/namespace");
    let Some(site) = all.get("site").filter(|v| !v.is_null()) else {
        return format!("There is no site in namespace {namespace}: skupper site create NAME");
    };
    let (name, status, message) = show::status(site);
    let mut text = format!("Site {name} in namespace {namespace}: {status}");
    if status != Phase::Ready.as_str() {
        text.push_str(&format!(", {message}"));
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
    text
}

fn section(text: &mut String, (header, rows): (&[&str], Vec<Vec<String>>)) {
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&output::columns(header, &rows));
    }
}

type Table = (&'static [&'static str], Vec<Vec<String>>);

/// What went wrong; nothing where nothing did.
fn trouble(status: &str, message: String) -> String {
    if status == Phase::Ready.as_str() {
        String::new()
    } else {
        message
    }
}

fn links(all: &Value, site: &Value) -> Table {
    let dialled = list(all, "/links").iter().map(|link| {
        let (name, status, message) = show::status(link);
        let message = trouble(&status, message);
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

fn listeners(all: &Value) -> Table {
    let both = [list(all, "/listeners"), list(all, "/multiKeyListeners")];
    let rows = both.into_iter().flatten().map(|listener| {
        let text = |path: &str| show::text(listener, path);
        let (name, status, message) = show::status(listener);
        let message = trouble(&status, message);
        let address = format!("{}:{}", text("/spec/host"), text("/spec/port"));
        vec![name, status, text("/spec/routingKey"), address, message]
    });
    let header = &["LISTENER", "STATUS", "ROUTING-KEY", "ADDRESS", "MESSAGE"];
    (header, rows.collect())
}

fn connectors(all: &Value) -> Table {
    let rows = list(all, "/connectors").iter().map(|connector| {
        let text = |path: &str| show::text(connector, path);
        let (name, status, message) = show::status(connector);
        let message = trouble(&status, message);
        let host = text("/spec/host");
        let server = match host.is_empty() {
            true => text("/spec/selector"),
            false => format!("{host}:{}", text("/spec/port")),
        };
        vec![name, status, text("/spec/routingKey"), server, message]
    });
    let header = &["CONNECTOR", "STATUS", "ROUTING-KEY", "SERVER", "MESSAGE"];
    (header, rows.collect())
}

/// The sites of the network as the site of this namespace knows them.
fn sites(place: &Place) -> Result<Value, Failure> {
    let site = served(place.documents(Kind::Site)?);
    let site = site.ok_or_else(|| {
        invalid(format!(
            "there is no active site in namespace {:?}",
            place.name()
        ))
    })?;
    Ok(json!(list(&site, "/status/network")))
}

fn sites_screen(all: &Value) -> String {
    let all = all.as_array().map_or(&[][..], Vec::as_slice);
    if all.is_empty() {
        return "No site is known yet: skupperd has not said any".to_owned();
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
