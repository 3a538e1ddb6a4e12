//! Formats of the values of settings: how each is read, and how the documentation describes it.

use crate::model::{
    ClientCertificate, ExtraPorts, HealthCheck, Host, LogLevel, LogModule, LogRule, Name, Netns,
    ProxyProtocol, SerialNumber, ServicePrefix, UserRef, parse_duration, parse_port,
};
use ipnet::IpNet;
use jiff::Timestamp;
use std::{collections::BTreeSet, str::FromStr, time::Duration};

/// A format of values of type `T`.
pub(super) struct SettingFormat<T> {
    /// For people: `duration`, `port`; empty where [`Self::words`] are all that is accepted.
    pub(super) syntax: &'static str,
    /// Words that are accepted.
    pub(super) words: &'static [&'static str],
    /// The error says what is wrong with the text, without the name of the setting.
    pub(super) parse: fn(&str) -> Result<T, String>,
}

const fn format<T>(syntax: &'static str, parse: fn(&str) -> Result<T, String>) -> SettingFormat<T> {
    SettingFormat {
        syntax,
        words: &[],
        parse,
    }
}

macro_rules! words {
    ($name:ident: $type:ty { $($word:literal => $value:expr),+ $(,)? }) => {
        pub(super) const $name: SettingFormat<$type> = SettingFormat {
            syntax: "",
            words: &[$($word),+],
            parse: |text| match text {
                $($word => Ok($value),)+
                other => Err(format!(
                    "{other:?} is not one of {}",
                    [$($word),+].join(", ")
                )),
            },
        };
    };
}

words!(AUTO_OR_OFF: bool { "auto" => true, "off" => false });
words!(CLIENT_CERTIFICATE: ClientCertificate {
    "none" => ClientCertificate::None,
    "optional" => ClientCertificate::Optional,
    "required" => ClientCertificate::Required,
});
words!(PROXY_PROTOCOL: Option<ProxyProtocol> {
    "none" => None,
    "v1" => Some(ProxyProtocol::V1),
    "v2" => Some(ProxyProtocol::V2),
});
words!(HEALTH_CHECK: HealthCheck {
    "none" => HealthCheck::None,
    "tcp" => HealthCheck::Tcp,
    "http" => HealthCheck::Http,
});

pub(super) const HOST: SettingFormat<Host> = format("host name or IP address", |text| {
    Host::new(text).map_err(|e| format!("{text:?}: {e}"))
});
pub(super) const NAME: SettingFormat<Name> = format("name", |text| {
    Name::new(text).map_err(|e| format!("{text:?}: {e}"))
});
pub(super) const PORT: SettingFormat<u16> = format("port", |text| {
    port(text).ok_or_else(|| format!("{text:?} is not a port (1..65535)"))
});
pub(super) const COUNT: SettingFormat<u32> = format("number, 1 or more", |text| {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| format!("{text:?} is not a number of 1 or more"))
});
pub(super) const TIME: SettingFormat<Timestamp> = format("time (RFC 3339)", |text| {
    let time = text.parse::<Timestamp>();
    time.map_err(|_| format!("{text:?} is not a time such as 2026-01-31T12:00:00Z"))
});
pub(super) const DURATION: SettingFormat<Duration> =
    format("duration", |text| duration(text, Duration::ZERO));
/// A certificate with a shorter validity would be renewed without a pause.
pub(super) const VALIDITY: SettingFormat<Duration> = format("duration, 3s or more", |text| {
    duration(text, Duration::from_secs(3))
});
/// Shorter intervals would put load on servers; shorter timeouts would end while a packet is sent again.
pub(super) const DURATION_100MS: SettingFormat<Duration> =
    format("duration, 100ms or more", |text| {
        duration(text, Duration::from_millis(100))
    });
pub(super) const DATA_CONNECTIONS: SettingFormat<Option<u8>> = SettingFormat {
    syntax: "number, 1 to 64, or auto",
    words: &["auto"],
    parse: |text| match (text, text.parse()) {
        ("auto", _) => Ok(None),
        (_, Ok(count @ 1..=64)) => Ok(Some(count)),
        _ => Err(format!("{text:?} is neither auto nor a number of 1 to 64")),
    },
};
pub(super) const HOSTS: SettingFormat<Vec<Host>> =
    format("hosts, separated by commas or spaces", |text| {
        list(text).map(HOST.parse).collect()
    });
pub(super) const SERIAL_NUMBERS: SettingFormat<BTreeSet<SerialNumber>> =
    format("serial numbers, separated by commas or spaces", |text| {
        let serial = |text: &str| {
            SerialNumber::parse(text).ok_or_else(|| format!("{text:?} is not a serial number"))
        };
        list(text).map(serial).collect()
    });
