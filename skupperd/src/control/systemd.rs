//! systemd, as far as the daemon's unit is concerned.

use super::{
    Bus, Error,
    client::{connect, text_of},
};
use std::{future::Future, pin::Pin, time::Duration};
use tokio::runtime::Runtime;
use zbus::{
    Connection, OwnedObjectPath, OwnedVariant, export::futures_core::Stream, proxy::CacheProperties,
};

/// Longest time a job may take: the unit's own limits end it before.
const JOB: Duration = Duration::from_secs(120);

/// What was done to files: how, which, to what.
type Changes = Vec<(String, String, String)>;

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
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
    ) -> zbus::Result<(bool, Changes)>;
    #[zbus(allow_interactive_auth)]
    fn disable_unit_files(&self, files: &[&str], runtime: bool) -> zbus::Result<Changes>;
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

/// How a unit stands.
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
    /// There is such a unit.
    pub fn exists(&self) -> bool {
        self.load != "not-found"
    }

    /// It runs, or is about to.
    pub fn runs(&self) -> bool {
        ["active", "activating", "reloading"].contains(&self.active.as_str())
    }
}

/// The service manager of a scope.
pub struct Systemd {
    runtime: Runtime,
    connection: Connection,
}

impl Systemd {
    /// Connects to the service manager that is on a bus.
    pub fn connect(bus: Bus) -> Result<Self, Error> {
        let (runtime, connection) = connect(bus)
            .map_err(|e| Error::Failed(format!("the {bus} bus can not be reached: {e}")))?;
        Ok(Self {
            runtime,
            connection,
        })
    }

    fn run<T>(&self, work: impl Future<Output = zbus::Result<T>>) -> Result<T, Error> {
        let timeout = async { tokio::time::timeout(JOB, work).await };
        match self.runtime.block_on(timeout) {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(Error::Failed(format!("systemd: {}", text_of(&error)))),
            Err(_) => {
                let text = format!("systemd has not done it within {} s", JOB.as_secs());
                Err(Error::Timeout(text))
            }
        }
    }

    async fn manager(&self) -> zbus::Result<ManagerProxy<'_>> {
        ManagerProxy::builder(&self.connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
    }

    /// How a unit stands.
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

    /// Has a unit started with its scope.
    pub fn enable(&self, unit: &str) -> Result<(), Error> {
        self.run(async {
            let manager = self.manager().await?;
            manager.enable_unit_files(&[unit], false, false).await?;
            manager.reload().await
        })
    }

    /// Has it not started any more.
    pub fn disable(&self, unit: &str) -> Result<(), Error> {
        self.run(async {
            let manager = self.manager().await?;
            manager.disable_unit_files(&[unit], false).await?;
            manager.reload().await
        })
    }

    /// Starts a unit, and waits until it has.
    pub fn start(&self, unit: &str) -> Result<(), Error> {
        let result =
            self.run(self.job(async |manager| manager.start_unit(unit, "replace").await))?;
        done(unit, "started", &result)
    }

    /// Stops a unit, and waits until it has.
    pub fn stop(&self, unit: &str) -> Result<(), Error> {
        let result =
            self.run(self.job(async |manager| manager.stop_unit(unit, "replace").await))?;
        done(unit, "stopped", &result)
    }

    /// Begins a job and waits for its end. Gives how it ended.
    async fn job(
        &self,
        begin: impl AsyncFnOnce(&ManagerProxy<'_>) -> zbus::Result<OwnedObjectPath>,
    ) -> zbus::Result<String> {
        let manager = self.manager().await?;
        manager.subscribe().await?;
        // Before the job: it may have ended when its name comes back.
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

fn done(unit: &str, what: &str, result: &str) -> Result<(), Error> {
    if result == "done" {
        return Ok(());
    }
    let text = format!("{unit} could not be {what} ({result}): systemctl status {unit} says why");
    Err(Error::Failed(text))
}
