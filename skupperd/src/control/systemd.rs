//! The systemd manager: state, start, stop, enable and disable of a unit.

use super::{
    Bus, Error,
    client::{connect, error_text},
};
use std::{future::Future, pin::Pin, time::Duration};
use tokio::runtime::Runtime;
use zbus::{
    Connection, OwnedObjectPath, OwnedVariant, export::futures_core::Stream, proxy::CacheProperties,
};

/// Longest time of a job. The unit's own timeouts end it earlier.
const JOB_TIMEOUT: Duration = Duration::from_secs(120);

/// Changes of unit files: type, file, destination.
type UnitFileChanges = Vec<(String, String, String)>;

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait SystemdManager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    #[zbus(allow_interactive_auth)]
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    #[zbus(allow_interactive_auth)]
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    #[zbus(allow_interactive_auth)]
    fn enable_unit_files(
        &self,
        files: &[&str],
        runtime: bool,
        force: bool,
    ) -> zbus::Result<(bool, UnitFileChanges)>;
    #[zbus(allow_interactive_auth)]
    fn disable_unit_files(&self, files: &[&str], runtime: bool) -> zbus::Result<UnitFileChanges>;
    #[zbus(allow_interactive_auth)]
    fn reload(&self) -> zbus::Result<()>;
    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitState {
    /// `loaded`, or `not-found` where there is no such unit.
    pub load: String,
    /// `active`, `inactive`, `failed` and so on.
    pub active: String,
    /// `enabled`, `disabled` and so on; empty where there is no such unit.
    pub file: String,
}

impl UnitState {
    pub fn exists(&self) -> bool {
        self.load != "not-found"
    }

    /// The unit runs or is starting.
    pub fn runs(&self) -> bool {
        ["active", "activating", "reloading"].contains(&self.active.as_str())
    }
}

/// A connection to the systemd manager of the system or of a user.
pub struct Systemd {
    runtime: Runtime,
    connection: Connection,
}

impl Systemd {
    pub fn connect(bus: Bus) -> Result<Self, Error> {
        let (runtime, connection) =
            connect(bus).map_err(|e| Error::Failed(format!("cannot reach the {bus} bus: {e}")))?;
        Ok(Self {
            runtime,
            connection,
        })
    }

    fn run<T>(&self, work: impl Future<Output = zbus::Result<T>>) -> Result<T, Error> {
        let timeout = async { tokio::time::timeout(JOB_TIMEOUT, work).await };
        match self.runtime.block_on(timeout) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Error::Failed(format!("systemd: {}", error_text(&error)))),
            Err(_) => {
                let text = format!(
                    "systemd did not finish the job within {} s",
                    JOB_TIMEOUT.as_secs()
                );
                Err(Error::Timeout(text))
            }
        }
    }

    async fn manager(&self) -> zbus::Result<SystemdManagerProxy<'_>> {
        SystemdManagerProxy::builder(&self.connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
    }

    pub fn state(&self, unit: &str) -> Result<UnitState, Error> {
        self.run(async {
            let path = self.manager().await?.load_unit(unit).await?;
            let property = async |name: &str| {
                let which = ("org.freedesktop.systemd1.Unit", name);
                let reply = self.connection.call_method(
                    Some("org.freedesktop.systemd1"),
                    &path,
                    Some("org.freedesktop.DBus.Properties"),
                    "Get",
                    &which,
                );
                let value: OwnedVariant = reply.await?.body().deserialize()?;
                String::try_from(value)
            };
            Ok(UnitState {
                load: property("LoadState").await?,
                active: property("ActiveState").await?,
                file: property("UnitFileState").await?,
            })
        })
    }

    /// Enables a unit, which then starts with the system or the user's session.
    pub fn enable(&self, unit: &str) -> Result<(), Error> {
        self.run(async {
            let manager = self.manager().await?;
            manager.enable_unit_files(&[unit], false, false).await?;
            manager.reload().await
        })
    }

    pub fn disable(&self, unit: &str) -> Result<(), Error> {
        self.run(async {
            let manager = self.manager().await?;
            manager.disable_unit_files(&[unit], false).await?;
            manager.reload().await
        })
    }

    /// Starts a unit, and waits until it runs.
    pub fn start(&self, unit: &str) -> Result<(), Error> {
        let result =
            self.run(self.job(async |manager| manager.start_unit(unit, "replace").await))?;
        check_job(unit, "started", &result)
    }

    /// Stops a unit, and waits until it has ended.
    pub fn stop(&self, unit: &str) -> Result<(), Error> {
        let result =
            self.run(self.job(async |manager| manager.stop_unit(unit, "replace").await))?;
        check_job(unit, "stopped", &result)
    }

    /// Starts a job and waits for its end. Returns its result.
    async fn job(
        &self,
        begin: impl AsyncFnOnce(&SystemdManagerProxy<'_>) -> zbus::Result<OwnedObjectPath>,
    ) -> zbus::Result<String> {
        let manager = self.manager().await?;
        manager.subscribe().await?;
        // Subscribe first: the job may end before its path is returned.
        let mut removed = manager.receive_job_removed().await?;
        let job = begin(&manager).await?;
        loop {
            let next = std::future::poll_fn(|cx| Pin::new(&mut removed).poll_next(cx)).await;
            let Some(signal) = next else {
                return Ok("lost".to_owned());
            };
            let ended = signal.args()?;
            if ended.job == job {
                return Ok(ended.result.clone());
            }
        }
    }
}

fn check_job(unit: &str, what: &str, result: &str) -> Result<(), Error> {
    if result == "done" {
        return Ok(());
    }
    let text = format!("{unit} was not {what} ({result}); for the reason: systemctl status {unit}");
    Err(Error::Failed(text))
}
