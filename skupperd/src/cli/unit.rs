//! `skupper system install`, `start` and so on: the daemon's systemd unit, of the system or the user.

use super::{
    CommandResult, Failure, output,
    target::{CommandTarget, Scope},
};
use crate::{
    control::{Bus, Systemd, UnitState},
    model::{Kind, Namespace},
};
use anyhow::anyhow;
use std::path::Path;

const UNIT: &str = "skupperd.service";

fn failed(text: String) -> Failure {
    Failure::Failed(anyhow!(text))
}

fn manager(target: &CommandTarget) -> Result<Systemd, Failure> {
    let bus = match (target.scope, target.bus) {
        (Scope::Root, _) => {
            let text = "sites below --root have no systemd unit: run skupperd --root DIR";
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

/// The state of the unit, if it exists and systemd answers.
pub(super) fn current_state(target: &CommandTarget) -> Option<UnitState> {
    let state = manager(target).and_then(|systemd| state(&systemd));
    state.ok().filter(UnitState::exists)
}

fn existing_unit(target: &CommandTarget, systemd: &Systemd) -> Result<UnitState, Failure> {
    let state = state(systemd)?;
    if state.exists() {
        return Ok(state);
    }
    let user = if target.scope == Scope::User {
        " --user"
    } else {
        ""
    };
    Err(failed(format!(
        "unit {UNIT} does not exist: install the package skupperd, or run skupperd{user} yourself"
    )))
}

pub(super) fn install(target: &CommandTarget, reload_type: Option<&str>) -> CommandResult {
    if reload_type == Some("manual") {
        output::error("reload type manual is not supported: changed resources take effect at once");
    }
    let systemd = manager(target)?;
    let state = existing_unit(target, &systemd)?;
    if state.file != "enabled" {
        systemd.enable(UNIT)?;
    }
    if !state.runs() {
        systemd.start(UNIT)?;
    }
    output::print("Platform linux is now configured for Skupper")?;
    output::print(&format!("{UNIT} is enabled and running"))?;
    warn_about_lingering(target)
}

pub(super) fn uninstall(target: &CommandTarget, force: bool) -> CommandResult {
    let systemd = manager(target)?;
    let state = state(&systemd)?;
    if !state.exists() || (!state.runs() && state.file != "enabled") {
        return output::print("There is nothing to uninstall");
    }
    if !force && state.runs() && !namespaces_with_sites(target)?.is_empty() {
        let text = "Uninstallation halted: Active sites detected. Use --force flag to stop active \
                    sites";
        return Err(failed(text.to_owned()));
    }
    systemd.disable(UNIT)?;
    if state.runs() {
        systemd.stop(UNIT)?;
    }
    output::print("Platform linux infrastructure for Skupper is now uninstalled")?;
    print_remaining_resources(target)
}

/// Namespaces that have a site.
fn namespaces_with_sites(target: &CommandTarget) -> Result<Vec<Namespace>, Failure> {
    let mut found = Vec::new();
    for namespace in target.namespaces()? {
        if !target.documents_of(&namespace, Kind::Site)?.is_empty() {
            found.push(namespace);
        }
    }
    Ok(found)
}

pub(super) fn start(target: &CommandTarget) -> CommandResult {
    let systemd = manager(target)?;
    if existing_unit(target, &systemd)?.runs() {
        output::print("skupperd is already running")?;
    } else {
        systemd.start(UNIT)?;
        output::print("skupperd is running")?;
    }
    let name = target.name();
    output::print(&format!(
        "Sources will be consumed from namespace {name:?}\nDefinition is available at: {}",
        target.resources().display()
    ))?;
    warn_about_lingering(target)
}

pub(super) fn stop(target: &CommandTarget, all: bool) -> CommandResult {
    let systemd = manager(target)?;
    if !existing_unit(target, &systemd)?.runs() {
        return output::print("skupperd is not running");
    }
    if !all {
        let mut others = namespaces_with_sites(target)?;
        others.retain(|namespace| namespace != target.name());
        if !others.is_empty() {
            let others: Vec<&str> = others.iter().map(Namespace::as_str).collect();
            return Err(failed(format!(
                "skupperd also runs the sites of other namespaces: {}\n\
                 Nothing was stopped. To stop all sites, use --all; to stop one, delete it: skupper \
                 site delete",
                others.join(", ")
            )));
        }
    }
    systemd.stop(UNIT)?;
    output::print("skupperd is stopped")?;
    print_remaining_resources(target)
}

pub(super) fn reload(target: &CommandTarget) -> CommandResult {
    if target.reload()? {
        return output::print("skupperd has read all resources again");
    }
    start(target)
}

fn print_remaining_resources(target: &CommandTarget) -> CommandResult {
    output::print(&format!(
        "Resources stay in {}. To remove a namespace: skupper system teardown",
        target.layout.input_namespaces().display()
    ))
}

/// The user without lingering: the user's systemd ends, and their sites with it, when they log out.
pub(super) fn without_lingering(target: &CommandTarget) -> Option<String> {
    let user = std::env::var("USER").unwrap_or_default();
    if target.scope != Scope::User || user.is_empty() || user.contains('/') {
        return None;
    }
    let lingers = Path::new("/var/lib/systemd/linger").join(&user).exists();
    (!lingers).then_some(user)
}

fn warn_about_lingering(target: &CommandTarget) -> CommandResult {
    if let Some(user) = without_lingering(target) {
        output::error(&format!(
            "It is recommended to enable lingering for {user}, otherwise Skupper may not start on \
             boot and ends when you log out: loginctl enable-linger {user}"
        ));
    }
    Ok(())
}
