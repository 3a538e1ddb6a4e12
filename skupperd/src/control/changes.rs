//! What the D-Bus methods do that change resources, with a line in the log for each change.

use super::{
    Error,
    requests::{AuthorizedCall, ManagerObject, check_size},
};
use crate::{
    model::{Key, Kind},
    operate::{self, AppliedResource, ApplyEffect, Existing, GrantOptions},
};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

impl ManagerObject {
    pub(super) async fn apply_documents(
        &self,
        call: &AuthorizedCall,
        document: String,
        existing: Existing,
    ) -> Result<Vec<AppliedResource>, Error> {
        check_size(&document)?;
        let applied = self.run_change(call, move |at| {
            operate::apply(at, Path::new("-"), &document, existing)
        });
        let applied = applied.await?;
        for AppliedResource { key, effect, .. } in &applied {
            match effect {
                ApplyEffect::Added => call.log("resource added", &key.to_string()).await,
                ApplyEffect::Changed => call.log("resource changed", &key.to_string()).await,
                ApplyEffect::Unchanged => {}
            }
        }
        Ok(applied)
    }

    pub(super) async fn delete_resource(
        &self,
        call: &AuthorizedCall,
        kind: Kind,
        name: String,
    ) -> Result<Vec<Key>, Error> {
        let text = not_found(kind, &name, call);
        let removed = self.run_change(call, move |at| operate::delete(at, kind, &name));
        let removed = removed.await?;
        if removed.is_empty() {
            return Err(Error::NotFound(text));
        }
        for key in &removed {
            call.log("resource deleted", &key.to_string()).await;
        }
        Ok(removed)
    }

    /// Returns the file of the resource.
    pub(super) async fn update_resource(
        &self,
        call: &AuthorizedCall,
        kind: Kind,
        name: String,
        change: &str,
    ) -> Result<PathBuf, Error> {
        check_size(change)?;
        let change: Value = serde_json::from_str(change)
            .map_err(|e| Error::Invalid(format!("change is not valid JSON: {e}")))?;
        let (text, subject) = (not_found(kind, &name, call), format!("{kind} {name}"));
        let path = self.run_change(call, move |at| operate::update(at, kind, &name, &change));
        let path = path.await?.ok_or(Error::NotFound(text))?;
        call.log("resource changed", &subject).await;
        Ok(path)
    }

    /// Deletes a namespace with all that it has.
    pub(super) async fn delete_resources(&self, call: &AuthorizedCall) -> Result<(), Error> {
        if !self.run_change(call, operate::remove_namespace).await? {
            let namespace = call.namespace.name();
            let text = format!("namespace {:?} does not exist", namespace.as_str());
            return Err(Error::NotFound(text));
        }
        call.log("namespace deleted", "").await;
        // The daemon stops the site when it reads the resources again.
        self.reload_and_wait().await
    }

    /// Makes a grant, waits at most `within` until it is served, and returns its token.
    pub(super) async fn issue(
        &self,
        call: &AuthorizedCall,
        grant: GrantOptions,
        cost: u32,
        within: Duration,
    ) -> Result<String, Error> {
        let name = self
            .run_change(call, move |at| operate::grant(at, grant))
            .await?;
        let key = Key::new(Kind::AccessGrant, name.clone());
        let served = self.wait_for_grant(call.namespace.name(), &key, within);
        match served.await {
            Ok(details) => {
                let token =
                    self.run_change(call, move |at| operate::token(at, name, details, cost));
                let token = token.await?;
                call.log("token issued", &key.to_string()).await;
                Ok(token)
            }
            Err(error) => {
                // The code was not handed out, so the grant cannot be redeemed.
                self.run_change(call, move |at| {
                    operate::remove(&mut at.edit()?, key.kind, &key.name)
                })
                .await?;
                Err(error)
            }
        }
    }
}

fn not_found(kind: Kind, name: &str, call: &AuthorizedCall) -> String {
    let (kind, namespace) = (kind.as_str().to_lowercase(), call.namespace.name());
    format!("{kind} {name} does not exist in namespace {namespace}")
}
