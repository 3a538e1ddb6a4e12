//! Steps for links.

use super::{Done, Executor};
use crate::{
    link::{LinkSpec, Target, core::CoreSender},
    model::{Endpoint, Link, Role},
    pki,
    plan::{LinkSecrets, Picture},
    reconcile::settings::PROXY,
    telemetry::chain,
};

impl Executor {
    pub(super) async fn set_link(
        &mut self,
        core: &CoreSender,
        wanted: &Picture,
        name: &str,
        link: &Link,
        secrets: &LinkSecrets,
    ) -> Done {
        let prepared = prepare_link(wanted, name, link, secrets);
        match prepared {
            Ok(spec) => self.on_site(core, move |s, c| s.set_link(c, spec)).await,
            Err(error) => {
                self.remove_link(core, name).await?;
                Err(error)
            }
        }
    }

    pub(super) async fn remove_link(&self, core: &CoreSender, name: &str) -> Done {
        let name = name.to_owned();
        self.on_site(core, move |s, c| s.remove_link(c, &name, "link deleted"))
            .await
    }
}

fn prepare_link(
    wanted: &Picture,
    name: &str,
    link: &Link,
    secrets: &LinkSecrets,
) -> Result<LinkSpec, String> {
    let credentials = &link.tls_credentials;
    let secret = secrets.credentials.as_ref().map_err(Clone::clone)?.as_ref();
    let secret = secret.ok_or_else(|| format!("secret {credentials:?} not found"))?;
    let proxy = match (link.settings.get(PROXY), &secrets.proxy) {
        (None, _) => None,
        (Some(name), None) => {
            return Err(format!("spec.settings[{PROXY}]: secret {name:?} not found"));
        }
        (Some(name), Some(secret)) => {
            let missing =
                || format!("spec.settings[{PROXY}]: secret {name:?} has no host and port");
            Some(secret.proxy.clone().ok_or_else(missing)?)
        }
    };
    let edge = wanted.site.as_ref().is_some_and(|(_, s)| s.edge);
    let role = if edge { Role::Edge } else { Role::InterRouter };
    let target = |endpoint: &Endpoint| Target {
        host: endpoint.host.to_string(),
        port: endpoint.port,
    };
    let ours = link.endpoints.iter().filter(|e| e.role == role);
    let targets: Vec<Target> = ours.map(target).collect();
    if targets.is_empty() {
        let role = role.as_str();
        return Err(format!(
            "spec.endpoints: no endpoint for the role of this site, {role}"
        ));
    }
    Ok(LinkSpec {
        name: name.to_owned(),
        targets,
        cost: link.cost,
        credentials: secret.clone(),
        proxy,
        tls: pki::client_config(credentials, secret).map_err(|e| chain(&e))?,
    })
}
