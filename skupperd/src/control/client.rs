//! The service as its callers see it: what the command uses.

use super::{Bus, Error, NAME};
use crate::{
    model::{Key, Kind, Name, Namespace, Settings},
    operate::{GrantWish, LinkWish, Revoked},
    reconcile::revoked,
};
use serde_json::Value;
use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    time::Duration,
};
use tokio::runtime::{Builder, Runtime};
use zbus::{Connection, Variant, fdo, names::BusName};

/// Longest time a call may take: somebody may be asked for a password meanwhile.
const CALL: Duration = Duration::from_secs(300);
/// Longest time for finding out who is on a bus.
const LOOK: Duration = Duration::from_secs(10);

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
    fn namespaces(&self) -> zbus::Result<Vec<String>>;
    #[zbus(allow_interactive_auth)]
    fn apply(&self, namespace: &str, document: &str) -> zbus::Result<Vec<(String, String)>>;
    #[zbus(allow_interactive_auth)]
    fn update(&self, namespace: &str, kind: &str, name: &str, change: &str)
    -> zbus::Result<String>;
    #[zbus(allow_interactive_auth)]
    fn delete(&self, namespace: &str, kind: &str, name: &str) -> zbus::Result<Vec<String>>;
    #[zbus(allow_interactive_auth)]
    fn delete_namespace(&self, namespace: &str) -> zbus::Result<()>;
    fn list(&self, namespace: &str, kind: &str) -> zbus::Result<Vec<String>>;
    fn list_issuers(&self, namespace: &str) -> zbus::Result<Vec<String>>;
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

/// Why there is nobody to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The bus can not be reached.
    Bus(String),
    /// Nobody on it has the name.
    Daemon,
}

/// A daemon on a bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Version.
    pub version: String,
    /// When it was started (RFC 3339).
    pub since: String,
}

/// A connection to the daemon on a bus.
pub struct Client {
    pub(super) runtime: Runtime,
    pub(super) connection: Connection,
}

/// A connection to a bus and a runtime for it.
pub(super) fn connect(bus: Bus) -> Result<(Runtime, Connection), String> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    let connecting = async {
        match bus {
            Bus::System => Connection::system().await,
            Bus::Session => Connection::session().await,
        }
    };
    let connection = runtime.block_on(async { tokio::time::timeout(LOOK, connecting).await });
    match connection {
        Ok(Ok(connection)) => Ok((runtime, connection)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it does not answer".to_owned()),
    }
}

impl Client {
    /// Connects to the daemon on a bus, if there is one. Does not have it started.
    pub fn connect(bus: Bus) -> Result<Self, Absent> {
        let (runtime, connection) = connect(bus).map_err(Absent::Bus)?;
        let client = Self {
            runtime,
            connection,
        };
        let owned = client.within(LOOK, async {
            let bus = fdo::DBusProxy::new(&client.connection).await?;
            let owned = bus.name_has_owner(BusName::try_from(NAME)?).await;
            Ok(owned.map_err(zbus::Error::from)?)
        });
        match owned {
            Ok(true) => Ok(client),
            Ok(false) => Err(Absent::Daemon),
            Err(error) => Err(Absent::Bus(error.to_string())),
        }
    }

    /// Drives what is asked of a bus, for so long.
    pub(super) fn within<T>(
        &self,
        most: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let timeout = async { tokio::time::timeout(most, work).await };
        self.runtime.block_on(timeout).unwrap_or_else(|_| {
            let seconds = most.as_secs();
            let text = format!("skupperd did not answer within {seconds} s");
            Err(Error::Timeout(text))
        })
    }

    fn call<T>(
        &self,
        work: impl AsyncFnOnce(SkupperProxy<'_>) -> zbus::Result<T>,
    ) -> Result<T, Error> {
        self.within(CALL, async {
            let proxy = SkupperProxy::builder(&self.connection)
                .cache_properties(zbus::proxy::CacheProperties::No)
                .build()
                .await?;
            Ok(work(proxy).await?)
        })
    }

    /// The daemon itself.
    pub fn daemon(&self) -> Result<Daemon, Error> {
        self.call(async |proxy| {
            Ok(Daemon {
                version: proxy.version().await?,
                since: proxy.since().await?,
            })
        })
    }

    /// Namespaces that there are.
    pub fn namespaces(&self) -> Result<Vec<Namespace>, Error> {
        let names = self.call(async |proxy| proxy.namespaces().await)?;
        let names = names.into_iter().filter_map(|n| Namespace::new(n).ok());
        Ok(names.collect())
    }

    /// Applies the resources of a document: all, or none. Gives each with its file.
    pub fn apply(&self, namespace: &str, text: &str) -> Result<Vec<(Key, String)>, Error> {
        let applied = self.call(async |proxy| proxy.apply(namespace, text).await)?;
        let applied = applied.into_iter();
        applied
            .map(|(text, path)| Ok((key_of(&text)?, path)))
            .collect()
    }

    /// Merges a change into a resource. Gives its file, or nothing where there is no such resource.
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
        absent_is(path.map(Some), None)
    }

    /// Deletes a resource. Gives what went with it too; nothing where there is no such resource.
    pub fn delete(&self, namespace: &str, kind: Kind, name: &str) -> Result<Vec<Key>, Error> {
        let gone = self.call(async |proxy| proxy.delete(namespace, kind.as_str(), name).await);
        let gone = absent_is(gone, Vec::new())?;
        gone.iter().map(|text| key_of(text)).collect()
    }

