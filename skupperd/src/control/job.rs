//! What the service manager is doing with this very service.

use super::Bus;
use std::time::Duration;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, connection::Builder};

/// Time that the service manager has to answer: it is asked when the service is to stop.
const ANSWER: Duration = Duration::from_secs(1);
const SYSTEMD: &str = "org.freedesktop.systemd1";

/// Whether the service manager stops this service only to start it again. No if it does not say.
pub async fn restarting(bus: Bus) -> bool {
    match tokio::time::timeout(ANSWER, job(bus)).await {
        Ok(Ok(kind)) => kind.is_some_and(|kind| kind.ends_with("restart")),
        Ok(Err(error)) => {
            tracing::debug!(%error, "what the service manager does is not known");
            false
        }
        Err(_) => {
            tracing::debug!("the service manager does not say what it does");
            false
        }
    }
}

/// The kind of the job that this service's unit has: `stop`, `restart` and so on.
async fn job(bus: Bus) -> zbus::Result<Option<String>> {
    let builder = match bus {
        Bus::System => Builder::system(),
        Bus::Session => Builder::session(),
    };
    let connection = builder.build().await?;
    let manager = (
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
    );
    let unit = connection
        .call_method(
            Some(SYSTEMD),
            manager.0,
            Some(manager.1),
            "GetUnitByPID",
            &(std::process::id(),),
        )
        .await?;
    let unit: OwnedObjectPath = unit.body().deserialize()?;
    let job = property(&connection, &unit, "org.freedesktop.systemd1.Unit", "Job").await?;
    let (id, job) = <(u32, OwnedObjectPath)>::try_from(job)?;
    if id == 0 {
        return Ok(None);
    }
    let kind = property(&connection, &job, "org.freedesktop.systemd1.Job", "JobType").await?;
    Ok(Some(String::try_from(kind)?))
}

async fn property(
    connection: &Connection,
    path: &OwnedObjectPath,
    interface: &str,
    name: &str,
) -> zbus::Result<OwnedVariant> {
    let which = (interface, name);
    let reply = connection.call_method(
        Some(SYSTEMD),
        path,
        Some("org.freedesktop.DBus.Properties"),
        "Get",
        &which,
    );
    reply.await?.body().deserialize()
}
