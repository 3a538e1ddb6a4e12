//! The service's own object: its methods.

use super::{
    Error, PATH,
    authority::Action,
    calls::{GRANTED, Manager, Options, kind_of, nothing_else, option, slashed, small, span},
};
use crate::{
    model::{Key, Kind, Namespace},
    operate::{self, GrantWish, LinkWish},
};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use zbus::{Connection, message::Header};

/// Validity of a token when none is asked for, as the command's.
const WINDOW: Duration = Duration::from_secs(15 * 60);

/// Skupper sites on this host.
#[zbus::interface(name = "io.skupper.Skupper1")]
impl Manager {
    /// Version of the daemon.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    /// Since when it runs (RFC 3339).
    #[zbus(property(emits_changed_signal = "const"))]
    fn since(&self) -> String {
        self.since.to_string()
    }

    /// Whether connections are accelerated that ask for it: `on`, or `off` and after a colon why.
    #[zbus(property(emits_changed_signal = "false"))]
    fn acceleration(&self) -> String {
        let standing = self.acceleration.standing();
        match (standing.enabled, standing.reason) {
            (true, _) => "on".to_owned(),
            (false, Some(why)) => format!("off: {why}"),
            (false, None) => "off".to_owned(),
        }
    }

    /// Namespaces that there are.
    #[zbus(property(emits_changed_signal = "false"))]
    fn namespaces(&self) -> Vec<String> {
        self.published
            .borrow()
            .keys()
            .map(ToString::to_string)
            .collect()
    }

