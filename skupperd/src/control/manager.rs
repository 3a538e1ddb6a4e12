//! The D-Bus methods. Their comments are the documentation in the introspection data.

use super::{
    Error, audit,
    authority::PolkitAction,
    publish::{dump, statuses_of},
    requests::{
        GRANT_TIMEOUT, InputError, ManagerObject, Options, check_size, cost_option,
        duration_option, input_error, key_path, option, parse_kind, reject_unknown_options,
    },
};
use crate::operate::{self, AppliedResource, Existing, GrantOptions, LinkOptions};
use serde_json::Value;
use std::{path::Path, time::Duration};
use zbus::{Connection, message::Header};

/// Default of the option `expiration-window`, as in the command.
const DEFAULT_EXPIRATION_WINDOW: Duration = Duration::from_secs(15 * 60);

/// Skupper sites on this host.
#[zbus::interface(name = "io.skupper.Skupper1")]
impl ManagerObject {
    /// Version of skupperd.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    /// Time at which skupperd started (RFC 3339).
    #[zbus(property(emits_changed_signal = "const"))]
    fn since(&self) -> String {
        self.since.to_string()
    }

    /// What skupperd does: `running`, or `stopping` while open connections get time to end.
    #[zbus(property(emits_changed_signal = "false"))]
    fn state(&self) -> String {
        self.daemon_state().as_str().to_owned()
    }

    /// Whether the kernel can accelerate connections: `on`, or `off: ` and the reason.
    #[zbus(property(emits_changed_signal = "false"))]
    fn acceleration(&self) -> String {
        let status = self.acceleration.status();
        match (status.enabled, status.reason) {
            (true, _) => "on".to_owned(),
            (false, Some(reason)) => format!("off: {reason}"),
            (false, None) => "off".to_owned(),
        }
    }

    /// Names of the namespaces.
    #[zbus(property(emits_changed_signal = "false"))]
    fn namespaces(&self) -> Vec<String> {
        self.published
            .borrow()
            .keys()
            .map(ToString::to_string)
            .collect()
    }

