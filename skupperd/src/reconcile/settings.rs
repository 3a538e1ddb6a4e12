//! What the settings of sites and links mean: their keys, and what may stand behind them.

use crate::{
    model::{Host, Settings, parse_duration},
    pki::{self, Rotation},
    steer::routes::Prefix,
    telemetry::{LevelFilter, LogLevels},
};
use jiff::Timestamp;
use std::{collections::BTreeSet, time::Duration};

/// Setting of a site: port on 127.0.0.1 for AMQP clients of this host, without TLS.
pub(super) const LOCAL_AMQP: &str = "local-amqp-port";
/// Setting of a site: `auto`, or `off` for listeners with sockets of their own.
pub(super) const STEERING: &str = "steering";
/// Setting of a site, a listener and a connector: `auto`, where the kernel shortens the way between
/// their programs and the daemon if it can, or `off`.
pub(super) const ACCELERATION: &str = "acceleration";
/// Setting of a site: prefix of addresses that no interface has, for its listeners.
pub(super) const SERVICE_ADDRESSES: &str = "service-addresses";
/// Setting of a site: data connections of each link, a number or `auto`.
pub(super) const TRUNK: [&str; 2] = ["router-data-connection-count", "routerDataConnections"];
/// Setting of a site: serial numbers of certificates that are not taken any more.
pub(crate) const REVOKED: &str = "revoked-certificates";
/// Setting of a site: hosts by which others reach it, apart by commas or blanks.
pub(crate) const HOSTS: &str = "link-access-hosts";
/// Setting of a site: CAs of ours that were made before this time are replaced.
pub(crate) const ROTATE: &str = "rotate-issuers-before";
/// Setting of a site: how long a replaced CA is trusted.
pub(crate) const OVERLAP: &str = "issuer-overlap";
/// Setting of a link: Secret with the HTTP proxy on its way.
pub(super) const PROXY: &str = "proxy-configuration";
/// Setting of a site: validity of the server certificates that it issues.
pub(super) const VALIDITY: &str = "server-certificate-validity";
/// Setting of a site: what the daemon logs, `[<module>:]<level>` apart by commas.
pub(super) const LOGGING: [&str; 2] = ["router-logging", "routerLogging"];
/// Shorter ones would be renewed without a pause.
const MIN_VALIDITY: Duration = Duration::from_secs(3);

/// Data connections of each link that a site dials; none for as many as fit.
pub(super) fn trunk(settings: &Settings) -> Option<usize> {
    let count = TRUNK.iter().find_map(|key| settings.get(*key))?;
    count.parse().ok().filter(|n| (1..=64).contains(n))
}

/// Port for AMQP clients of this host.
pub(super) fn local_amqp(settings: &Settings) -> Result<Option<u16>, String> {
    let port = settings.get(LOCAL_AMQP).map(|port| {
        let bad = |_| format!("spec.settings[{LOCAL_AMQP}]: {port} is not a port");
        port.parse().map_err(bad)
    });
    port.transpose()
}

/// Whether the kernel may steer clients to the site's listeners.
pub(super) fn steering(settings: &Settings) -> Result<bool, String> {
    Ok(auto(settings, STEERING)?.unwrap_or(true))
}

/// Whether connections are accelerated; none when nothing is said.
pub(super) fn acceleration(settings: &Settings) -> Result<Option<bool>, String> {
    auto(settings, ACCELERATION)
}

fn auto(settings: &Settings, key: &str) -> Result<Option<bool>, String> {
    match settings.get(key).map(String::as_str) {
        None => Ok(None),
        Some("auto") => Ok(Some(true)),
        Some("off") => Ok(Some(false)),
        Some(other) => Err(format!(
            "spec.settings[{key}]: {other:?} is neither auto nor off"
        )),
    }
}

/// Addresses that this host has for its services only.
pub(super) fn service_addresses(settings: &Settings) -> Result<Option<Prefix>, String> {
    let prefix = settings.get(SERVICE_ADDRESSES).map(|text| {
        let bad = |e| format!("spec.settings[{SERVICE_ADDRESSES}]: {e}");
        text.parse().map_err(bad)
    });
    prefix.transpose()
}

/// Validity of server certificates.
pub(super) fn validity(settings: &Settings) -> Result<Option<Duration>, String> {
    let validity = settings.get(VALIDITY).map(|text| {
        let duration = parse_duration(text).filter(|d| *d >= MIN_VALIDITY);
        duration.ok_or_else(|| {
            format!("spec.settings[{VALIDITY}]: {text} is not a duration of 3s or more")
        })
    });
    validity.transpose()
}