pub(super) const SERVICE_PREFIX: SettingFormat<ServicePrefix> =
    format("prefix of a private range", ServicePrefix::from_str);
pub(super) const LOG_RULES: SettingFormat<Vec<LogRule>> =
    format("[MODULE:]LEVEL, separated by commas", log_rules);
pub(super) const PROTOCOLS: SettingFormat<Vec<String>> = SettingFormat {
    syntax: "protocols, separated by commas, or none",
    words: &["none", "http/1.1,h2", "h2,http/1.1"],
    parse: protocols,
};
pub(super) const EXTRA_PORTS: SettingFormat<ExtraPorts> = SettingFormat {
    syntax: "ports and ranges, separated by commas, or all",
    words: &["all"],
    parse: extra_ports,
};
pub(super) const PREFIX: SettingFormat<IpNet> = format("prefix", prefix);
pub(super) const NETNS: SettingFormat<Netns> =
    format("PATH, unit:NAME or pid:NUMBER", Netns::from_str);
pub(super) const USERS: SettingFormat<Vec<UserRef>> =
    format("user names or numbers, separated by commas", |text| {
        named(text)?.into_iter().map(user).collect()
    });
pub(super) const SITES: SettingFormat<BTreeSet<Name>> =
    format("site names, separated by commas", |text| {
        named(text)?.into_iter().map(NAME.parse).collect()
    });
pub(super) const PATH: SettingFormat<String> = format("path, from /", |text| {
    if text.starts_with('/') && text.bytes().all(|c| (33..127).contains(&c)) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a path that begins with /"))
    }
});

fn port(text: &str) -> Option<u16> {
    parse_port(text.parse().ok()?).ok()
}

fn duration(text: &str, least: Duration) -> Result<Duration, String> {
    let duration = parse_duration(text).filter(|duration| *duration >= least);
    duration.ok_or_else(|| {
        let least = match least {
            Duration::ZERO => String::new(),
            least => format!(" of {least:?} or more"),
        };
        format!("{text:?} is not a duration{least}, such as 1h30m or 5s")
    })
}

/// Words separated by commas or blanks; there may be none.
fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ', '\n']).filter(|word| !word.is_empty())
}

/// Words separated by commas, at least one: an empty list is probably a mistake.
fn named(text: &str) -> Result<Vec<&str>, String> {
    let words = text.split(',').map(str::trim);
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        return Err("lists no name".to_owned());
    }
    Ok(words)
}

/// Only the host knows whether the user exists.
fn user(word: &str) -> Result<UserRef, String> {
    if let Ok(id) = word.parse() {
        return Ok(UserRef::Id(id));
    }
    let valid = !word.starts_with('-')
        && !word.contains(|c: char| c.is_control() || [':', '/'].contains(&c));
    if valid {
        Ok(UserRef::Name(word.to_owned()))
    } else {
        Err(format!(
            "{word:?} is neither the name nor the number of a user"
        ))
    }
}

fn protocols(text: &str) -> Result<Vec<String>, String> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let protocols = text.split(',').map(|protocol| protocol.trim().to_owned());
    let protocols: Vec<String> = protocols.collect();
    // RFC 7301, 3.1: a length of one byte.
    if protocols.iter().all(|p| (1..=255).contains(&p.len())) {
        Ok(protocols)
    } else {
        Err("each protocol must have 1 to 255 characters".to_owned())
    }
}

fn prefix(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().ok();
    let net = net.filter(|net| net.trunc() == *net);
    let net = net.ok_or_else(|| format!("{text:?} is not a prefix such as 10.20.0.0/16"))?;
    if net.prefix_len() == 0 {
        let all = net.addr();
        return Err(format!("{text} is every address: use spec.host {all}"));
    }
    Ok(net)
}

fn extra_ports(text: &str) -> Result<ExtraPorts, String> {
    if text.trim() == "all" {
        return Ok(ExtraPorts::All);
    }
    let mut ranges = Vec::new();
    for part in list(text) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Some(first), Some(last)) = (port(first), port(last)) else {
            return Err(format!(
                "{part:?} is neither a port, nor a range such as 8000-8100, nor all"
            ));
        };
        if first > last {
            return Err(format!("{part} ends before it begins"));
        }
        ranges.push((first, last));
    }
    if ranges.is_empty() {
        return Err("names no port".to_owned());
    }
    ranges.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    let count: usize = joined
        .iter()
        .map(|(first, last)| usize::from(last - first) + 1)
        .sum();
    if count > ExtraPorts::MAX {
        let max = ExtraPorts::MAX;
        return Err(format!("{count} ports are too many: at most {max}, or all"));
    }
    Ok(ExtraPorts::Ranges(joined))
}

