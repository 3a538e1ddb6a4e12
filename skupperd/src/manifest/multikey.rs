//! Listeners with several routing keys.

use super::{
    checks::{CheckResult, checked, field, observer, optional, port, required, settings},
    raw,
};
use crate::model::{Kind, MultiKeyListener, RoutingKey, Spec, Strategy};
use std::collections::BTreeSet;

const PRIORITY: &str = "spec.strategy.priority.routingKeys";
const WEIGHTED: &str = "spec.strategy.weighted.routingKeys";

pub(super) fn listener(spec: raw::MultiKeyListener) -> CheckResult<Spec> {
    Ok(Spec::MultiKeyListener(MultiKeyListener {
        host: checked(spec.host, "spec.host")?,
        port: port(spec.port, "spec.port")?,
        strategy: strategy(required(spec.strategy, "spec.strategy")?)?,
        tls_credentials: optional(spec.tls_credentials, "spec.tlsCredentials")?,
        require_client_cert: spec.require_client_cert.unwrap_or_default(),
        observer: observer(spec.observer.as_deref())?,
        settings: settings(Kind::MultiKeyListener, spec.settings)?,
    }))
}

fn strategy(raw: raw::Strategy) -> CheckResult<Strategy> {
    match (raw.priority, raw.weighted) {
        (Some(priority), None) => by_priority(priority.routing_keys.unwrap_or_default()),
        (None, Some(weighted)) => {
            let keys = weighted.routing_keys.unwrap_or_default();
            count(keys.len(), WEIGHTED)?;
            let key = |(key, weight): (String, i64)| {
                let path = format!("{WEIGHTED}.{key}");
                let weight = u32::try_from(weight).ok().filter(|w| *w > 0);
                let weight = weight.ok_or_else(|| field(&path, "weight value must be positive"))?;
                Ok((
                    checked::<RoutingKey>(Some(raw::Text(key)), WEIGHTED)?,
                    weight,
                ))
            };
            let keys: CheckResult<_> = keys.into_iter().map(key).collect();
            Ok(Strategy::Weighted(keys?))
        }
        (None, None) => Err(field(
            "spec.strategy",
            "either strategy.priority or strategy.weighted is required",
        )),
        (Some(_), Some(_)) => Err(field(
            "spec.strategy",
            "only one of strategy.priority or strategy.weighted must be defined",
        )),
    }
}

fn by_priority(list: Vec<raw::Text>) -> CheckResult<Strategy> {
    count(list.len(), PRIORITY)?;
    let mut seen = BTreeSet::new();
    let mut keys = Vec::with_capacity(list.len());
    for (n, text) in list.into_iter().enumerate() {
        let path = format!("{PRIORITY}[{n}]");
        let key: RoutingKey = checked(Some(text), &path)?;
        if !seen.insert(key.clone()) {
            return Err(field(&path, format!("{key} is there twice")));
        }
        keys.push(key);
    }
    Ok(Strategy::Priority(keys))
}

fn count(keys: usize, path: &str) -> CheckResult<()> {
    match keys {
        0 => Err(field(path, "routingKeys must not be empty")),
        n if n > Strategy::MAX_KEYS => Err(field(
            path,
            format!(
                "has {n} routing keys, and {} are allowed",
                Strategy::MAX_KEYS
            ),
        )),
        _ => Ok(()),
    }
}