/// When a site's settings have its CAs replaced.
pub(crate) fn rotation(settings: &Settings) -> Result<Rotation, String> {
    let before = settings.get(ROTATE).map(|text| {
        let time = text.parse::<Timestamp>();
        time.map_err(|e| format!("spec.settings[{ROTATE}]: {text:?} is not a time: {e}"))
    });
    let overlap = settings.get(OVERLAP).map(|text| {
        let bad = || format!("spec.settings[{OVERLAP}]: {text:?} is not a duration");
        parse_duration(text).ok_or_else(bad)
    });
    Ok(Rotation {
        before: before.transpose()?,
        overlap: overlap.transpose()?.unwrap_or(pki::OVERLAP),
    })
}

/// Hosts by which others reach a site, as its settings name them.
pub(crate) fn named_hosts(settings: &Settings) -> Result<Vec<Host>, String> {
    let list = settings.get(HOSTS).map(String::as_str).unwrap_or_default();
    let hosts = list.split([',', ' ', '\n']).filter(|h| !h.is_empty());
    let read =
        |host: &str| Host::new(host).map_err(|e| format!("spec.settings[{HOSTS}]: {host:?}: {e}"));
    hosts.map(read).collect()
}

/// Serial numbers that a site's settings take back, apart by commas or blanks.
pub(crate) fn revoked(settings: &Settings) -> Result<BTreeSet<String>, String> {
    let list = settings
        .get(REVOKED)
        .map(String::as_str)
        .unwrap_or_default();
    let serials = list.split([',', ' ', '\n']).filter(|s| !s.is_empty());
    let read = |serial: &str| {
        let bad = || format!("spec.settings[{REVOKED}]: {serial:?} is not a serial number");
        pki::canonical(serial).ok_or_else(bad)
    };
    serials.map(read).collect()
}

/// What of the daemon is logged from which level on, as a site's settings have it.
pub(super) fn logging(settings: &Settings) -> Result<LogLevels, String> {
    let mut levels = LogLevels::new();
    let Some((key, text)) = LOGGING.iter().find_map(|key| settings.get_key_value(*key)) else {
        return Ok(levels);
    };
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (module, level) = part.rsplit_once(':').unwrap_or(("", part));
        let level = level_of(level).ok_or_else(|| {
            format!(
                "spec.settings[{key}]: {level:?} is not one of trace, debug, info, notice, warning, \
                 error and critical"
            )
        })?;
        let modules = modules_of(module)
            .ok_or_else(|| format!("spec.settings[{key}]: there is no module {module:?}"))?;
        for module in modules {
            let wanted = levels.entry(module).or_insert(level);
            *wanted = level.max(*wanted);
        }
    }
    Ok(levels)
}

/// A level by upstream's name; those that are not ours are the next ones.
fn level_of(name: &str) -> Option<LevelFilter> {
    // Upstream's `+` is for that level and all above it, which ours always are.
    Some(match name.trim_end_matches('+').to_lowercase().as_str() {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "info" | "notice" => LevelFilter::INFO,
        "warn" | "warning" => LevelFilter::WARN,
        "error" | "critical" => LevelFilter::ERROR,
        _ => return None,
    })
}

/// Our modules that do what a module of upstream's router does; none where there is no such thing.
fn modules_of(name: &str) -> Option<&'static [&'static str]> {
    Some(match name.to_uppercase().as_str() {
        "" | "DEFAULT" => &["skupperd"],
        "ROUTER" | "ROUTER_CORE" | "ROUTER_HELLO" | "ROUTER_LS" | "ROUTER_MA" => {
            &["skupperd::router", "skupperd::link::core"]
        }
        "SERVER" | "CONTAINER" | "CONN_MGR" | "POLICY" => &["skupperd::link"],
        "PROTOCOL" | "MESSAGE" => &["skupperd::amqp", "skupperd::link::conn"],
        "TCP_ADAPTOR" => &["skupperd::proxy"],
        "AGENT" => &["skupperd::control"],
        "HTTP" | "HTTP_ADAPTOR" | "ERROR" | "PYTHON" | "FLOW_LOG" => &[],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c26_logging_is_set_by_both_spellings() {
        for key in LOGGING {
            let read = |text: &str| logging(&Settings::from([(key.to_owned(), text.to_owned())]));
            let debug = read("debug").unwrap();
            assert_eq!(debug, LogLevels::from([("skupperd", LevelFilter::DEBUG)]));
            let both = read("warning, TCP_ADAPTOR:trace+,HTTP_ADAPTOR:debug").unwrap();
            let expected = [
                ("skupperd", LevelFilter::WARN),
                ("skupperd::proxy", LevelFilter::TRACE),
            ];
            assert_eq!(both, LogLevels::from(expected));
            for (bad, what) in [("loud", "loud"), ("ROUTR:info", "ROUTR"), (":", "\"\"")] {
                let why = read(bad).unwrap_err();
                assert!(why.contains(key) && why.contains(what), "{why}");
            }
        }
        assert!(logging(&Settings::new()).unwrap().is_empty());
    }
}
