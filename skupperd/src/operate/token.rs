//! Issuing access grants and tokens, and redeeming tokens.

use super::{OperateError, OperateResult, invalid, no_site, resources};
use crate::{
    access::{self, RedeemError},
    manifest::{document_of, parse, to_yaml},
    model::{
        AccessToken, Code, GrantDetails, Kind, Meta, Name, Phase, Resource, SettingTexts, Spec,
        Status, check_name,
    },
    pki,
    reconcile::store_redeemed,
    store::NamespaceDir,
    telemetry::chain,
};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

#[derive(Clone, Debug)]
pub struct GrantOptions {
    /// Name of the grant, the token and the link [default: random].
    pub name: Option<String>,
    pub redemptions_allowed: u32,
    /// Time for which it can be redeemed.
    pub expiration_window: Duration,
}

/// The site of the namespace, and whether it accepts links.
pub fn site(namespace: &NamespaceDir) -> OperateResult<Option<(Name, bool)>> {
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

/// Writes a grant, which the daemon then serves. Returns its name.
pub fn grant(namespace: &NamespaceDir, options: GrantOptions) -> OperateResult<Name> {
    let (site, open) = site(namespace)?.ok_or_else(no_site)?;
    if !open {
        return Err(invalid(format!(
            "link access is not enabled for this site: skupper site update {site} --enable-link-access"
        )));
    }
    let name = match options.name {
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
    if resources::find(namespace, Kind::AccessGrant, &name)?.is_some() {
        return Err(invalid(format!(
            "access-grant {name} already exists in namespace {}: choose another name",
            namespace.name()
        )));
    }
    let document = json!({
        "apiVersion": Kind::AccessGrant.api_version(),
        "kind": Kind::AccessGrant.as_str(),
        "metadata": { "name": name },
        "spec": {
            "redemptionsAllowed": options.redemptions_allowed,
            "expirationWindow": format!("{}s", options.expiration_window.as_secs_f64()),
        },
    });
    resources::write(&mut editor, &document)?;
    Ok(name)
}

/// The details of a grant that is served, or why it is not served yet.
pub fn grant_state(
    name: &Name,
    document: Option<&Value>,
) -> OperateResult<Result<GrantDetails, String>> {
    let Some(status) = document.and_then(|v| v.get("status")) else {
        return Ok(Err(
            "skupperd has not read it yet: is skupperd running?".to_owned()
        ));
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

/// The token of a served grant, as a document.
pub fn token(
    namespace: &NamespaceDir,
    name: Name,
    grant: GrantDetails,
    cost: u32,
) -> OperateResult<String> {
    let token = Resource {
        meta: Meta::new(name, namespace.name().clone()),
        spec: Spec::AccessToken(AccessToken {
            url: grant.url,
            code: Code::new(grant.code),
            ca: grant.ca,
            link_cost: cost,
            settings: SettingTexts::new(),
        }),
    };
    Ok(to_yaml(&document_of(&token))?)
}

/// The only token in a text. `path`: of the file, or `-`.
fn read_token(path: &Path, text: &str) -> OperateResult<(Name, AccessToken)> {
    let mut documents = parse(path, text.as_bytes(), None);
    let (first, more) = (documents.pop(), documents.len());
    let path = path.display();
    let located = match (first, more) {
        (Some(Ok(located)), 0) => located,
        (Some(Err(error)), 0) => return Err(invalid(error.to_string())),
        (None, _) => return Err(invalid(format!("{path}: contains no token"))),
        _ => {
            let text = format!("{path}: contains more than one token");
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

/// Redeems the token in a text for the site of the namespace and writes its Link and Secret. Returns the
/// name of the Link.
pub async fn redeem(namespace: &NamespaceDir, path: &Path, text: &str) -> OperateResult<Name> {
    let (name, token) = read_token(path, text)?;
    for kind in [Kind::Link, Kind::Secret] {
        if resources::find(namespace, kind, &name)?.is_some() {
            let text = format!(
                "{} {name} already exists in namespace {}: delete it to redeem the token again",
                kind.as_str().to_lowercase(),
                namespace.name()
            );
            return Err(invalid(text));
        }
    }
    // A mistyped namespace would use up a token that counts once.
    let Some((subject, _)) = site(namespace)? else {
        let namespace = namespace.name();
        return Err(OperateError::Invalid(vec![
            format!("there is no active site in namespace {namespace}: the token was not used"),
            format!("Create one with: skupper -n {namespace} site create NAME"),
        ]));
    };
    let documents = access::redeem(&token, &name, &subject, namespace.name()).await;
    let documents = documents.map_err(|e| OperateError::Failed(with_hint(&e)))?;
    store_redeemed(namespace, &documents).map_err(|e| {
        OperateError::Failed(format!(
            "redeemed the token, but cannot write its link: {e}"
        ))
    })?;
    Ok(name)
}

/// An error of a redemption, whose text is Skupper's, and what to do about it.
fn with_hint(error: &RedeemError) -> String {
    let text = chain(error);
    let hint = match error {
        RedeemError::Refused { status: 404, .. } => {
            "The token expired, was already redeemed, or its grant was deleted: ask for a new token"
        }
        RedeemError::Refused { status: 429, .. } => {
            "The other site received too many wrong codes: try again in some minutes"
        }
        RedeemError::Unreachable { .. } => {
            "This port must be reachable without an HTTP proxy; else ask for a link, which skupper link \
             generate makes there"
        }
        _ => return text,
    };
    format!("{text}\n{hint}")
}
