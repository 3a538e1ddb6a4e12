//! The client of the D-Bus service.

use super::{Bus, Error, NAME};
use crate::{
    manifest::{ManifestError, settings},
    model::{Key, Kind, Name, Namespace, SettingTexts, Settings, SiteSettings},
    operate::{
        AppliedResource, ApplyEffect, Existing, GrantOptions, LinkOptions, RevokedCertificate,
    },
    store::DaemonState,
};
use serde_json::Value;
use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    path::Path,
    time::Duration,
};
use tokio::runtime::{Builder, Runtime};
use zbus::{Connection, Variant, fdo, names::BusName};

/// Longest time of a call, in which polkit may ask the user for a password.
const CALL_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest time for connecting to a bus and asking for the name of the service.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// File, line, kind, name, field and reason.
type InputError = (String, u32, String, String, String, String);
type Options<'a> = HashMap<&'a str, Variant<'a>>;

#[zbus::proxy(
    interface = "io.skupper.Skupper1",
    default_service = "io.skupper.Skupper1",
    default_path = "/io/skupper/Skupper1"
)]
trait Skupper {
    #[zbus(property)]
    fn version(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn since(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn namespaces(&self) -> zbus::Result<Vec<String>>;
    #[zbus(allow_interactive_auth)]
    fn apply_with(
        &self,
        namespace: &str,
        document: &str,
        options: &Options<'_>,
    ) -> zbus::Result<Vec<(String, String, String)>>;
    #[zbus(allow_interactive_auth)]
    fn update(&self, namespace: &str, kind: &str, name: &str, change: &str)
    -> zbus::Result<String>;
    #[zbus(allow_interactive_auth)]
    fn delete(&self, namespace: &str, kind: &str, name: &str) -> zbus::Result<Vec<String>>;
    #[zbus(allow_interactive_auth)]
    fn delete_namespace(&self, namespace: &str) -> zbus::Result<()>;
    fn list(&self, namespace: &str, kind: &str) -> zbus::Result<Vec<String>>;
    fn list_issuers(&self, namespace: &str) -> zbus::Result<Vec<String>>;
    fn input_errors(&self, namespace: &str) -> zbus::Result<Vec<InputError>>;
    fn steering(&self) -> zbus::Result<String>;
    #[zbus(allow_interactive_auth)]
    fn generate_link(&self, namespace: &str, options: &Options<'_>) -> zbus::Result<String>;
    #[zbus(allow_interactive_auth)]
    fn issue_token(&self, namespace: &str, options: &Options<'_>) -> zbus::Result<String>;
    #[zbus(allow_interactive_auth)]
    fn redeem_token(&self, namespace: &str, token: &str) -> zbus::Result<String>;
    #[zbus(allow_interactive_auth)]
    fn revoke_link(&self, namespace: &str, name: &str) -> zbus::Result<Vec<(String, String)>>;
    #[zbus(allow_interactive_auth)]
    fn rotate_issuers(&self, namespace: &str, overlap: &str) -> zbus::Result<()>;
    #[zbus(allow_interactive_auth)]
    fn reload(&self) -> zbus::Result<()>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusConnectError {
    /// The bus cannot be reached.
    Bus(String),
    /// The name has no owner on the bus.
    NoDaemon,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    pub version: String,
    /// Time of its start (RFC 3339).
    pub since: String,
}

/// A connection to the daemon. Calls block the caller.
pub struct DaemonClient {
    pub(super) runtime: Runtime,
    pub(super) connection: Connection,
}

/// Connects to a bus, with a runtime to drive the connection.
pub(super) fn connect(bus: Bus) -> Result<(Runtime, Connection), String> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    let connecting = async {
        match bus {
            Bus::System => Connection::system().await,
            Bus::Session => Connection::session().await,
        }
    };
    let connection =
        runtime.block_on(async { tokio::time::timeout(CONNECT_TIMEOUT, connecting).await });
    match connection {
        Ok(Ok(connection)) => Ok((runtime, connection)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())),
    }
}

impl DaemonClient {
    /// Connects to the daemon on a bus. Does not make the bus start it.
    pub fn connect(bus: Bus) -> Result<Self, BusConnectError> {
        let (runtime, connection) = connect(bus).map_err(BusConnectError::Bus)?;
        let client = Self {
            runtime,
            connection,
        };
        let owned = client.within(CONNECT_TIMEOUT, async {
            let bus = fdo::DBusProxy::new(&client.connection).await?;
            let owned = bus.name_has_owner(BusName::try_from(NAME)?).await;
            Ok(owned.map_err(zbus::Error::from)?)
        });
        match owned {
            Ok(true) => Ok(client),
            Ok(false) => Err(BusConnectError::NoDaemon),
            Err(error) => Err(BusConnectError::Bus(error.to_string())),
        }
    }

    /// Runs a request for at most `limit`.
    pub(super) fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let timeout = async { tokio::time::timeout(limit, work).await };
        self.runtime.block_on(timeout).unwrap_or_else(|_| {
            let seconds = limit.as_secs();
            let text =
                format!("skupperd did not answer within {seconds} s: see journalctl -u skupperd");
            Err(Error::Timeout(text))
        })
    }

    fn call<T>(
        &self,
        work: impl AsyncFnOnce(SkupperProxy<'_>) -> zbus::Result<T>,
    ) -> Result<T, Error> {
        self.within(CALL_TIMEOUT, async {
            let proxy = SkupperProxy::builder(&self.connection)
                .cache_properties(zbus::proxy::CacheProperties::No)
                .build()
                .await?;
            Ok(work(proxy).await?)
        })
    }

    /// Version and start of the daemon.
    pub fn daemon(&self) -> Result<Daemon, Error> {
        self.call(async |proxy| {
            Ok(Daemon {
                version: proxy.version().await?,
                since: proxy.since().await?,
            })
        })
    }

    /// What the daemon does.
    pub fn state(&self) -> Result<DaemonState, Error> {
        let state = self.call(async |proxy| match proxy.state().await {
            // Daemons of earlier versions do not have it.
            Err(zbus::Error::FDO(error)) if matches!(*error, fdo::Error::UnknownProperty(_)) => {
                Ok(DaemonState::Running.as_str().to_owned())
            }
            other => other,
        })?;
        DaemonState::parse(&state)
            .ok_or_else(|| Error::Failed(format!("skupperd returned {state:?}, which is no state")))
    }

    pub fn namespaces(&self) -> Result<Vec<Namespace>, Error> {
        let names = self.call(async |proxy| proxy.namespaces().await)?;
        let names = names.into_iter().filter_map(|n| Namespace::new(n).ok());
        Ok(names.collect())
    }

    /// Applies the resources of a text: all, or none.
    pub fn apply(
        &self,
        namespace: &str,
        text: &str,
        existing: Existing,
    ) -> Result<Vec<AppliedResource>, Error> {
        let create_only = Variant::from(existing == Existing::Refuse);
        let options = Options::from([("create-only", create_only)]);
        let applied = self.call(async |proxy| proxy.apply_with(namespace, text, &options).await)?;
        let applied = applied.into_iter();
        let parse = |(key, file, effect): (String, String, String)| {
            let effect = ApplyEffect::parse(&effect).ok_or_else(|| {
                Error::Failed(format!("skupperd returned {effect:?}, which is no effect"))
            })?;
            let (key, file) = (parse_key(&key)?, file.into());
            Ok(AppliedResource { key, file, effect })
        };
        applied.map(parse).collect()
    }

    /// Merges a change into a resource. Returns its file; none if the resource does not exist.
    pub fn update(
        &self,
        namespace: &str,
        kind: Kind,
        name: &str,
        change: &Value,
    ) -> Result<Option<String>, Error> {
        let change = change.to_string();
        let path =
            self.call(async |proxy| proxy.update(namespace, kind.as_str(), name, &change).await);
        not_found_as(path.map(Some), None)
    }

    /// Deletes a resource. Returns it and what was deleted with it; empty if it does not exist.
    pub fn delete(&self, namespace: &str, kind: Kind, name: &str) -> Result<Vec<Key>, Error> {
        let gone = self.call(async |proxy| proxy.delete(namespace, kind.as_str(), name).await);
        let gone = not_found_as(gone, Vec::new())?;
        gone.iter().map(|text| parse_key(text)).collect()
    }

    /// Removes a namespace. False: it does not exist.
    pub fn delete_namespace(&self, namespace: &str) -> Result<bool, Error> {
        let gone = self.call(async |proxy| proxy.delete_namespace(namespace).await);
        not_found_as(gone.map(|()| true), false)
    }

    /// Resources of a kind with their statuses.
    pub fn list(&self, namespace: &str, kind: Kind) -> Result<Vec<Value>, Error> {
        let all = self.call(async |proxy| proxy.list(namespace, kind.as_str()).await)?;
        all.iter().map(|text| parse_json(text)).collect()
    }

    /// Errors of input files.
    pub fn input_errors(&self, namespace: &str) -> Result<Vec<ManifestError>, Error> {
        let all = self.call(async |proxy| proxy.input_errors(namespace).await)?;
        let known = |text: String| Some(text).filter(|text| !text.is_empty());
        let error = |(file, line, kind, name, field, reason): InputError| ManifestError {
            file: Path::new(&file).into(),
            line,
            kind: known(kind),
            name: known(name),
            field: known(field),
            reason,
            is_other_api: false,
        };
        Ok(all.into_iter().map(error).collect())
    }

    pub fn issuers(&self, namespace: &str) -> Result<Vec<Value>, Error> {
        let all = self.call(async |proxy| proxy.list_issuers(namespace).await)?;
        all.iter().map(|text| parse_json(text)).collect()
    }

    /// The list of steered addresses.
    pub fn steering(&self) -> Result<Value, Error> {
        let text = self.call(async |proxy| proxy.steering().await)?;
        parse_json(&text)
    }

    /// A Link and its Secret for another site.
    pub fn generate_link(&self, namespace: &str, link: &LinkOptions) -> Result<String, Error> {
        let mut options = Options::new();
        if let Some(host) = &link.host {
            options.insert("host", Variant::from(host.as_str()));
        }
        if let Some(cost) = link.cost {
            options.insert("cost", Variant::from(cost));
        }
        if let Some(name) = &link.name {
            options.insert("name", Variant::from(name.as_str()));
        }
        self.call(async |proxy| proxy.generate_link(namespace, &options).await)
    }

    pub fn issue_token(
        &self,
        namespace: &str,
        grant: &GrantOptions,
        cost: u32,
        timeout: Duration,
    ) -> Result<String, Error> {
        let seconds = |time: Duration| format!("{}s", time.as_secs_f64());
        let mut options = Options::from([
            ("cost", Variant::from(cost)),
            (
                "redemptions-allowed",
                Variant::from(grant.redemptions_allowed),
            ),
            (
                "expiration-window",
                Variant::from(seconds(grant.expiration_window)),
            ),
            ("timeout", Variant::from(seconds(timeout))),
        ]);
        if let Some(name) = &grant.name {
            options.insert("name", Variant::from(name.as_str()));
        }
        self.within(CALL_TIMEOUT + timeout, async {
            let proxy = SkupperProxy::new(&self.connection).await?;
            Ok(proxy.issue_token(namespace, &options).await?)
        })
    }

    /// Redeems a token. Returns the name of the link.
    pub fn redeem_token(&self, namespace: &str, token: &str) -> Result<String, Error> {
        self.call(async |proxy| proxy.redeem_token(namespace, token).await)
    }

    /// Revokes the certificates of a remote site.
    pub fn revoke_link(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Vec<RevokedCertificate>, Error> {
        // The answer does not say which certificates had been revoked before.
        let sites = self.list(namespace, Kind::Site)?;
        let known = |site: &Value| {
            let settings = site.pointer("/spec/settings")?.clone();
            let texts: SettingTexts = serde_json::from_value(settings).ok()?;
            let settings: Settings<SiteSettings> = settings::read(Kind::Site, texts).ok()?;
            Some(settings.revoked_certificates.clone())
        };
        let known = sites.iter().filter_map(known).flatten();
        let known: BTreeSet<String> = known.map(String::from).collect();
        let all = self.call(async |proxy| proxy.revoke_link(namespace, name).await)?;
        let revoked = |(serial, subject)| RevokedCertificate {
            before: known.contains(&serial),
            serial,
            subject,
        };
        Ok(all.into_iter().map(revoked).collect())
    }

    pub fn rotate_issuers(&self, namespace: &str, overlap: Option<&str>) -> Result<(), Error> {
        let overlap = overlap.unwrap_or_default();
        self.call(async |proxy| proxy.rotate_issuers(namespace, overlap).await)
    }

    pub fn reload(&self) -> Result<(), Error> {
        self.call(async |proxy| proxy.reload().await)
    }
}

/// The text of an error from the bus, without the name of the error.
pub(super) fn error_text(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(_, Some(text), _) => text.clone(),
        zbus::Error::FDO(error) => match &**error {
            fdo::Error::AccessDenied(text)
            | fdo::Error::AuthFailed(text)
            | fdo::Error::InteractiveAuthorizationRequired(text) => {
                format!("permission denied: {text}")
            }
            fdo::Error::ServiceUnknown(text) => format!("service is not on the bus: {text}"),
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

/// Turns the error NotFound into a value.
fn not_found_as<T>(result: Result<T, Error>, absent: T) -> Result<T, Error> {
    match result {
        Err(Error::NotFound(_)) => Ok(absent),
        other => other,
    }
}

fn parse_key(text: &str) -> Result<Key, Error> {
    let key = text.split_once([' ', '/']).and_then(|(kind, name)| {
        let kind = Kind::parse(kind)?;
        Some(Key::new(kind, Name::new(name).ok()?))
    });
    key.ok_or_else(|| {
        Error::Failed(format!(
            "skupperd returned {text:?}, which is not a resource"
        ))
    })
}

fn parse_json(text: &str) -> Result<Value, Error> {
    serde_json::from_str(text)
        .map_err(|e| Error::Failed(format!("skupperd returned invalid JSON: {e}")))
}