    /// Applies the resources of a document (YAML, several with `---` between them): all of them, or
    /// none. Gives each as `<Kind>/<name>` with the file it is in.
    async fn apply(
        &self,
        namespace: &str,
        document: String,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<(String, String)>, Error> {
        let place = self
            .place(connection, &header, Action::Manage, namespace)
            .await?;
        small(&document)?;
        let applied = self.work(move || operate::apply(&place, Path::new("-"), &document));
        let applied = applied.await?.into_iter();
        Ok(applied
            .map(|(key, path)| (slashed(&key), path.display().to_string()))
            .collect())
    }

    /// Deletes a resource; with a link go its credentials where nothing else uses them. Gives what was
    /// deleted.
    async fn delete(
        &self,
        namespace: &str,
        kind: &str,
        name: String,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<String>, Error> {
        let place = self
            .place(connection, &header, Action::Manage, namespace)
            .await?;
        let of = kind_of(kind)?;
        let text = format!("{of} {name:?} does not exist");
        let removed = self.work(move || operate::delete(&place, of, &name));
        let removed = removed.await?;
        if removed.is_empty() {
            return Err(Error::NotFound(text));
        }
        Ok(removed.iter().map(slashed).collect())
    }

    /// Changes a resource: `change` (a JSON merge patch, RFC 7386, of `spec` and `metadata`) is merged
    /// into it, everything else stays. Gives the file.
    async fn update(
        &self,
        namespace: &str,
        kind: &str,
        name: String,
        change: String,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Error> {
        let place = self
            .place(connection, &header, Action::Manage, namespace)
            .await?;
        small(&change)?;
        let of = kind_of(kind)?;
        let change: Value = serde_json::from_str(&change)
            .map_err(|e| Error::Invalid(format!("the change is not JSON: {e}")))?;
        let text = format!("{of} {name:?} does not exist");
        let path = self.work(move || operate::update(&place, of, &name, &change));
        let path = path.await?.ok_or(Error::NotFound(text))?;
        Ok(path.display().to_string())
    }

    /// Removes a namespace: its resources, its state and its keys. Its site ends.
    async fn delete_namespace(
        &self,
        namespace: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        let place = self
            .place(connection, &header, Action::Manage, namespace)
            .await?;
        if self.work(move || operate::remove_namespace(&place)).await? {
            // What has gone is noticed by this look.
            return self.read_again().await;
        }
        let text = format!("there is no namespace {namespace:?}");
        Err(Error::NotFound(text))
    }

    /// The site's own CAs as JSON documents, and until when retired ones are trusted. Nothing secret is
    /// in it.
    async fn list_issuers(&self, namespace: &str) -> Result<Vec<String>, Error> {
        let name = Namespace::new(namespace)
            .map_err(|e| Error::Invalid(format!("namespace is not valid: {e}")))?;
        let place = self.authority.layout.namespace(&name);
        let all = self.work(move || operate::issuers(&place)).await?;
        Ok(all.iter().map(Value::to_string).collect())
    }

    /// The resources of a kind with their statuses, as JSON documents. Nothing secret is in them.
    async fn list(&self, namespace: &str, kind: &str) -> Result<Vec<String>, Error> {
        let name = Namespace::new(namespace)
            .map_err(|e| Error::Invalid(format!("namespace is not valid: {e}")))?;
        let of = kind_of(kind)?;
        let place = self.authority.layout.namespace(&name);
        let documents = self.work(move || operate::documents(&place, of)).await?;
        let documents = documents.into_iter().map(|mut document| {
            if of.is_confidential() {
                crate::manifest::redact(&mut document);
                if let Some(status) = document.get_mut("status").and_then(Value::as_object_mut) {
                    status.remove("code");
                }
            }
            document.to_string()
        });
        Ok(documents.collect())
    }

    /// A Link and its Secret (YAML) for another site to apply. Options: `host` (s) by which that site
    /// reaches this one, `cost` (u), `name` (s).
    async fn generate_link(
        &self,
        namespace: &str,
        mut options: Options,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Error> {
        let place = self
            .place(connection, &header, Action::Credentials, namespace)
            .await?;
        let wish = LinkWish {
            host: option(&mut options, "host")?,
            cost: option(&mut options, "cost")?,
            name: option(&mut options, "name")?,
        };
        nothing_else(&options)?;
        self.work(move || operate::generate_link(&place, wish))
            .await
    }

    /// A token (YAML) that lets other sites link to this one. Options: `name` (s), `cost` (u),
    /// `redemptions-allowed` (u, 1 without), `expiration-window` (s, for example `15m`), `timeout` (s, how
    /// long the grant may take to be served; 60s without).
    async fn issue_token(
        &self,
        namespace: &str,
        mut options: Options,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Error> {
        let place = self
            .place(connection, &header, Action::Credentials, namespace)
            .await?;
        let window = span(&mut options, "expiration-window")?.unwrap_or(WINDOW);
        let within = span(&mut options, "timeout")?.unwrap_or(GRANTED);
        let wish = GrantWish {
            name: option(&mut options, "name")?,
            redemptions_allowed: option(&mut options, "redemptions-allowed")?
                .unwrap_or(1)
                .max(1),
            expiration_window: window,
        };
        let cost = option::<u32>(&mut options, "cost")?.unwrap_or(1).max(1);
        nothing_else(&options)?;
        let (at, of) = (place.clone(), place.name().clone());
        let name = self.work(move || operate::grant(&at, wish)).await?;
        let key = Key::new(Kind::AccessGrant, name.clone());
        match self.granted(&of, &key, within).await {
            Ok(details) => {
                self.work(move || operate::token(&place, name, details, cost))
                    .await
            }
            Err(error) => {
                // Nobody has its code: a grant without a token is for nothing.
                self.work(move || operate::remove(&mut place.edit()?, key.kind, &key.name))
                    .await?;
                Err(error)
            }
        }
    }

    /// Links the site to the one that issued a token (YAML). Gives the name of the Link.
    async fn redeem_token(
        &self,
        namespace: &str,
        token: String,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Error> {
        let place = self
            .place(connection, &header, Action::Credentials, namespace)
            .await?;
        small(&token)?;
        let name = operate::redeem(&place, Path::new("-"), &token).await?;
        Ok(name.to_string())
    }

    /// Takes back what a remote site was given: `name` is its name or identity, or subject or serial
    /// number of a certificate. Gives serial number and subject of what is revoked.
    async fn revoke_link(
        &self,
        namespace: &str,
        name: String,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<(String, String)>, Error> {
        let place = self
            .place(connection, &header, Action::Credentials, namespace)
            .await?;
        let revoked = self.work(move || operate::revoke(&place, &name)).await?;
        Ok(revoked.into_iter().map(|r| (r.serial, r.subject)).collect())
    }

    /// Replaces the site's own CAs. `overlap`: how long the old ones are trusted, for example `720h`;
    /// as before when empty.
    async fn rotate_issuers(
        &self,
        namespace: &str,
        overlap: String,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        let place = self
            .place(connection, &header, Action::Credentials, namespace)
            .await?;
        self.work(move || {
            let overlap = Some(overlap.as_str()).filter(|o| !o.is_empty());
            operate::rotate(&place, overlap)
        })
        .await
    }

    /// Reads all resources again; they are applied when this returns.
    async fn reload(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        self.authority
            .check(connection, &header, Action::Manage, None)
            .await?;
        self.read_again().await
    }

    /// Ends the daemon as systemctl stop does: nothing new is accepted, open connections get their time.
    async fn drain(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        self.authority
            .check(connection, &header, Action::Manage, None)
            .await?;
        // Full: it is ending already.
        let _ = self.requests.stop.try_send(());
        Ok(())
    }

    /// What the kernel steers where, and whether clients wait while the daemon is restarted, and how
    /// acceleration stands, as JSON.
    fn steering(&self) -> Result<String, Error> {
        serde_json::to_string(&(self.steering)())
            .map_err(|e| Error::Failed(format!("encoding bindings: {e}")))
    }

    /// Everything that is known, as JSON, for a report. Nothing secret is in it.
    fn dump(&self) -> Result<String, Error> {
        let published = self.published.borrow().clone();
        let documents = published.iter().map(|(namespace, documents)| {
            let shown = documents
                .iter()
                .filter_map(|(key, d)| super::publish::shown(key, d));
            let shown: Vec<Value> = shown.map(|d| (*d).clone()).collect();
            (namespace.to_string(), Value::from(shown))
        });
        let dump = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "path": PATH,
            "namespaces": documents.collect::<serde_json::Map<String, Value>>(),
        });
        Ok(dump.to_string())
    }
}
