//! The network as a `NetworkStatus` document of Skupper, for tools that read one.
//!
//! A site knows only the routing keys of the services of others: these take the place of the names of
//! listeners and connectors, and hosts and ports are empty. As in Skupper, a link is shown at one of its
//! sites and names the router access of the other; each site has one, with the ID of the site.

use super::list;
use crate::cli::show::text;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The document, from the sites in a Site's status.
pub(super) fn of_sites(sites: &[Value]) -> Value {
    let mut addresses: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for service in sites.iter().flat_map(|site| list(site, "/services")) {
        let (listeners, connectors) = addresses.entry(text(service, "/routingKey")).or_default();
        *listeners += list(service, "/listeners").len();
        *connectors += list(service, "/connectors").len();
    }
    let addresses = addresses
        .into_iter()
        .map(|(name, (listeners, connectors))| {
            json!({
                "name": name,
                "protocol": "tcp",
                "listenerCount": listeners,
                "connectorCount": connectors,
                "startTime": 0,
                "endTime": 0,
            })
        });
    let addresses: Vec<Value> = addresses.collect();
    let mut shown = BTreeSet::new();
    let status: Vec<Value> = sites
        .iter()
        .map(|site| site_status(site, &mut shown))
        .collect();
    json!({"addresses": addresses, "siteStatus": status})
}

/// A site. `shown`: pairs of sites whose link has been shown.
fn site_status(site: &Value, shown: &mut BTreeSet<(String, String)>) -> Value {
    let field = |path: &str| text(site, path);
    let id = field("/id");
    // Which of the two dialled is unknown: show the link once, at the first.
    let links = list(site, "/links").iter().filter(|link| {
        let remote = text(link, "/remoteSiteId");
        shown.insert((id.clone().min(remote.clone()), id.clone().max(remote)))
    });
    let links: Vec<Value> = links
        .map(|link| {
            json!({
                "name": text(link, "/name"),
                "linkCount": 1,
                "status": if link["operational"] == true { "up" } else { "down" },
                "role": "inter-router",
                "peer": text(link, "/remoteSiteId"),
            })
        })
        .collect();
    let ends = |which: &str| -> Vec<Value> {
        let services = list(site, "/services").iter();
        let named = services.flat_map(|service| {
            let names = list(service, &format!("/{which}")).iter();
            names.map(move |name| (name, text(service, "/routingKey")))
        });
        let end = |(name, key): (&Value, String)| json!({"name": name, "address": key, "protocol": "tcp", "destHost": "", "destPort": ""});
        named.map(end).collect()
    };
    json!({
        "site": {
            "identity": id,
            "name": field("/name"),
            "namespace": field("/namespace"),
            "platform": field("/platform"),
            "siteVersion": field("/version"),
            "minimumVersion": "",
            "policy": "disabled",
        },
        "routerStatus": [{
            "router": {
                "name": field("/name"),
                "namespace": field("/namespace"),
                "mode": "",
                "imageName": "",
                "imageVersion": field("/version"),
                "hostname": "",
            },
            "links": links,
            "routerAccess": [{"identity": id}],
            "listeners": ends("listeners"),
            "connectors": ends("connectors"),
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_has_the_shape_of_skuppers_network_status() {
        let sites = [
            json!({"id": "1", "name": "east", "namespace": "default", "platform": "linux", "version": "0.1.0",
             "links": [{"name": "west", "remoteSiteId": "2", "remoteSiteName": "west", "operational": true}],
             "services": [{"routingKey": "db", "connectors": ["db"]}, {"routingKey": "web", "listeners": ["web"]}]}),
            json!({"id": "2", "name": "west", "platform": "linux",
             "links": [{"name": "east", "remoteSiteId": "1", "remoteSiteName": "east", "operational": true}],
             "services": [{"routingKey": "web", "connectors": ["web"], "listeners": ["web"]}]}),
        ];
        let network = of_sites(&sites);
        assert_eq!(network["addresses"][1]["listenerCount"], 2);
        assert_eq!(network["addresses"][1]["connectorCount"], 1);
        // The remote site of a link is the owner of the router access that it names.
        let link = &network["siteStatus"][0]["routerStatus"][0]["links"][0];
        let peer = &network["siteStatus"][1]["routerStatus"][0]["routerAccess"][0]["identity"];
        assert_eq!(&link["peer"], peer);
        let other = &network["siteStatus"][1]["routerStatus"][0]["links"];
        assert_eq!(other, &json!([]), "a link is shown once");
        insta::assert_snapshot!(serde_json::to_string_pretty(&network).unwrap());
    }
}
