//! Rules between the resources of one namespace.

use super::{Located, ManifestError};
use crate::model::{Kind, Spec};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Takes out what conflicts with a resource that came before it, in order of file and line: a name
/// that is there already, a second Site, a listener on a taken address. The first of each stays.
pub fn check_set(resources: Vec<Located>) -> (Vec<Located>, Vec<ManifestError>) {
    let mut good: Vec<Located> = Vec::with_capacity(resources.len());
    let mut names: BTreeMap<_, usize> = BTreeMap::new();
    let mut errors = Vec::new();
    for located in resources {
        let conflict = conflict(&good, &names, &located);
        match conflict {
            None => {
                names.insert(located.key().clone(), good.len());
                good.push(located);
            }
            Some((field, reason)) => errors.push(ManifestError {
                source: located.source.clone(),
                line: located.line,
                kind: Some(located.key().kind.to_string()),
                name: Some(located.key().name.clone()),
                field: Some(field.to_owned()),
                reason,
            }),
        }
    }
    (good, errors)
}

fn conflict(
    good: &[Located],
    names: &BTreeMap<crate::model::Key, usize>,
    new: &Located,
) -> Option<(&'static str, String)> {
    let place = |l: &Located| format!("{}:{}", l.source.display(), l.line);
    if let Some(first) = names.get(new.key()).and_then(|n| good.get(*n)) {
        return Some((
            "metadata.name",
            format!("is defined already at {}", place(first)),
        ));
    }
    if new.key().kind == Kind::Site {
        let first = good.iter().find(|l| l.key().kind == Kind::Site)?;
        let text = format!(
            "only one site is allowed in a namespace, and {} is defined at {}",
            first.key().name,
            place(first)
        );
        return Some(("kind", text));
    }
    let Spec::Listener(listener) = &new.resource.spec else {
        return None;
    };
    let taken = good.iter().find(|other| match &other.resource.spec {
        Spec::Listener(l) => l.port == listener.port && overlap(&l.host, &listener.host),
        _ => false,
    })?;
    let text = format!(
        "port {} is already mapped for host {:?} (listener: {:?})",
        listener.port,
        listener.host,
        taken.key().name
    );
    Some(("spec.port", text))
}

/// Two hosts can not have listeners on one port: the same, or a wildcard and one of its family.
fn overlap(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let (Ok(a), Ok(b)) = (a.parse::<IpAddr>(), b.parse::<IpAddr>()) else {
        // A name may stand for anything: a wildcard of either family covers it.
        let wild = |h: &str| h == "0.0.0.0" || h == "::";
        return wild(a) || wild(b);
    };
    let any = |ip: IpAddr| ip == Ipv4Addr::UNSPECIFIED || ip == Ipv6Addr::UNSPECIFIED;
    a == b || (a.is_ipv4() == b.is_ipv4() && (any(a) || any(b)))
}