    /// Applies the resources of a text (YAML documents separated by `---`): all of them, or none. Returns
    /// each as `<Kind>/<name>` with its file.
    async fn apply(
        &self,
        namespace: &str,
        document: String,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<(String, String)>, Error> {
        let call = self
            .authorize_change(connection, &header, namespace)
            .await?;
        let applied = self.apply_documents(&call, document, Existing::Replace);
        let applied = applied.await?.into_iter();
        Ok(applied
            .map(|a| (key_path(&a.key), a.file.display().to_string()))
            .collect())
    }

    /// As Apply. Returns each resource as `<Kind>/<name>`, its file, and `added`, `changed` or
    /// `unchanged`. Options: `create-only` (b): fail if one of the resources exists.
    async fn apply_with(
        &self,
        namespace: &str,
        document: String,
        mut options: Options,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<(String, String, String)>, Error> {
        let call = self
            .authorize_change(connection, &header, namespace)
            .await?;
        let existing = match option::<bool>(&mut options, "create-only")? {
            Some(true) => Existing::Refuse,
            _ => Existing::Replace,
        };
        reject_unknown_options(&options)?;
        let applied = self.apply_documents(&call, document, existing);
        let texts = |a: AppliedResource| {
            let file = a.file.display().to_string();
            (key_path(&a.key), file, a.effect.as_str().to_owned())
        };
        Ok(applied.await?.into_iter().map(texts).collect())
    }

    /// Deletes a resource, and with a Link its credentials if nothing else uses them. Returns what was
    /// deleted.
    async fn delete(
        &self,
        namespace: &str,
        kind: &str,
        name: String,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<String>, Error> {
        let call = self
            .authorize_change(connection, &header, namespace)
            .await?;
        let removed = self.delete_resource(&call, parse_kind(kind)?, name).await?;
        Ok(removed.iter().map(key_path).collect())
    }

    /// Merges `change` (a JSON merge patch, RFC 7386, of `spec` and `metadata`) into a resource. Returns
    /// its file.
    async fn update(
        &self,
        namespace: &str,
        kind: &str,
        name: String,
        change: String,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Error> {
        let call = self
            .authorize_change(connection, &header, namespace)
            .await?;
        let path = self.update_resource(&call, parse_kind(kind)?, name, &change);
        let path = path.await?;
        Ok(path.display().to_string())
    }

    /// Removes a namespace: its resources, its state and its keys. Its site stops.
    async fn delete_namespace(
        &self,
        namespace: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        let call = self
            .authorize_change(connection, &header, namespace)
            .await?;
        self.delete_resources(&call).await
    }

    /// The CAs of the site as JSON documents, and until when replaced ones are trusted. Contains no
    /// secrets.
    async fn list_issuers(
        &self,
        namespace: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<String>, Error> {
        let namespace_dir = self.namespace_dir(namespace)?;
        let all = self
            .run_read(connection, &header, move || {
                operate::issuers(&namespace_dir)
            })
            .await?;
        Ok(all.iter().map(Value::to_string).collect())
    }

    /// The resources of a kind with their statuses, as JSON documents. Contains no secrets.
    async fn list(
        &self,
        namespace: &str,
        kind: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<String>, Error> {
        let namespace_dir = self.namespace_dir(namespace)?;
        let of = parse_kind(kind)?;
        let state = self.daemon_state();
        let latest = self.latest.borrow().clone();
        let documents = self
            .run_read(connection, &header, move || {
                let statuses = match latest.get(namespace_dir.name()) {
                    Some(all) => statuses_of(all, of),
                    // It has reported nothing yet.
                    None => namespace_dir.statuses(of)?,
                };
                operate::documents_with(&namespace_dir, of, state, statuses)
            })
            .await?;
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

    /// Documents of the namespace's input files that are not valid, and files that cannot be read: file,
    /// line, kind, name and field as far as known, and reason.
    async fn input_errors(
        &self,
        namespace: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<InputError>, Error> {
        let namespace_dir = self.namespace_dir(namespace)?;
        let errors = self
            .run_read(connection, &header, move || {
                operate::input_errors(&namespace_dir)
            })
            .await?;
        Ok(errors.into_iter().map(input_error).collect())
    }

    /// A Link and its Secret (YAML) for another site to apply. Options: `host` (s) at which that site
    /// reaches this one, `cost` (u), `name` (s).
    async fn generate_link(
        &self,
        namespace: &str,
        mut options: Options,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Error> {
        let call = self
            .authorize_credentials(connection, &header, namespace)
            .await?;
        let link = LinkOptions {
            host: option(&mut options, "host")?,
            cost: cost_option(&mut options)?,
            name: option(&mut options, "name")?,
        };
        reject_unknown_options(&options)?;
        let document = self.run_change(&call, move |at| operate::generate_link(at, link));
        let document = document.await?;
        call.log("credentials for a link issued", "").await;
        Ok(document)
    }

    /// A token (YAML) with which other sites link to this one. Options: `name` (s), `cost` (u),
    /// `redemptions-allowed` (u, default 1), `expiration-window` (s, default `15m`), `timeout` (s, time to
    /// wait until the grant is served, default `60s`).
    async fn issue_token(
        &self,
        namespace: &str,
        mut options: Options,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Error> {
        let call = self
            .authorize_credentials(connection, &header, namespace)
            .await?;
        let window = duration_option(&mut options, "expiration-window")?
            .unwrap_or(DEFAULT_EXPIRATION_WINDOW);
        let within = duration_option(&mut options, "timeout")?.unwrap_or(GRANT_TIMEOUT);
        let grant = GrantOptions {
            name: option(&mut options, "name")?,
            redemptions_allowed: option(&mut options, "redemptions-allowed")?
                .unwrap_or(1)
                .max(1),
            expiration_window: window,
        };
        let cost = cost_option(&mut options)?.unwrap_or(1);
        reject_unknown_options(&options)?;
        self.issue(&call, grant, cost, within).await
    }

    /// Links the site to the one that issued a token (YAML). Returns the name of the Link.
    async fn redeem_token(
        &self,
        namespace: &str,
        token: String,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Error> {
        let call = self
            .authorize_credentials(connection, &header, namespace)
            .await?;
        check_size(&token)?;
        let name = operate::redeem(&call.namespace, Path::new("-"), &token).await?;
        call.log("token redeemed", &format!("Link {name}")).await;
        Ok(name.to_string())
    }

    /// Revokes certificates of a remote site: `name` is the name or ID of the site, or the subject or
    /// serial number of a certificate. Returns serial number and subject of each.
    async fn revoke_link(
        &self,
        namespace: &str,
        name: String,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<(String, String)>, Error> {
        let call = self
            .authorize_credentials(connection, &header, namespace)
            .await?;
        let revoked = self
            .run_change(&call, move |at| operate::revoke(at, &name))
            .await?;
        for revoked in &revoked {
            let certificate = format!("{} of {}", revoked.serial, revoked.subject);
            call.log("certificate revoked", &certificate).await;
        }
        Ok(revoked.into_iter().map(|r| (r.serial, r.subject)).collect())
    }

    /// Replaces the CAs of the site. `overlap`: time for which the old ones stay trusted, for example
    /// `720h`; empty for that of the last rotation.
    async fn rotate_issuers(
        &self,
        namespace: &str,
        overlap: String,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        let call = self
            .authorize_credentials(connection, &header, namespace)
            .await?;
        self.run_change(&call, move |at| {
            let overlap = Some(overlap.as_str()).filter(|o| !o.is_empty());
            operate::rotate(at, overlap)
        })
        .await?;
        call.log("replacement of CAs requested", "").await;
        Ok(())
    }

    /// Reads all resources again, and returns when they are applied.
    async fn reload(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        let manage = PolkitAction::Manage;
        let user = self.authority.check(connection, &header, manage, None);
        audit::log(user.await?, None, "reload requested", "").await;
        self.reload_and_wait().await
    }

    /// Stops skupperd as `systemctl stop` does: it accepts no new connections, and open ones get time to
    /// end.
    async fn drain(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        let manage = PolkitAction::Manage;
        let user = self.authority.check(connection, &header, manage, None);
        audit::log(user.await?, None, "stop requested", "").await;
        // Full: the daemon is already stopping.
        let _ = self.requests.stop.try_send(());
        Ok(())
    }

    /// Addresses that the kernel steers to listeners, and the state of steering and acceleration, as
    /// JSON.
    fn steering(&self) -> Result<String, Error> {
        serde_json::to_string(&(self.steering)())
            .map_err(|e| Error::Failed(format!("cannot encode steered addresses: {e}")))
    }

    /// All resources with their statuses, as JSON, for a report. Contains no secrets.
    async fn dump(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Error> {
        let published = self.published.borrow().clone();
        self.run_read(connection, &header, move || Ok(dump(&published)))
            .await
    }
}
