//! Grants and tokens.

use super::{OperateError, Outcome, edit, invalid};
use crate::{
    access,
    manifest::{document_of, parse, to_yaml},
    model::{
        AccessToken, Code, GrantDetails, Kind, Meta, Name, Phase, Resource, Settings, Spec, Status,
        check_name,
    },
    pki,
    reconcile::{store_redeemed, token_mark},
    store::NamespaceDir,
    telemetry::chain,
};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

/// What a grant is to be like.
#[derive(Clone, Debug)]
pub struct GrantWish {
    /// Name of the grant, the token and the link; made up without.
    pub name: Option<String>,
    /// Number of sites that may redeem it.
    pub redemptions_allowed: u32,
    /// Time it is good for.
    pub expiration_window: Duration,
}

/// The site of the namespace, and whether links can come in.
pub fn site(namespace: &NamespaceDir) -> Outcome<Option<(Name, bool)>> {
    let loaded = namespace.load()?.resources;
    let explicit = loaded
        .iter()
        .any(|l| l.resource.kind() == Kind::RouterAccess);
    Ok(loaded.iter().find_map(|l| match &l.resource.spec {
        Spec::Site(site) => {
            let open = !site.edge && (explicit || site.link_access.is_enabled());
            Some((l.resource.name().clone(), open))
        }
        _ => None,
    }))
}

/// Writes a grant; the daemon then serves it. Gives its name.
pub fn grant(namespace: &NamespaceDir, wish: GrantWish) -> Outcome<Name> {
    let (site, open) =
        site(namespace)?.ok_or_else(|| invalid("there is no active site in this namespace"))?;
    if !open {
        return Err(invalid(
            "link access is not enabled for this site: skupper site update --enable-link-access",
        ));
    }
    let name = match wish.name {
        Some(name) => name,
        None => {
            let random = pki::new_code()?;
            let tail: String = random.reveal().chars().take(8).collect();
            format!("{site}-{}", tail.to_lowercase())
        }
    };
    check_name(&name).map_err(|e| invalid(format!("token name is not valid: {e}")))?;
    let name = Name::new(name)?;
    let mut editor = namespace.edit()?;
    if edit::find(namespace, Kind::AccessGrant, &name)?.is_some() {
        return Err(invalid(format!(
            "There is already a grant with the name {name:?}"
        )));
    }
    let document = json!({
        "apiVersion": Kind::AccessGrant.api_version(),
        "kind": Kind::AccessGrant.as_str(),
        "metadata": { "name": name },
        "spec": {
            "redemptionsAllowed": wish.redemptions_allowed,
            "expirationWindow": format!("{}s", wish.expiration_window.as_secs_f64()),
        },
    });
    edit::write(&mut editor, &document)?;
    Ok(name)
}

/// What a grant's document with status says: that it is served, or why not yet.
pub fn granted(name: &Name, document: Option<&Value>) -> Outcome<Result<GrantDetails, String>> {
    let Some(status) = document.and_then(|v| v.get("status")) else {
        return Ok(Err("skupperd has not seen it; is it running?".to_owned()));
    };
    let status: Status<GrantDetails> = serde_json::from_value(status.clone())?;
    match status.status {
        Phase::Ready => Ok(Ok(status.details)),
        Phase::Pending => Ok(Err(status.message)),
        Phase::Error => Err(OperateError::Failed(format!(
            "grant {name:?}: {}",
            status.message
        ))),
    }
}

/// The token of a grant that is served, as a document.
pub fn token(
    namespace: &NamespaceDir,
    name: Name,
    grant: GrantDetails,
    cost: u32,
) -> Outcome<String> {
    let token = Resource {
        meta: Meta::new(name, namespace.name().clone()),
        spec: Spec::AccessToken(AccessToken {
            url: grant.url,
            code: Code::new(grant.code),
            ca: grant.ca,
            link_cost: cost,
            settings: Settings::new(),
        }),
    };
    Ok(to_yaml(&document_of(&token))?)
}

/// The one token in a text. `path`: of the file, or `-`.
fn read(path: &Path, text: &str) -> Outcome<(Name, AccessToken)> {
    let mut documents = parse(path, text.as_bytes(), None);
    let (first, more) = (documents.pop(), documents.len());
    let path = path.display();
    let located = match (first, more) {
        (Some(Ok(located)), 0) => located,
        (Some(Err(error)), 0) => return Err(invalid(error.to_string())),
        (None, _) => return Err(invalid(format!("{path}: there is no token in it"))),
        _ => {
            let text = format!("{path}: there is more than a token in it");
            return Err(invalid(text));
        }
    };
    match located.resource.spec {
        Spec::AccessToken(token) => Ok((located.resource.meta.name, token)),
        other => {
            let text = format!("{path}: {} is not an AccessToken", other.kind());
            Err(invalid(text))
        }
    }
}

/// Redeems the token in a text: the Link that it gives is in the namespace afterwards. Gives its name.
pub async fn redeem(namespace: &NamespaceDir, path: &Path, text: &str) -> Outcome<Name> {
    let (name, token) = read(path, text)?;
    for kind in [Kind::Link, Kind::Secret] {
        if edit::find(namespace, kind, &name)?.is_some() {
            let text = format!("There is already a {kind} with the name {name:?} in the namespace");
            return Err(invalid(text));
        }
    }
    // Where there is no site, the namespace says who asks, as upstream's command does.
    let site = site(namespace)?.map(|(name, _)| name.to_string());
    let subject = site.unwrap_or_else(|| namespace.name().to_string());
    let documents = access::redeem(&token, &name, &subject, namespace.name()).await;
    let documents = documents.map_err(|e| OperateError::Failed(chain(&e)))?;
    store_redeemed(namespace, &documents, &token_mark(&token)).map_err(|e| {
        OperateError::Failed(format!(
            "the token was redeemed, and its link could not be written: {e}"
        ))
    })?;
    Ok(name)
}
