//! The daemon's unit: started and stopped through the service manager of its scope.

use super::{
    Failure, Outcome, output,
    place::{Place, Scope},
};
use crate::{
    control::{Bus, Systemd, UnitState},
    model::Kind,
};
use anyhow::anyhow;
use std::path::Path;

/// Its name, in either scope.
const UNIT: &str = "skupperd.service";

fn failed(text: String) -> Failure {
    Failure::Failed(anyhow!(text))
}

/// The service manager that has the unit.
fn manager(place: &Place) -> Result<Systemd, Failure> {
    let bus = match (place.scope, place.bus) {
        (Scope::Root, _) => {
            let text = "what is below a directory of its own has no unit: run skupperd --root DIR";
            return Err(failed(text.to_owned()));
        }
        (_, Some(bus)) => bus,
        (Scope::System, None) => Bus::System,
        (Scope::User, None) => Bus::Session,
    };
    Ok(Systemd::connect(bus)?)
}

fn state(systemd: &Systemd) -> Result<UnitState, Failure> {
    Ok(systemd.state(UNIT)?)
}

/// How the unit stands, where there is one, and a service manager that can tell.
pub(super) fn of(place: &Place) -> Option<UnitState> {
    let state = manager(place).and_then(|systemd| state(&systemd));
    state.ok().filter(UnitState::exists)
}

fn there(place: &Place, systemd: &Systemd) -> Result<UnitState, Failure> {
    let state = state(systemd)?;
    if state.exists() {
        return Ok(state);
    }
    let user = if place.scope == Scope::User {
        " --user"
    } else {
        ""
    };
    Err(failed(format!(
        "there is no unit {UNIT}: install the package skupperd, or run skupperd{user} by other means"
    )))
}

pub(super) fn install(place: &Place, reload_type: Option<&str>) -> Outcome {
    if reload_type == Some("manual") {
        output::error("resources take effect as they change: there is no reload type manual");
    }
    let systemd = manager(place)?;
    let state = there(place, &systemd)?;
    if state.file != "enabled" {
        systemd.enable(UNIT)?;
    }
    if !state.runs() {
        systemd.start(UNIT)?;
    }
    output::print("Platform linux is now configured for Skupper")?;
    linger(place)
}

pub(super) fn uninstall(place: &Place, force: bool) -> Outcome {
    let systemd = manager(place)?;
    let state = state(&systemd)?;
    if !state.exists() || (!state.runs() && state.file != "enabled") {
        return output::print("There is nothing to uninstall");
    }
    if !force && state.runs() && has_sites(place)? {
        let text = "Uninstallation halted: Active sites detected. Use --force flag to stop active \
                    sites";
        return Err(failed(text.to_owned()));
    }
    systemd.disable(UNIT)?;
    if state.runs() {
        systemd.stop(UNIT)?;
    }
    output::print("Platform linux infrastructure for Skupper is now uninstalled")?;
    kept(place)
}

fn has_sites(place: &Place) -> Result<bool, Failure> {
    for namespace in place.namespaces()? {
        if !place.documents_of(&namespace, Kind::Site)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn start(place: &Place) -> Outcome {
    let systemd = manager(place)?;
    if there(place, &systemd)?.runs() {
        output::print("skupperd is running already")?;
    } else {
        systemd.start(UNIT)?;
        output::print("skupperd is running")?;
    }
    let name = place.name();
    output::print(&format!(
        "Sources will be consumed from namespace {name:?}\nDefinition is available at: {}",
        place.resources().display()
    ))?;
    linger(place)
}

pub(super) fn stop(place: &Place) -> Outcome {
    let systemd = manager(place)?;
    if !there(place, &systemd)?.runs() {
        return output::print("skupperd is not running");
    }
    systemd.stop(UNIT)?;
    output::print("skupperd is stopped")?;
    kept(place)
}

pub(super) fn reload(place: &Place) -> Outcome {
    if place.reload()? {
        return output::print("skupperd has read all resources again");
    }
    start(place)
}

/// What stays, and where.
fn kept(place: &Place) -> Outcome {
    output::print(&format!(
        "Resources stay in {}; skupper system teardown removes a namespace",
        place.layout.input_namespaces().display()
    ))
}

/// The user whose sites end with the last session: a user's service manager does, unless somebody has
/// said otherwise.
pub(super) fn without_lingering(place: &Place) -> Option<String> {
    let user = std::env::var("USER").unwrap_or_default();
    if place.scope != Scope::User || user.is_empty() || user.contains('/') {
        return None;
    }
    let lingers = Path::new("/var/lib/systemd/linger").join(&user).exists();
    (!lingers).then_some(user)
}

fn linger(place: &Place) -> Outcome {
    if let Some(user) = without_lingering(place) {
        output::error(&format!(
            "It is recommended to enable lingering for {user}, otherwise Skupper may not start on \
             boot and ends when you log out: loginctl enable-linger {user}"
        ));
    }
    Ok(())
}