    /// Removes a namespace. False: there is none.
    pub fn delete_namespace(&self, namespace: &str) -> Result<bool, Error> {
        let gone = self.call(async |proxy| proxy.delete_namespace(namespace).await);
        absent_is(gone.map(|()| true), false)
    }

    /// Resources of a kind with their statuses.
    pub fn list(&self, namespace: &str, kind: Kind) -> Result<Vec<Value>, Error> {
        let all = self.call(async |proxy| proxy.list(namespace, kind.as_str()).await)?;
        all.iter().map(|text| json(text)).collect()
    }

    /// The CAs of the site's own.
    pub fn issuers(&self, namespace: &str) -> Result<Vec<Value>, Error> {
        let all = self.call(async |proxy| proxy.list_issuers(namespace).await)?;
        all.iter().map(|text| json(text)).collect()
    }

    /// What the kernel steers where.
    pub fn steering(&self) -> Result<Value, Error> {
        let text = self.call(async |proxy| proxy.steering().await)?;
        json(&text)
    }

    /// A link for another site.
    pub fn generate_link(&self, namespace: &str, wish: &LinkWish) -> Result<String, Error> {
        let mut options = Options::new();
        if let Some(host) = &wish.host {
            options.insert("host", Variant::from(host.as_str()));
        }
        if let Some(cost) = wish.cost {
            options.insert("cost", Variant::from(cost));
        }
        if let Some(name) = &wish.name {
            options.insert("name", Variant::from(name.as_str()));
        }
        self.call(async |proxy| proxy.generate_link(namespace, &options).await)
    }

    /// A token for other sites.
    pub fn issue_token(
        &self,
        namespace: &str,
        wish: &GrantWish,
        cost: u32,
        timeout: Duration,
    ) -> Result<String, Error> {
        let seconds = |time: Duration| format!("{}s", time.as_secs_f64());
        let mut options = Options::from([
            ("cost", Variant::from(cost)),
            (
                "redemptions-allowed",
                Variant::from(wish.redemptions_allowed),
            ),
            (
                "expiration-window",
                Variant::from(seconds(wish.expiration_window)),
            ),
            ("timeout", Variant::from(seconds(timeout))),
        ]);
        if let Some(name) = &wish.name {
            options.insert("name", Variant::from(name.as_str()));
        }
        self.within(CALL + timeout, async {
            let proxy = SkupperProxy::new(&self.connection).await?;
            Ok(proxy.issue_token(namespace, &options).await?)
        })
    }

    /// Redeems a token. Gives the name of the link.
    pub fn redeem_token(&self, namespace: &str, token: &str) -> Result<String, Error> {
        self.call(async |proxy| proxy.redeem_token(namespace, token).await)
    }

    /// Takes back what a remote site was given.
    pub fn revoke_link(&self, namespace: &str, name: &str) -> Result<Vec<Revoked>, Error> {
        // What was revoked before, the answer does not tell.
        let sites = self.list(namespace, Kind::Site)?;
        let known = |site: &Value| {
            let settings = site.pointer("/spec/settings")?.clone();
            let settings: Settings = serde_json::from_value(settings).ok()?;
            revoked(&settings).ok()
        };
        let known: BTreeSet<String> = sites.iter().filter_map(known).flatten().collect();
        let all = self.call(async |proxy| proxy.revoke_link(namespace, name).await)?;
        let told = |(serial, subject)| Revoked {
            before: known.contains(&serial),
            serial,
            subject,
        };
        Ok(all.into_iter().map(told).collect())
    }

    /// Replaces the site's own CAs.
    pub fn rotate_issuers(&self, namespace: &str, overlap: Option<&str>) -> Result<(), Error> {
        let overlap = overlap.unwrap_or_default();
        self.call(async |proxy| proxy.rotate_issuers(namespace, overlap).await)
    }

    /// Has all resources read again.
    pub fn reload(&self) -> Result<(), Error> {
        self.call(async |proxy| proxy.reload().await)
    }
}

/// What somebody on a bus says is wrong, without the name of the error.
pub(super) fn text_of(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(_, Some(text), _) => text.clone(),
        zbus::Error::FDO(error) => match &**error {
            fdo::Error::AccessDenied(text)
            | fdo::Error::AuthFailed(text)
            | fdo::Error::InteractiveAuthorizationRequired(text) => format!("not allowed: {text}"),
            fdo::Error::ServiceUnknown(text) => format!("it is not there: {text}"),
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

/// What there is not is no error for whoever has a word for it.
fn absent_is<T>(result: Result<T, Error>, absent: T) -> Result<T, Error> {
    match result {
        Err(Error::NotFound(_)) => Ok(absent),
        other => other,
    }
}

fn key_of(text: &str) -> Result<Key, Error> {
    let key = text.split_once([' ', '/']).and_then(|(kind, name)| {
        let kind = Kind::parse(kind)?;
        Some(Key::new(kind, Name::new(name).ok()?))
    });
    key.ok_or_else(|| Error::Failed(format!("skupperd names {text:?}, which is no resource")))
}

fn json(text: &str) -> Result<Value, Error> {
    serde_json::from_str(text)
        .map_err(|e| Error::Failed(format!("skupperd gives what is not JSON: {e}")))
}
