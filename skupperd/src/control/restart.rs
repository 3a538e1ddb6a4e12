//! Asks systemd whether it stops this service in order to start it again.

use super::Bus;
use std::time::Duration;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, connection::Builder};

/// Time for systemd to answer. The service is stopping meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
const SYSTEMD: &str = "org.freedesktop.systemd1";

/// Whether systemd is restarting this service. False if it does not answer.
pub async fn is_restarting(bus: Bus) -> bool {
    match tokio::time::timeout(ANSWER_TIMEOUT, current_job(bus)).await {
        Ok(Ok(kind)) => kind.is_some_and(|kind| kind.ends_with("restart")),
        Ok(Err(error)) => {
            tracing::debug!(%error, "cannot ask systemd for the job of this service");
            false
        }
        Err(_) => {
            tracing::debug!("systemd did not answer; assuming a stop");
            false
        }
    }
}

/// The type of the job of this service's unit: `stop`, `restart` and so on.
async fn current_job(bus: Bus) -> zbus::Result<Option<String>> {
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