fn log_rules(text: &str) -> Result<Vec<LogRule>, String> {
    let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
    let rule = |part: &str| {
        let (module, level) = part.rsplit_once(':').unwrap_or(("", part));
        let unknown_level = || {
            format!(
                "{level:?} is not one of trace, debug, info, notice, warning, error and critical"
            )
        };
        let unknown_module = || format!("there is no module {module:?}");
        Ok(LogRule {
            level: log_level(level).ok_or_else(unknown_level)?,
            module: log_module(module).ok_or_else(unknown_module)?,
        })
    };
    parts.map(rule).collect()
}

/// Levels of Skupper's router; those that there are not here are the next ones.
fn log_level(name: &str) -> Option<LogLevel> {
    // The `+` of Skupper's router means that level and the graver ones, which is always so here.
    Some(match name.trim_end_matches('+').to_lowercase().as_str() {
        "trace" => LogLevel::Trace,
        "debug" => LogLevel::Debug,
        "info" | "notice" => LogLevel::Info,
        "warn" | "warning" => LogLevel::Warn,
        "error" | "critical" => LogLevel::Error,
        _ => return None,
    })
}

/// Modules of Skupper's router.
fn log_module(name: &str) -> Option<LogModule> {
    Some(match name.to_uppercase().as_str() {
        "" | "DEFAULT" => LogModule::All,
        "ROUTER" | "ROUTER_CORE" | "ROUTER_HELLO" | "ROUTER_LS" | "ROUTER_MA" => LogModule::Router,
        "SERVER" | "CONTAINER" | "CONN_MGR" => LogModule::Links,
        "POLICY" => LogModule::Policy,
        "PROTOCOL" | "MESSAGE" => LogModule::Protocol,
        "TCP_ADAPTOR" => LogModule::Tcp,
        "FLOW_LOG" => LogModule::Flows,
        "HTTP" => LogModule::Http,
        "AGENT" => LogModule::Agent,
        "HTTP_ADAPTOR" | "ERROR" | "PYTHON" => LogModule::Absent,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_ports_are_read_and_joined() {
        for (text, expected) in [
            ("90", vec![(90, 90)]),
            ("90,91 , 93", vec![(90, 91), (93, 93)]),
            ("8000-8100, 8050-8200,8201-8210", vec![(8000, 8210)]),
            ("65535-65535", vec![(65535, 65535)]),
        ] {
            assert_eq!(
                extra_ports(text).unwrap(),
                ExtraPorts::Ranges(expected),
                "{text}"
            );
        }
        assert_eq!(extra_ports(" all ").unwrap(), ExtraPorts::All);
    }

    #[test]
    fn log_rules_have_the_words_of_skupper() {
        let rule = |module, level| LogRule { module, level };
        assert_eq!(
            log_rules("warning, TCP_ADAPTOR:trace+,HTTP_ADAPTOR:debug").unwrap(),
            [
                rule(LogModule::All, LogLevel::Warn),
                rule(LogModule::Tcp, LogLevel::Trace),
                rule(LogModule::Absent, LogLevel::Debug),
            ]
        );
        assert_eq!(log_rules("").unwrap(), []);
        for (invalid, what) in [("loud", "loud"), ("ROUTR:info", "ROUTR"), (":", "\"\"")] {
            let reason = log_rules(invalid).unwrap_err();
            assert!(reason.contains(what), "{reason}");
        }
    }

    #[test]
    fn users_are_names_or_numbers() {
        assert_eq!(
            (USERS.parse)("root, 1000,").unwrap(),
            [UserRef::Name("root".to_owned()), UserRef::Id(1000)]
        );
        for invalid in ["", " , ", "-1", "a:b"] {
            assert!((USERS.parse)(invalid).is_err(), "{invalid}");
        }
    }

    /// A path is sent to a server as it is: a line break would be a header, or another request.
    #[test]
    fn paths_have_no_spaces_and_no_line_breaks() {
        assert_eq!((PATH.parse)("/healthz?a=1").unwrap(), "/healthz?a=1");
        for invalid in ["", "healthz", "/a b", "/a\r\nX: y", "/\n", "/\0", "/\u{e4}"] {
            assert!((PATH.parse)(invalid).is_err(), "{invalid:?}");
        }
    }
}
